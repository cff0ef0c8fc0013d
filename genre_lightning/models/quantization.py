"""A decoder's frozen weights in NF4, int8 or plain floats, loaded or random."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from genre_lightning.config.adapters import Quantization
from genre_lightning.models.layers.packing import CAUSAL_ATTENTION, register_attention

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

ValuesOf = Callable[[str, torch.Size], torch.Tensor]
"""Gives the weight of a name and shape."""

_CHUNK = 1 << 22
"""Random values drawn at once: 16 MiB in float32."""

_LARGE = 1 << 20
"""Values of a weight after which freed memory is given back."""


@dataclass(frozen=True)
class WeightFormat:
    """How the frozen weights are kept and computed with.

    Attributes:
        quantization: Quantisation of the linear layers.
        compute_dtype: Data type of their matmuls; embeddings are kept in it too.
        quant_storage: The dtype that packed NF4 weights pretend to have.
        head: Name of a linear layer that stays in `compute_dtype`, such as a language model's own head.
    """

    quantization: Quantization
    compute_dtype: torch.dtype
    quant_storage: torch.dtype = torch.uint8
    head: str = "lm_head"

    def bitsandbytes_config(self) -> BitsAndBytesConfig | None:
        """Return the library's own form of it; None without quantisation."""
        if self.quantization == "none":
            return None
        from transformers import BitsAndBytesConfig

        # heads are named: the default list misses those with a bias
        if self.quantization == "int8":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=[self.head])
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=self.compute_dtype,
            bnb_4bit_quant_storage=self.quant_storage,
            llm_int8_skip_modules=[self.head],
        )


def dtype_of_precision(precision: str) -> torch.dtype:
    """Return the dtype of matmuls under a trainer's precision."""
    return (
        torch.float16
        if precision.startswith("16")
        else torch.bfloat16
        if precision.startswith("bf16")
        else torch.float32
    )


def random_values(config: PretrainedConfig, dtype: torch.dtype, seed: int) -> ValuesOf:
    """Return the random weights for a configuration, each drawn when it is asked for.

    Equal seeds give equal weights on every machine, device and in every format, before rounding: a checkpoint holds
    none of them.
    """
    spread = getattr(config, "initializer_range", 0.02)
    return lambda path, shape: _draw(path, shape, dtype, spread, seed)


def empty_decoder(
    auto_class: Any, config: PretrainedConfig, weights: WeightFormat, device: torch.device
) -> PreTrainedModel:
    """Return the frozen decoder of a configuration with placeholders for its weights, which take no memory.

    A placeholder is a single number shown in the weight's shape, of its kind and on its device: what is put around
    the layers, such as adapters, finds all that it asks for. `FrozenWeights` fills them.
    """
    register_attention()
    with known_warnings(), torch.device("meta"):
        model = auto_class.from_config(
            config, dtype=weights.compute_dtype, attn_implementation=CAUSAL_ATTENTION, trust_remote_code=False
        )
    if (settings := weights.bitsandbytes_config()) is not None:
        with known_warnings():
            from transformers.integrations import replace_with_bnb_linear

            replace_with_bnb_linear(model, modules_to_not_convert=[weights.head], quantization_config=settings)
        # what peft reads to choose its layers
        model.is_loaded_in_4bit = weights.quantization == "nf4"
        model.is_loaded_in_8bit = weights.quantization == "int8"
    placeholders: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if parameter not in placeholders:
                placeholders[parameter] = _placeholder(module, name, parameter, weights, device)
            module._parameters[name] = placeholders[parameter]
        if any(buffer is not None and buffer.is_meta for buffer in module._buffers.values()):
            # rotary frequencies and their like are computed from the configuration
            fresh = type(module)(config=config)
            module._buffers.update({n: b.to(device) for n, b in fresh._buffers.items() if b is not None})
    _prepare_layers(model, weights.compute_dtype)
    return model.eval()


class FrozenWeights:
    """The weights of an empty decoder, which are put in part by part.

    transformers' own loader reads ahead of the quantisation: on a CPU it holds most of a model in full precision.

    Args:
        model: Model as `empty_decoder` returns it. Modules may be put around its layers before they are filled.
        values_of: The weight of a name and shape, on the host.
    """

    def __init__(self, model: PreTrainedModel, values_of: ValuesOf) -> None:
        self._values_of = values_of
        self._names = {parameter: name for name, parameter in model.named_parameters()}
        # weights that several modules share are filled once, for all of them
        self._owners: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    self._owners.setdefault(parameter, []).append((module, name))

    def materialise(self, part: nn.Module) -> None:
        """Read and quantise the weights of a part of the model, one after the other; those it has it keeps."""
        _return_freed_memory()  # of the part before, where sharding has left its own part of that
        for placeholder in [parameter for parameter in part.parameters() if parameter in self._owners]:
            owners = self._owners.pop(placeholder)
            values = self._values_of(self._names.pop(placeholder), placeholder.shape)
            filled = _filled(owners[0][0], placeholder, values)
            for module, name in owners:
                module._parameters[name] = filled
            del values, filled
            if placeholder.numel() >= _LARGE:
                _return_freed_memory()


