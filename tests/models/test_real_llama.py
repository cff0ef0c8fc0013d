"""A real instruction-tuned decoder: QLoRA learns films by it, and it answers in its own chat format."""

import numpy as np
import pytest
import torch
from small_llama import labelling, packed, padded

from genre_lightning.config.adapters import LoraOptions
from genre_lightning.data.tokenizers import load_tokenizer
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.zero_shot import ZeroShotLlama

pytestmark = pytest.mark.real_model

GENRES = ("Horror", "Romance", "War")
FILMS = (
    "A ghost haunts the cellar of an old house and kills all who enter.",
    "Two lovers meet in Paris, part, and marry in the end.",
    "Soldiers fight a hopeless battle behind enemy lines in 1944.",
)


def rows_of(tokenizer):
    return [np.array(tokenizer(film)["input_ids"], dtype=np.int32) for film in FILMS]


def test_qlora_learns(llama_real):
    tokenizer = load_tokenizer(str(llama_real))
    model = LlamaQLoraClassifier(backbone=str(llama_real), quantization="nf4", lora=LoraOptions(rank=4, dropout=0.0))
    model.check(64)
    model.bind(labelling(genres=GENRES, vocab_size=len(tokenizer), max_tokens=64))
    model.configure_model()
    batch = {**packed(rows_of(tokenizer)), "labels": torch.eye(3), "weights": torch.ones(3)}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert sum(weight.numel() for weight in trained) < 2e6
    optimizer = torch.optim.AdamW(trained, lr=5e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model.model_step(batch).loss_sum
        loss.backward()
        assert all(weight.grad is not None for weight in trained)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    with torch.no_grad():
        logits = model(batch)
    assert logits.argmax(dim=1).tolist() == [0, 1, 2]


def test_zero_shot_answers(llama_real):
    tokenizer = load_tokenizer(str(llama_real))
    model = ZeroShotLlama(backbone=str(llama_real), quantization="none")
    model.check(64)
    model.bind(labelling(genres=GENRES, vocab_size=len(tokenizer), tokenizer=tokenizer, max_tokens=64))
    model.configure_model()
    assert "<|im_start|>" in tokenizer.decode(model.eval().questions.head)
    asked, film = model.questions, rows_of(tokenizer)[0]
    with torch.no_grad():
        logits = model(padded([film]))[0]
        for genre in range(len(GENRES)):
            text = torch.from_numpy(film.astype(np.int64))
            whole = torch.cat([asked.head, text, asked.tokens[asked.question == genre]])
            answer = model.backbone(input_ids=whole[None], use_cache=False).logits[0, -1].float().softmax(-1)
            alone = answer[asked.yes].sum().log() - answer[asked.no].sum().log()
            torch.testing.assert_close(logits[genre], alone, rtol=1e-3, atol=1e-3)
            assert answer[torch.cat([asked.yes, asked.no])].sum() > 0.3  # it answers by yes or no, as it was asked to
