"""ONNX models of each way of pooling, at shapes that the exporter did not see."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, LlamaConfig

from genre_lightning.export.onnx_model import write_onnx
from genre_lightning.export.source import PlainTagger
from genre_lightning.models.backbones import empty_backbone

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}


def batch(texts, tokens):
    generator = torch.Generator().manual_seed(texts)
    mask = torch.ones(texts, tokens, dtype=torch.int64)
    mask[1:, tokens // 2 :] = 0
    return {"input_ids": torch.randint(5, 90, (texts, tokens), generator=generator), "attention_mask": mask}


@pytest.mark.parametrize("pooled_by", ["mean", "cls", "last"])
def test_outputs_are_torchs_at_any_shape(pooled_by, tmp_path):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    kind = LlamaConfig if pooled_by == "last" else BertConfig
    torch.manual_seed(0)
    tagger = PlainTagger(empty_backbone(kind(vocab_size=90, **SIZES)), pooled_by, nn.Linear(32, 4))
    check = write_onnx(tagger, tmp_path, [batch(1, 7), batch(2, 30), batch(5, 12)])
    assert check.difference < 1e-5
    assert check.tokens == 7


def test_the_last_real_token_is_pooled():
    torch.manual_seed(0)
    backbone, head = empty_backbone(LlamaConfig(vocab_size=90, **SIZES)), nn.Linear(32, 4)
    both = batch(2, 10)
    with torch.no_grad():
        got = PlainTagger(backbone, "last", head)(**both)
        states = backbone(input_ids=both["input_ids"][1:, :5]).last_hidden_state
    torch.testing.assert_close(got[1], head(states[0, -1]))