def random_decoder(
    auto_class: Any, config: PretrainedConfig, weights: WeightFormat, seed: int, device: torch.device
) -> PreTrainedModel:
    """Return the frozen decoder of a configuration with all its weights, drawn at random."""
    model = empty_decoder(auto_class, config, weights, device)
    FrozenWeights(model, random_values(config, weights.compute_dtype, seed)).materialise(model)
    return model


def _return_freed_memory() -> None:
    """Have the C library give freed memory back: small quantised weights between large freed ones make it keep all."""
    with suppress(OSError, AttributeError):  # glibc alone has it, and alone needs it
        ctypes.CDLL(None).malloc_trim(0)


def _draw(name: str, shape: torch.Size, dtype: torch.dtype, spread: float, seed: int) -> torch.Tensor:
    """Return ones for norms, zeros for biases, else normal values drawn from (seed, name) alone."""
    values = torch.empty(shape, dtype=dtype)
    if len(shape) == 1:
        return values.fill_(0.0 if name.endswith("bias") else 1.0)
    place = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(place))
    # by chunks: a float32 copy of a large layer would be the peak of the whole build
    for chunk in values.view(-1).split(_CHUNK):
        chunk.copy_(torch.randn(len(chunk), generator=generator) * spread)
    return values


def _placeholder(
    module: nn.Module, name: str, empty: nn.Parameter, weights: WeightFormat, device: torch.device
) -> nn.Parameter:
    kind: Any = type(empty)

    def zeros(dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros((), dtype=dtype, device=device).expand(empty.shape)

    # of the dtype that the weight will have: peft gives adapters that of the weight beside them
    if kind.__name__ == "Params4bit":
        return kind(zeros(weights.quant_storage), **{**vars(empty), "requires_grad": False, "module": module})
    if kind.__name__ == "Int8Params":
        return kind(zeros(torch.int8), requires_grad=False, has_fp16_weights=False)
    # norms are kept in float32: they are small, and what they scale is large
    is_norm = empty.ndim == 1 and "bias" not in name
    return nn.Parameter(zeros(torch.float32 if is_norm else weights.compute_dtype), requires_grad=False)


def _filled(module: nn.Module, placeholder: nn.Parameter, values: torch.Tensor) -> nn.Parameter:
    kind: Any = type(placeholder)
    # bitsandbytes quantises a weight when it is first sent to a device
    if kind.__name__ == "Params4bit":
        return kind(values, **{**vars(placeholder), "module": module}).to(placeholder.device)
    if kind.__name__ == "Int8Params":
        return kind(values, requires_grad=False, has_fp16_weights=False).to(placeholder.device)
    return nn.Parameter(values.to(placeholder), requires_grad=False)


def _prepare_layers(model: PreTrainedModel, compute_dtype: torch.dtype) -> None:
    """Have states between layers in float32, and do away with what bitsandbytes does to NF4 on some CPUs."""
    # half precision is for the matmuls: fp16 sums over the layers would overflow in some decoders; by a hook, so that
    # the embedding is called within the model, as sharding needs
    model.get_input_embeddings().register_forward_hook(partial(_cast_output, torch.float32))
    for module in model.modules():
        if type(module).__name__.endswith("DecoderLayer") and compute_dtype != torch.float32:
            # a quantised layer answers in the dtype that it is asked in: from float32 states, what the backward pass
            # keeps would be twice as large
            for name in ("input_layernorm", "post_attention_layernorm"):
                getattr(module, name).register_forward_hook(partial(_cast_output, compute_dtype))
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # in evaluation mode it would repack the weights in place, rounded to bf16, and training after it would
            # run without gradients
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  # unknown to mypy as an attribute


def _cast_output(dtype: torch.dtype, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.to(dtype)


@contextmanager
def known_warnings() -> Iterator[None]:
    """Hide the libraries' notes about what is meant here."""
    # a kernel for repacked weights, which are not used here
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # peft asks transformers by a name that it has renamed
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        # int8 matmuls round their inputs to half precision
        warnings.filterwarnings("ignore", message=".*MatMul8bitLt: inputs will be cast.*")
        yield


def memory_of(model: nn.Module) -> dict[str, int]:
    """Return the stored bytes of a model's parameters: "trained" and "frozen", with the scales of quantised ones."""
    sizes = {"trained": 0, "frozen": 0}
    for parameter in model.parameters():
        size = parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        scales = [] if state is None else [state.absmax, *([state.state2.absmax] if state.nested else [])]
        size += sum(scale.numel() * scale.element_size() for scale in scales)
        sizes["trained" if parameter.requires_grad else "frozen"] += size
    return sizes
