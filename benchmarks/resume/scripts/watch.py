"""What every script of this folder reports to the driver: the films of each step, and that a moment has come.

Needs nothing but torch. The driver sets RESUME_JOURNAL to a file, and RESUME_CUT to "moment:step" for a start that it
will cut: at that moment rank 0 waits until the driver has sent its signal.
"""

import io
import json
import os
import time
from contextlib import nullcontext
from pathlib import Path

import torch


class Watch:
    """Journals the steps of one rank."""

    def __init__(self):
        self.rank = int(os.environ.get("RANK", 0))
        self.path = Path(os.environ["RESUME_JOURNAL"])
        moment, _, step = os.environ.get("RESUME_CUT", "").partition(":")
        self.cut = (moment, int(step)) if moment and self.rank == 0 else None
        self.steps_done = 0
        self._films = []
        torch.save = self._halting(torch.save)
        self._write(event="start", process=os.getpid())

    def _write(self, **line):
        with self.path.open("a") as file:
            file.write(json.dumps({"rank": self.rank, **line}) + "\n")

    def moment(self, name):
        """Wait for the signal if this is the moment of the cut."""
        if self.cut == (name, self.steps_done):
            self.cut = None
            self._write(event="moment")
            parent = os.getppid()
            while not self.path.with_suffix(".struck").exists() and os.getppid() == parent:  # or the driver has ended
                time.sleep(0.02)

    def training(self, films):
        """Note films whose gradient is about to be computed."""
        self.moment("in a step")
        self._films += films

    def validation(self):
        """Note a batch of a validation."""
        self.moment("in validation")

    def step(self, step, epoch):
        """Note that the optimizer has made its `step`-th step, before anything is saved."""
        self.steps_done = step
        self._write(event="step", step=step, epoch=epoch, films=self._films, cpu=time.process_time(), time=time.time())
        self._films = []
        self.moment("between steps")

    def attach(self, model):
        """Take "film" out of the batches of a model of transformers, and note it."""

        def before(module, args, batch):
            films = batch.pop("film").tolist()
            self.training(films) if module.training else self.validation()
            return args, batch

        model.register_forward_pre_hook(before, with_kwargs=True)

    def finish(self, weights):
        """Keep the final weights."""
        if self.rank == 0:
            torch.save(dict(weights), self.path.with_name("final.pt"))
        self._write(event="end")

    def _halting(self, save):
        """Make `torch.save` write half of a file before it waits for the signal."""

        def halting(content, file, *args, **options):
            if self.cut != ("in a save", self.steps_done):
                return save(content, file, *args, **options)
            whole = io.BytesIO()
            save(content, whole, *args, **options)
            content_bytes = whole.getvalue()
            half = len(content_bytes) // 2
            # a name is opened here; an open file or a buffer is the tool's own way to write
            with nullcontext(file) if hasattr(file, "write") else Path(file).open("wb") as target:
                target.write(content_bytes[:half])
                target.flush()
                self.moment("in a save")
                target.write(content_bytes[half:])
            return None

        return halting
