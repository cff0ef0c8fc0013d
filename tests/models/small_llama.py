"""Llama models of a few layers with random weights, and texts for them."""

import numpy as np
import torch
from specs import data_spec

from genre_lightning.data.collate import Padding, pack_rows, pad_rows
from genre_lightning.models.decoder import LlamaArchitecture
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.lora import LoraOptions

VOCABULARY, GENRES = 120, 4
ARCHITECTURE = LlamaArchitecture(layers=2, width=64, heads=4, kv_heads=2, inner_width=96)
LENGTHS = (5, 17, 1, 9, 17)


def labelling(**changes):
    return data_spec(**{"genres": "abcd", "vocab_size": VOCABULARY, "max_tokens": 64, **changes})


def build(seed=3, precision="32-true", tokens=64, sharded=False, **options):
    settings = {
        "backbone": "random",
        "architecture": ARCHITECTURE,
        "lora": LoraOptions(rank=4, dropout=0.0),
        "seed": seed,
    }
    model = LlamaQLoraClassifier(**{**settings, **options})
    model.runs_on("cpu", precision)
    model.check(tokens)
    model.bind(labelling())
    model.assemble(sharded=sharded)
    return model


def stir(model):
    """Gives adapters an effect, which they do not have at first."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def texts(lengths=LENGTHS, vocabulary=VOCABULARY):
    numbers = np.random.default_rng(5)
    return [numbers.integers(1, vocabulary, size=length).astype(np.int32) for length in lengths]


def padded(rows, token=0):
    ids, mask = pad_rows(rows, Padding(token))
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def packed(rows):
    return {name: torch.from_numpy(values) for name, values in pack_rows(rows).items()}


def with_labels(batch, rows):
    labels = torch.from_numpy(np.random.default_rng(7).integers(0, 2, size=(len(rows), GENRES)).astype(np.float32))
    return {**batch, "labels": labels, "weights": torch.ones(len(rows)), "step_films": torch.tensor(float(len(rows)))}


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def tokenizer():
    """Letters, bytes and a few pieces, in Llama's form."""
    from transformers import LlamaTokenizer

    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *letters, "▁y", "▁n", "▁Y", "▁N"]
    merges = [("▁", letter) for letter in "ynYN"]
    return LlamaTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges, add_bos_token=True
    )


def save_causal(folder, positions=2048):
    """Writes a language model with random weights and the tokenizer above, as they come from the hub."""
    from transformers import LlamaConfig, LlamaForCausalLM

    known = tokenizer()
    config = LlamaConfig(
        vocab_size=len(known), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=positions, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    known.save_pretrained(folder)
    return folder
