"""`genre-lightning fit`, resumed by the same command; only watched, through a callback of Lightning."""

import argparse
import sys
from pathlib import Path

from lightning.pytorch import Callback
from watch import Watch

from genre_lightning.__main__ import main
from genre_lightning.distributed.checkpoint.io import read_checkpoint
from genre_lightning.evaluation.plots import figures
from genre_lightning.training import fit


class Report(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        # a rank without films in a micro-batch takes part with -1
        watch.training([film for film in batch["index"].tolist() if film >= 0])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step > watch.steps_done:
            watch.step(trainer.global_step, trainer.current_epoch)

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        watch.validation()

    def on_load_checkpoint(self, trainer, module, checkpoint):
        watch.steps_done = checkpoint["global_step"]


def build_watched(setup):
    trainer, checkpoints = build_trainer(setup)
    trainer.callbacks.insert(0, Report())
    return trainer, checkpoints


parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True, help="the run's directory")
parser.add_argument("options", nargs="*", help="options of `genre-lightning fit`")
options = parser.parse_args()
watch = Watch()
build_trainer = fit.build_trainer
fit.build_trainer = build_watched
# drawn after the training, which takes longer than such a small one
figures.write_figures = lambda *args, **kwargs: None
status = main(["fit", f"--run_dir={options.out}", *options.options])
if status == 0:
    watch.finish(read_checkpoint(options.out / "checkpoints" / "last.ckpt")["state_dict"])
sys.exit(status)
