"""The loop of accelerate's examples/by_feature/checkpointing.py; the variant has `use_seedable_sampler`.

Resuming, skipping and saving follow the example line by line, with the newest `step_…` folder as the checkpoint.
"""

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from task import EPOCHS, FILMS_A_STEP, LR, STEPS_A_SAVE, arguments, collate, load
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup
from watch import Watch

options = arguments()
loading = DataLoaderConfiguration(use_seedable_sampler=options.variant)
accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=options.out, dataloader_config=loading)
accelerator.init_trackers("curves")
set_seed(42)
train, validation, model = load(options.films, options.dropout)
watch = Watch()
watch.attach(model)
films_a_rank = FILMS_A_STEP // options.ranks
train_dataloader = DataLoader(train, shuffle=True, collate_fn=collate, batch_size=films_a_rank)
eval_dataloader = DataLoader(validation, shuffle=False, collate_fn=collate, batch_size=films_a_rank)
optimizer = AdamW(params=model.parameters(), lr=LR)
steps = len(train) // FILMS_A_STEP * EPOCHS
lr_scheduler = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=0, num_training_steps=steps * options.ranks)
model, optimizer, train_dataloader, eval_dataloader, lr_scheduler = accelerator.prepare(
    model, optimizer, train_dataloader, eval_dataloader, lr_scheduler
)

overall_step = starting_epoch = resume_step = 0
if options.resume:
    newest = max(options.out.glob("step_*"), key=lambda folder: folder.stat().st_ctime)
    accelerator.load_state(str(newest))
    resume_step = int(newest.name.replace("step_", ""))
    starting_epoch = resume_step // len(train_dataloader)
    overall_step = starting_epoch * len(train_dataloader)  # the example counts from 0 here, and saves over older steps
    resume_step -= starting_epoch * len(train_dataloader)

for epoch in range(starting_epoch, EPOCHS):
    model.train()
    if options.resume and epoch == starting_epoch:
        active_dataloader = accelerator.skip_first_batches(train_dataloader, resume_step)
        overall_step += resume_step
    else:
        active_dataloader = train_dataloader
    for batch in active_dataloader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        overall_step += 1
        watch.step(overall_step, epoch)
        accelerator.log({"train/loss": loss.item()}, step=overall_step)
        if overall_step % STEPS_A_SAVE == 0:
            accelerator.save_state(str(options.out / f"step_{overall_step}"))
    model.eval()
    losses = []
    for batch in eval_dataloader:
        with torch.no_grad():
            losses.append(model(**batch).loss)
    accelerator.log({"val/loss": torch.stack(losses).mean().item()}, step=overall_step)
accelerator.end_training()
watch.finish(accelerator.unwrap_model(model).state_dict())
