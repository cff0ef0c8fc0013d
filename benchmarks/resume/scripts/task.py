"""The training that the peers share: the films that the driver has tokenised, and a small BERT with random weights."""

import argparse
import json
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification

EPOCHS, FILMS_A_STEP, STEPS_A_SAVE, LR = 3, 8, 10, 1e-3


class Films(Dataset):
    """Films of a split: token ids, genres and the film's number, by which the driver knows it again."""

    def __init__(self, films):
        self.films = films

    def __len__(self):
        return len(self.films)

    def __getitem__(self, number):
        return {"film": number, **self.films[number]}


def collate(films):
    ids = [torch.tensor(film["input_ids"]) for film in films]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return {
        "film": torch.tensor([film["film"] for film in films]),
        "input_ids": padded,
        "attention_mask": (padded != 0).long(),
        "labels": torch.tensor([film["labels"] for film in films], dtype=torch.float32),
    }


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--films", type=Path, required=True, help="JSON file of the driver")
    parser.add_argument("--out", type=Path, required=True, help="the run's directory")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--resume", action="store_true", help="use the tool's own option to resume")
    parser.add_argument("--variant", action="store_true", help="the script's documented variant")
    return parser.parse_args()


def load(path, dropout):
    """Return the films of both splits, and the model."""
    content = json.loads(path.read_text())
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=content["vocab_size"],
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=len(content["train"][0]["labels"]),
        problem_type="multi_label_classification",
    )
    return Films(content["train"]), Films(content["validation"]), BertForSequenceClassification(config)
