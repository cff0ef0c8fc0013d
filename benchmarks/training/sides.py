"""One side of the training benchmark in a process of its own: `python sides.py '{JSON}'` prints its metrics as JSON.

Every side trains the same model from the same weights on the same film file with the same optimizer, schedule, global
batch and loss. This framework's side is what `genre-lightning fit` runs. The peer's is Hugging Face Trainer around the
encoder as transformers makes it, pooled and classified in the plainest way, with all films of a step at once. A Llama's
base and adapters are this framework's there too, as transformers quantises no weights that lie on no disk.
On a GPU this framework, which builds the peer's model, has switched cuDNN's attention off, to the peer's advantage.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional

from genre_lightning.config.parser import parse
from genre_lightning.data.datamodule import PreparedData
from genre_lightning.models.flops import training_cost
from genre_lightning.models.optimizer import parameter_groups
from genre_lightning.models.step_sums import text_lengths
from genre_lightning.training.setup import Setup, bind_model, build_trainer, check_setup

OURS = "genre_lightning"
PEER_FORMS = ("padded to 256", "dynamic padding", "group_by_length")
FILMS_ONLY = "films"
"""A side that reads, splits and tokenises the films, and trains nothing."""


@dataclass(frozen=True)
class Job:
    """What a worker is asked for.

    Attributes:
        side: OURS, one of PEER_FORMS, or FILMS_ONLY.
        words: Options of `genre-lightning fit` that describe model, data and precision.
        warmup_steps: Not timed.
        steps: Timed; 0 trains a whole epoch and judges it on the validation films.
        seed: Random seed of the order of the films, of dropout and of new weights.
        threads: Number of threads on a CPU; null leaves torch's choice.
    """

    side: str
    words: list[str]
    warmup_steps: int
    steps: int
    seed: int
    threads: int | None


class Meter:
    """Counts real tokens, films and seconds of the steps after the warm-up."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job = job
        self.device = device
        self.steps = self.films = self.slots = 0
        self.tokens: Tensor | int = 0
        self.started = time.perf_counter()
        self.seconds = 0.0

    def batch(self, lengths: Tensor | np.ndarray, slots: int) -> None:
        """Note the texts of a micro-batch before it is computed."""
        if self.steps >= self.job.warmup_steps:
            self.tokens = self.tokens + lengths.sum()  # on the device: to read it would be to wait for it
            self.films += len(lengths)
            self.slots += slots

    def step(self) -> bool:
        """Note an optimizer step that is done; return whether it was the last."""
        self.steps += 1
        last = bool(self.job.steps) and self.steps == self.job.warmup_steps + self.job.steps
        if self.steps == self.job.warmup_steps or last:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.seconds, self.started = now - self.started, now
        return last

    def figures(self) -> dict[str, Any]:
        """Return what has been measured, with the largest memory so far."""
        if self.steps < self.job.warmup_steps + self.job.steps:
            raise SystemExit(
                f"the training ended after {self.steps} steps, before the timed ones: give a smaller --batch"
            )
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated() / 2**30
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        tokens = int(self.tokens)
        rates = {"tokens_per_second": tokens / self.seconds, "films_per_second": self.films / self.seconds}
        return {"tokens": tokens, "films": self.films, "seconds": self.seconds, **rates,
                "padding": 1 - tokens / self.slots, "peak_gib": peak}  # fmt: skip


class Clock(Callback):
    """Reads the meter for this framework."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Count the texts of a micro-batch, and its padding: of a packed one none."""
        self.meter.batch(text_lengths(batch), batch["input_ids"].numel())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End the training after the last step."""
        done = trainer.global_step > self.meter.steps
        if done and self.meter.step():
            trainer.should_stop = True


class Peer(nn.Module):
    """A backbone with a head as one would write it for Hugging Face Trainer."""

    def __init__(self, backbone: nn.Module, head: nn.Module, meter: Meter, *, last_token: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.meter = meter
        self.last_token = last_token

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the loss and logits of a padded batch."""
        if self.training:
            self.meter.batch(attention_mask.sum(dim=1), input_ids.numel())
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        if self.last_token:
            pooled = states[torch.arange(len(states)), attention_mask.sum(dim=1) - 1]
        else:
            mask = attention_mask[..., None].float()
            pooled = (states * mask).sum(dim=1) / mask.sum(dim=1)
        # as this framework's: a sliver of the work, in float32
        with torch.autocast(pooled.device.type, enabled=False):
            logits = self.head(pooled)
        return {"loss": functional.binary_cross_entropy_with_logits(logits, labels), "logits": logits}


def make_setup(job: Job, folder: str) -> tuple[Setup, PreparedData]:
    """Return the checked configuration with its data, as `fit` makes it."""
    words = [*job.words, f"--run_dir={folder}/run", f"--seed={job.seed}", "--trainer.enable_progress_bar=false"]
    if job.steps:
        words += ["--trainer.num_sanity_val_steps=0", "--early_stopping.patience=0"]
    config, parser = parse("fit", words)
    setup = check_setup(config, parser)
    if job.steps:
        setup.trainer_options["limit_val_batches"] = 0  # which a run must not have: it chooses its best checkpoint
    return setup, bind_model(setup)


