"""What a user of Hugging Face Trainer would write: from the movies file to metrics and report, with dynamic padding."""

import argparse
import ast
import json
from pathlib import Path

from parts import Parts

parts = Parts()

with parts("imports"):
    import matplotlib
    import numpy as np
    import pandas as pd
    from sklearn.metrics import average_precision_score, classification_report, f1_score, roc_auc_score
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import MultiLabelBinarizer
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

THRESHOLDS = np.arange(0.05, 0.95, 0.01)

parser = argparse.ArgumentParser()
parser.add_argument("csv", type=Path)
parser.add_argument("encoder")
parser.add_argument("out", type=Path)
parser.add_argument("--films", type=int, help="films to draw; default: all")
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--bf16", action="store_true")
options = parser.parse_args()


def best_thresholds(labels, probabilities):
    """Return the threshold of each genre that gives it the best F1."""
    chosen = []
    for genre in range(labels.shape[1]):
        scores = [f1_score(labels[:, genre], probabilities[:, genre] >= t, zero_division=0) for t in THRESHOLDS]
        chosen.append(THRESHOLDS[int(np.argmax(scores))])
    return np.array(chosen)


with parts("reading"):
    films = pd.read_csv(options.csv, usecols=["id", "overview", "genres"], low_memory=False)
    films = films.dropna().drop_duplicates("id")
    films["genres"] = films["genres"].map(lambda cell: [genre["name"] for genre in ast.literal_eval(cell)])
    films = films[films["genres"].map(len) > 0]
    if options.films:
        films = films.sample(options.films, random_state=0)
    binarizer = MultiLabelBinarizer()
    labels = binarizer.fit_transform(films["genres"]).astype(np.float32)
    train, rest = train_test_split(np.arange(len(films)), test_size=0.3, random_state=0)
    validation, test = train_test_split(rest, test_size=2 / 3, random_state=0)

with parts("tokenising"):
    tokenizer = AutoTokenizer.from_pretrained(options.encoder)
    encoded = tokenizer(films["overview"].tolist(), truncation=True, max_length=256)["input_ids"]


def rows(split):
    return [{"input_ids": encoded[film], "labels": labels[film]} for film in split]


with parts("model"):
    model = AutoModelForSequenceClassification.from_pretrained(
        options.encoder, num_labels=labels.shape[1], problem_type="multi_label_classification"
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.out),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch,
            per_device_eval_batch_size=options.batch,
            learning_rate=options.lr,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            bf16=options.bf16,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows(train),
        eval_dataset=rows(validation),
        data_collator=DataCollatorWithPadding(tokenizer),
    )

with parts("training"):
    trainer.train()

with parts("predicting"):
    found = {}
    for name, split in {"validation": validation, "test": test}.items():
        logits = trainer.predict(rows(split)).predictions
        found[name] = labels[split], 1 / (1 + np.exp(-logits))

with parts("evaluating"):
    thresholds = best_thresholds(*found["validation"])
    metrics, decided = {}, {}
    for name, (truth, probabilities) in found.items():
        decided[name] = probabilities >= thresholds
        present = truth.any(axis=0)
        metrics[name] = {
            "f1_micro": f1_score(truth, decided[name], average="micro"),
            "f1_macro": f1_score(truth, decided[name], average="macro", zero_division=0),
            "map_macro": average_precision_score(truth[:, present], probabilities[:, present]),
            "auroc_macro": roc_auc_score(truth[:, present], probabilities[:, present]),
        }

with parts("writing"):
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2))
    report = classification_report(found["test"][0], decided["test"], target_names=binarizer.classes_, zero_division=0)
    (options.out / "report.txt").write_text(report)
    each = f1_score(found["test"][0], decided["test"], average=None, zero_division=0)
    figure, axes = plt.subplots(figsize=(8, 6))
    axes.barh(binarizer.classes_, each)
    figure.savefig(options.out / "f1.png", dpi=150, bbox_inches="tight")
    tokenizer.save_pretrained(options.out / "best")
    trainer.save_model(str(options.out / "best"))

parts.report(metrics["test"])
