"""Lightning's Trainer with ModelCheckpoint, resumed by `ckpt_path="last"`.

The variant is what Lightning documents beyond that: a resumable loader (torchdata) and `save_on_exception`.
"""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from task import EPOCHS, FILMS_A_STEP, LR, STEPS_A_SAVE, arguments, collate, load
from torch.utils.data import DataLoader
from watch import Watch


class Classifier(LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, batch_idx):
        loss = self.model(**batch).loss
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.model(**batch).loss, sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=LR)
        # Trainer.estimated_stepping_batches would load the loader before the checkpoint's state of it is there
        steps = EPOCHS * len(train) // FILMS_A_STEP
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Report(Callback):
    """Comes before ModelCheckpoint; the module's own hook would come after it."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        watch.step(trainer.global_step, trainer.current_epoch)


options = arguments()
seed_everything(0)
train, validation, model = load(options.films, options.dropout)
watch = Watch()
watch.attach(model)
if options.variant:
    from torchdata.stateful_dataloader import StatefulDataLoader as TrainLoader
else:
    TrainLoader = DataLoader
films_a_rank = FILMS_A_STEP // options.ranks
trainer = Trainer(
    accelerator="cpu",
    devices=options.ranks,
    strategy="ddp" if options.ranks > 1 else "auto",
    max_epochs=EPOCHS,
    log_every_n_steps=1,
    logger=CSVLogger(options.out),
    callbacks=[
        Report(),
        ModelCheckpoint(
            options.out / "checkpoints",
            every_n_train_steps=STEPS_A_SAVE,
            save_last=True,
            save_on_exception=options.variant,
        ),
    ],
    enable_progress_bar=False,
)
trainer.fit(
    Classifier(model),
    TrainLoader(train, films_a_rank, shuffle=True, collate_fn=collate),
    DataLoader(validation, films_a_rank, collate_fn=collate),
    ckpt_path="last" if options.resume else None,
)
watch.finish(model.state_dict())