def run_ours(job: Job, folder: str) -> dict[str, Any]:
    """Train with this framework."""
    setup, data = make_setup(job, folder)
    meter = Meter(job, torch.device("cuda" if setup.config.trainer.accelerator == "cuda" else "cpu"))
    setup.trainer_options["callbacks"] = [Clock(meter)]
    trainer, _ = build_trainer(setup)
    trainer.fit(setup.model, datamodule=setup.data)
    if not job.steps:
        return {"steps": trainer.global_step, "map_macro": mean_ap(setup, data, lambda batch: setup.model(batch))}
    cost = training_cost(setup.model.backbone, setup.model.backbone_config, causal=setup.model.causal)
    return {**meter.figures(), "flops_per_token": cost.per_token}


def run_peer(job: Job, folder: str) -> dict[str, Any]:
    """Train with Hugging Face Trainer."""
    setup, data = make_setup(job, folder)
    config, dataset = setup.config, setup.data.dataset("train")
    on_gpu = config.trainer.accelerator == "cuda"
    meter = Meter(job, torch.device("cuda" if on_gpu else "cpu"))
    peer = peer_model(setup, meter)
    lr, head_lr = setup.model.learning_rates()
    del setup.model.backbone  # of an encoder the peer has a copy
    rows = [dataset.store[film].tolist() for film in dataset.films]
    films = [{"input_ids": row, "labels": y.astype(np.float32)} for row, y in zip(rows, dataset.labels, strict=True)]

    def collate(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        tokens = {"input_ids": [sample["input_ids"] for sample in samples]}
        fixed = (
            {"padding": "max_length", "max_length": setup.data.options.max_tokens} if job.side == PEER_FORMS[0] else {}
        )
        batch = data.tokenizer.pad(tokens, return_tensors="pt", **fixed)
        labels = torch.from_numpy(np.stack([sample["labels"] for sample in samples]))
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, arguments: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = meter.step() or control.should_training_stop

    precision = str(config.trainer.precision)
    arguments = transformers.TrainingArguments(
        output_dir=f"{folder}/peer", num_train_epochs=1,
        per_device_train_batch_size=setup.data.options.global_batch_size,
        bf16=precision == "bf16-mixed", fp16=precision == "16-mixed", use_cpu=not on_gpu, optim="adamw_torch_fused",
        train_sampling_strategy="group_by_length" if job.side == PEER_FORMS[2] else "random",
        learning_rate=lr, lr_scheduler_type="linear", warmup_steps=setup.model.options.warmup_fraction,
        max_grad_norm=config.trainer.gradient_clip_val, seed=job.seed, save_strategy="no", logging_steps=50,
        report_to=[], disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=on_gpu,
    )  # fmt: skip
    groups = parameter_groups(
        peer.backbone.named_parameters(), peer.head.named_parameters(), lr=lr, head_lr=head_lr,
        weight_decay=setup.model.options.weight_decay,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(groups, betas=(0.9, setup.model.options.beta2), fused=True)
    trainer = transformers.Trainer(
        peer, arguments, train_dataset=films, data_collator=collate, callbacks=[Stop()], optimizers=(optimizer, None)
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    if job.steps:
        return meter.figures()

    def logits(batch: dict[str, Tensor]) -> Tensor:
        # the class's forward: Trainer has put one under autocast in the instance, and both sides are judged in float32
        return Peer.forward(peer, batch["input_ids"], batch["attention_mask"], batch["labels"])["logits"]

    setup.data.layout = "padded"
    return {"steps": meter.steps, "map_macro": mean_ap(setup, data, logits, peer)}


def read_films(job: Job, folder: str) -> dict[str, Any]:
    """Leave the films in the cache, ready for every side."""
    setup, _ = make_setup(job, folder)
    return {"films": len(setup.data.dataset("train"))}


RUNS = {OURS: run_ours, FILMS_ONLY: read_films, **dict.fromkeys(PEER_FORMS, run_peer)}


def peer_model(setup: Setup, meter: Meter) -> Peer:
    """Return the peer's model, with the initial weights of this framework's."""
    model = setup.model
    causal = model.causal
    if causal:
        # from_pretrained cannot quantise weights that lie on no disk: the peer gets this framework's base and adapters
        model.packing = False
        trainer, _ = build_trainer(setup)
        model.trainer = trainer
    model.configure_model()
    backbone = model.backbone
    if not causal:
        plain = transformers.AutoModel.from_config(model.backbone_config, attn_implementation="sdpa")
        plain.load_state_dict(backbone.state_dict(), strict=False)
        backbone = plain
    if causal and setup.config.trainer.accelerator == "cuda":
        model.cuda()
    return Peer(backbone.train(), model.head, meter, last_token=causal)


@torch.inference_mode()
def mean_ap(setup: Setup, data: PreparedData, logits_of: Any, model: nn.Module | None = None) -> float:
    """Return the macro average precision on the validation films, by scikit-learn."""
    from sklearn.metrics import average_precision_score

    (model or setup.model).eval()
    dataset = setup.data.dataset("validation")
    logits = np.zeros(dataset.labels.shape, dtype=np.float32)
    setup.data.trainer = None
    for batch in setup.data.evaluation_dataloader("validation"):
        logits[batch["index"].numpy()] = logits_of(batch).float().numpy()
    present = dataset.labels.any(axis=0)
    return float(average_precision_score(dataset.labels[:, present], logits[:, present], average="macro"))


def main() -> None:
    """Run the job that the first word describes."""
    job = Job(**json.loads(sys.argv[1]))
    if job.threads:
        torch.set_num_threads(job.threads)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "peer").mkdir()
        figures = RUNS[job.side](job, folder)
    # in one write: ranks share the pipe, and print would write the end of the line by itself
    sys.stdout.write(f"FIGURES {json.dumps(figures)}\n")


if __name__ == "__main__":
    main()
