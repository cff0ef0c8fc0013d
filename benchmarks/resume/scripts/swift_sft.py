"""ms-swift's `swift sft`, resumed by `--resume_from_checkpoint` with the newest checkpoint.

Its command takes a model's folder and texts: they are made from the token ids that all scripts share, a word for each.
"""

import json
import math
import os
import time

from task import EPOCHS, FILMS_A_STEP, LR, STEPS_A_SAVE, arguments, load
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, TrainerCallback, trainer
from watch import Watch

# on a machine without a GPU swift would still ask its hub for a model's files
os.environ["HF_HUB_OFFLINE"] = "1"
from swift.pipelines import sft_main


class Report(TrainerCallback):
    """Knows a film by its tokens, as swift makes its batches itself."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        self.model = model
        model.register_forward_pre_hook(self.before, with_kwargs=True)

    def before(self, module, args, batch):
        if not module.training:
            watch.validation()
            return
        rows = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
        watch.training([films[tuple(t for t, real in zip(*row, strict=True) if real)] for row in rows])

    def on_step_end(self, args, state, control, **kwargs):
        watch.step(state.global_step, math.ceil(state.epoch - 1e-6) - 1)


options = arguments()
train, validation, model = load(options.films, options.dropout)
films = {tuple(film["input_ids"]): number for number, film in enumerate(train.films)}
inputs = options.out.parent / "swift-inputs"
while os.environ.get("RANK", "0") != "0" and not (inputs / "done").is_file():
    time.sleep(0.05)
if not (inputs / "done").is_file():
    model.save_pretrained(inputs)
    words = {f"t{token}": token for token in range(model.config.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="t0", eos_token="t0").save_pretrained(inputs)
    for name, split in (("train", train), ("validation", validation)):
        with (inputs / f"{name}.jsonl").open("w") as file:
            for film in split.films:
                text = " ".join(f"t{token}" for token in film["input_ids"])
                labels = [place for place, label in enumerate(film["labels"]) if label]
                line = {"messages": [{"role": "user", "content": text}], "label": labels}
                file.write(json.dumps(line) + "\n")
    (inputs / "done").touch()
watch = Watch()
report = Report()
trainer.DEFAULT_CALLBACKS.append(report)
words = {
    "model": inputs, "model_type": "bert", "template": "dummy", "task_type": "seq_cls",
    "num_labels": model.config.num_labels, "problem_type": "multi_label_classification", "tuner_type": "full",
    "dataset": inputs / "train.jsonl", "val_dataset": inputs / "validation.jsonl", "torch_dtype": "float32",
    "num_train_epochs": EPOCHS, "per_device_train_batch_size": FILMS_A_STEP // options.ranks, "learning_rate": LR,
    "gradient_accumulation_steps": 1, "save_strategy": "steps", "save_steps": STEPS_A_SAVE, "eval_strategy": "epoch",
    "logging_steps": 1, "output_dir": options.out, "add_version": "false", "use_cpu": "true",
    "gradient_checkpointing": "false", "attn_impl": "sdpa", "dataloader_num_workers": 0, "dataset_num_proc": 1,
}  # fmt: skip
if options.resume:
    saved = options.out.glob("checkpoint-*")
    words["resume_from_checkpoint"] = max(saved, key=lambda folder: int(folder.name.partition("-")[2]))
sft_main([text for name, value in words.items() for text in (f"--{name}", str(value))])
watch.finish(report.model.state_dict())
