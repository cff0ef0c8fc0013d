"""What recipes add to the memory of a plan: frozen starts, unfrozen blocks, other adapters, and a moving average."""

from dataclasses import replace

import pytest
from small_llama import ARCHITECTURE, labelling

from genre_lightning.config.adapters import AdapterOptions, LoraOptions
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.planning.memory import memory
from genre_lightning.planning.setting import BatchShape, Setting
from genre_lightning.planning.shape import build_empty, shape_of

LORA = LoraOptions(rank=4)


def shape(**options):
    model = LlamaQLoraClassifier(backbone="random", architecture=ARCHITECTURE, **{"quantization": "none", **options})
    model.check(64)
    build_empty(model, labelling())
    return shape_of(model)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_the_start_of_adapters_is_frozen_weights(init):
    plain, started = shape(lora=LORA), shape(lora=replace(LORA, init=init))
    head = (ARCHITECTURE.width + 1) * 4
    assert started.trained == plain.trained
    assert started.total - plain.total == plain.trained - head


def test_loftq_adds_nothing():
    options = {"quantization": "nf4"}
    assert shape(lora=replace(LORA, init="loftq"), **options).total == shape(lora=LORA, **options).total


def test_unfrozen_blocks_and_other_adapters_are_counted():
    width, inner, head = ARCHITECTURE.width, ARCHITECTURE.inner_width, (ARCHITECTURE.width + 1) * 4
    per_block = 2 * width * width + 2 * width * width // 2 + 3 * width * inner
    lora = (shape(lora=LORA).trained - head) // 2
    assert shape(lora=LORA, unfreeze=1).trained == per_block + 5 * width + lora + head
    # a factor for each output of queries and of what is mixed, and half as many for keys and values
    assert shape(adapter=AdapterOptions("IA3")).trained == 2 * (3 * width) + head


@pytest.mark.parametrize(("strategy", "share"), [("single", 1), ("fsdp", 2)])
def test_a_moving_average_takes_four_bytes_a_trained_number(strategy, share):
    of = shape(lora=LORA)
    setting = Setting(strategy, share, "cuda", half=True)
    batch = BatchShape.full(256, 64, packed=True, encoder=False)
    with_average, without = (
        memory(of, replace(setting, averaged=averaged), batch).tensors["optimizer"] for averaged in (True, False)
    )
    assert 2 * (with_average - without) == without
    assert with_average - without == pytest.approx(4 * of.trained / share, rel=0.01)
