"""A run that is small enough to be started many times: 2 epochs, dropout on, in 32 bits on the CPU."""

SMALL = [
    "--model.backbone=small",
    "--model.architecture={layers: 1, width: 32, heads: 2, inner_width: 64}",
    "--data.vocab_size=600",
    "--data.max_tokens=48",
    "--data.global_batch_size=16",
    "--data.micro_batch_tokens=256",
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.log_every_n_steps=5",
    "--checkpoint.every_steps=4",
]
"""Options of `genre-lightning fit`, besides the file and the run directory; later options overrule these."""
