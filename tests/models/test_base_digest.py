"""When and where a frozen base is read: its digest before the first step, its weights on the device that computes."""

from types import SimpleNamespace

import pytest
import small_llama
import torch

from genre_lightning.config.adapters import LoraOptions
from genre_lightning.models import decoder, distilbert
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier


@pytest.fixture
def digests(monkeypatch):
    taken = []
    for module in (decoder, distilbert):
        monkeypatch.setattr(module, "weights_digest", lambda files: taken.append(files) or "0" * 64)
        monkeypatch.setattr(module, "weight_files", lambda name, revision: [name])
    return taken


def test_a_decoders_base_is_digested_before_the_first_step(digests):
    model = LlamaQLoraClassifier("some/llama")
    model.bind(small_llama.labelling())
    model.backbone_config = SimpleNamespace()
    model._trainer = SimpleNamespace(optimizers=[])
    model.on_fit_start()
    assert digests == [["some/llama"]]
    model.base_metadata()
    assert len(digests) == 1


@pytest.mark.parametrize(("lora", "expected"), [(LoraOptions(rank=2), [["some/bert"]]), (None, [])])
def test_an_encoders_base_is_digested_before_the_first_step_if_it_is_frozen(digests, lora, expected):
    model = DistilBertClassifier("some/bert", lora=lora)
    model._trainer = SimpleNamespace(optimizers=[])
    model.on_fit_start()
    assert digests == expected


def test_a_base_is_quantised_where_it_computes():
    model = LlamaQLoraClassifier("random", architecture=small_llama.ARCHITECTURE)
    for accelerator in ("cpu", "cuda"):
        model.runs_on(accelerator, "16-mixed")
        assert model.build_device() == torch.device(accelerator)
    model.runs_on("mps", "32-true")
    assert model.build_device() == torch.device("cpu")
    model.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 3)))
    assert model.build_device() == torch.device("cuda", 3)
