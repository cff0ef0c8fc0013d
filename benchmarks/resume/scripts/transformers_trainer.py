"""Hugging Face Trainer, resumed by `resume_from_checkpoint=True`; the variant has `enable_jit_checkpoint`."""

import math

from task import EPOCHS, FILMS_A_STEP, LR, STEPS_A_SAVE, arguments, collate, load
from transformers import Trainer, TrainerCallback, TrainingArguments
from watch import Watch


class Report(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        watch.step(state.global_step, math.ceil(state.epoch - 1e-6) - 1)


options = arguments()
train, validation, model = load(options.films, options.dropout)
watch = Watch()
watch.attach(model)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir=str(options.out),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=FILMS_A_STEP // options.ranks,
        learning_rate=LR,
        save_strategy="steps",
        save_steps=STEPS_A_SAVE,
        eval_strategy="epoch",
        logging_steps=1,
        remove_unused_columns=False,  # "film" is for the report
        enable_jit_checkpoint=options.variant,
        use_cpu=True,
        ddp_backend="gloo" if options.ranks > 1 else None,
        report_to="none",
        disable_tqdm=True,
    ),
    train_dataset=train,
    eval_dataset=validation,
    data_collator=collate,
    callbacks=[Report()],
)
trainer.train(resume_from_checkpoint=True if options.resume else None)
trainer.save_state()
watch.finish(model.state_dict())
