"""Parameters of a model that is built without weights against one that is really built."""

import pytest
from small_llama import build, labelling
from specs import data_spec

from genre_lightning.errors import ConfigError
from genre_lightning.models.distilbert import Architecture, DistilBertClassifier
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.lora import LoraOptions, trained_size
from genre_lightning.models.published import published_config
from genre_lightning.models.quantization import memory_of
from genre_lightning.planning.memory_parts import weight_bytes
from genre_lightning.planning.setting import Setting
from genre_lightning.planning.shape import build_empty, shape_of

SINGLE = Setting("single", 1, "cpu", half=False)


def shape_of_empty(model, facts):
    build_empty(model, facts)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    return shape_of(model)


def counted(model):
    """Parameters in all and those that train, as a built model has them."""
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        sizes[parameter.requires_grad] += state.shape.numel() if state is not None else parameter.numel()
    return sum(sizes.values()), sizes[True]


def test_an_encoder_in_full():
    architecture = Architecture(layers=2, width=32, heads=2, inner_width=64)
    really = DistilBertClassifier(backbone="small", architecture=architecture)
    really.bind(labelling())
    really.configure_model()
    shape = shape_of_empty(DistilBertClassifier(backbone="small", architecture=architecture), labelling())
    assert (shape.total, shape.trained, shape.quantised) == (*counted(really), 0)
    assert weight_bytes(shape, SINGLE) == sum(memory_of(really).values())


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_an_encoder_with_adapters(dora, tmp_path):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    lora = LoraOptions(rank=4, dora=dora)
    really = DistilBertClassifier(backbone=str(tmp_path), lora=lora)
    really.bind(labelling())
    really.configure_model()
    shape = shape_of_empty(DistilBertClassifier(backbone=str(tmp_path), lora=lora), labelling())
    assert (shape.total, shape.trained, shape.quantised) == (*counted(really), 0)
    assert len(shape.adapters) == 2
    assert shape.dropouts == 2


@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_a_llama(quantization, dora):
    settings = {"quantization": quantization, "lora": LoraOptions(rank=4, dora=dora), "backbone": "random"}
    really = build(**settings)
    empty = LlamaQLoraClassifier(architecture=really.options.architecture, **settings)
    shape = shape_of_empty(empty, labelling())
    assert (shape.total, shape.trained) == counted(really)
    linear = 2 * (64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 64 * 96)
    assert shape.quantised == (0 if quantization == "none" else linear)
    stored = sum(memory_of(really).values())
    if quantization == "int8":
        # bitsandbytes keeps a layer's scales, 4 bytes a row, where memory_of does not look
        stored += 4 * 2 * (64 + 32 + 32 + 64 + 96 + 96 + 64)
    assert weight_bytes(shape, SINGLE) == stored
    # a built model tells the same
    again = shape_of(really)
    assert (again.total, again.trained, again.quantised) == (shape.total, shape.trained, shape.quantised)
    assert weight_bytes(again, SINGLE) == weight_bytes(shape, SINGLE)


@pytest.mark.parametrize(("size", "parameters"), [("7b", 6_738_415_616), ("70b", 68_976_648_192)])
def test_llama_2_without_a_file(size, parameters):
    name = f"meta-llama/Llama-2-{size}-hf"
    model = LlamaQLoraClassifier(backbone=name)
    model.shape_only = True
    model.runs_on("cuda", "16-mixed")
    model.check(512)
    facts = data_spec("abcd", 32_000, 512)
    shape = shape_of_empty(model, facts)
    config = published_config(name)
    attention = [(config.hidden_size, config.hidden_size)] * 2
    attention += [(config.num_key_value_heads * shape.head_width, config.hidden_size)] * 2
    head = 4 * config.hidden_size + 4
    assert shape.trained == config.num_hidden_layers * trained_size(attention, 16) + head
    # the published number counts the language model's own head, which is not used
    assert shape.total - shape.trained == parameters - 32_000 * config.hidden_size


def test_encoders_without_a_file():
    for name, parameters in (("distilbert-base-uncased", 66_362_880), ("google-bert/bert-base-uncased", 108_891_648)):
        model = DistilBertClassifier(backbone=name)
        model.shape_only = True
        model.check(256)
        shape = shape_of_empty(model, data_spec("abcd", 30_522, 256))
        assert shape.total == parameters + 4 * 768 + 4


def test_an_unknown_model_is_asked_for():
    model = DistilBertClassifier(backbone="someone/encoder")
    model.shape_only = True
    with pytest.raises(ConfigError, match=r"someone/encoder.*config\.json"):
        model.check(256)
    # weights are needed to train, whatever is known of the shape
    with pytest.raises(ConfigError, match="distilbert-base-uncased"):
        DistilBertClassifier(backbone="distilbert-base-uncased").check(256)
