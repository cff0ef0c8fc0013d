"""The options of a Llama-like decoder: with adapters and a head, or asked in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from genre_lightning.bounds import FRACTION_BELOW_ONE, Bounds, above, at_least
from genre_lightning.config.adapters import AdapterOptions, LoraOptions, Quantization, check_lora, check_one_kind
from genre_lightning.config.architectures import LlamaArchitecture
from genre_lightning.config.classifier import ClassifierOptions
from genre_lightning.config.effects import UNCHANGED
from genre_lightning.config.regularisers import REGULARISER, check_regularisers
from genre_lightning.errors import ConfigError
from genre_lightning.foreign import check_folder

DecoderAttention = Literal["causal", "full"]
DecoderPooling = Literal["last", "mean"]
ComputeDtype = Literal["auto", "float16", "bfloat16", "float32"]
QuantStorage = Literal["uint8", "float16", "bfloat16", "float32"]
OptimizerName = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]

RANDOM = "random"
"""The value of `model.backbone` that asks for a Llama of `model.architecture` with random weights."""

PROMPT = "Overview of a film:\n{text}\n\nIs {genre} a genre of this film? Answer yes or no.\nAnswer:"


@dataclass
class DecoderOptions(ClassifierOptions):
    """A Llama-like decoder whose own weights never train.

    These are the options of `FrozenDecoder`.

    Attributes:
        backbone: Model of the hub (Llama 2 and 3, Mistral, Qwen 2 and 3) or local directory; "random" makes
            `architecture` with random weights.
        revision: Commit or tag of the backbone on the hub.
        random_weights: Draw the weights of the backbone's configuration at random instead of loading them, for
            benchmarks and planning.
        architecture: Used with backbone "random".
        quantization: Format of the frozen linear layers: "nf4" (4 bits, scales quantised too), "int8" (LLM.int8()) or
            "none".
        compute_dtype: Dtype of their matmuls; "auto" is that of trainer.precision: fp16 under the 16-mixed of CUDA.
        quant_storage: Dtype that packed 4-bit weights are stored under. uint8 is right for strategy fsdp too, which
            shards every parameter by itself; other sharding may need the float that it computes in.
    """

    backbone: str = "meta-llama/Llama-2-7b-hf"
    revision: str | None = None
    random_weights: bool = False
    architecture: LlamaArchitecture | None = None
    quantization: Quantization = "nf4"
    compute_dtype: ComputeDtype = "auto"
    quant_storage: QuantStorage = "uint8"

    @property
    def from_scratch(self) -> bool:
        """Whether the backbone starts from random weights."""
        return self.random_weights or self.backbone == RANDOM

    @property
    def shape(self) -> LlamaArchitecture:
        """Of a decoder with random weights."""
        return self.architecture or LlamaArchitecture()

    def check_files(self) -> None:
        """See `ClassifierOptions.check_files`."""
        if self.backbone != RANDOM:
            check_folder(self.backbone, weights=not self.from_scratch)

    def check_options(self) -> None:
        """See `ClassifierOptions.check_options`."""
        super().check_options()
        if self.quant_storage != "uint8" and self.quantization != "nf4":
            raise ConfigError(
                f"model.quant_storage is {self.quant_storage}, and only nf4 packs its weights: "
                "leave it out, or set model.quantization=nf4"
            )
        if self.backbone != RANDOM:
            return
        shape = self.shape
        kv_heads = shape.kv_heads or shape.heads
        if shape.width % (2 * shape.heads) or shape.heads % kv_heads:
            raise ConfigError(
                f"model.architecture has width {shape.width}, {shape.heads} heads and {kv_heads} kv_heads: "
                "make the width an even multiple of the heads, and the heads a multiple of the kv_heads"
            )


@dataclass(kw_only=True)
class LlamaQLoraOptions(DecoderOptions):
    """A Llama-like decoder, fine-tuned by low-rank adapters over frozen 4-bit weights, with a linear head.

    These are the options of `LlamaQLoraClassifier`.

    Attributes:
        lora: Shape and place of the adapters; null takes the defaults.
        adapter: Adapters of another method in place of LoRA; null for none.
        unfreeze: This many blocks nearest to the output train in full, without adapters, and the norms of all; null
            trains adapters alone. Quantised weights cannot be unfrozen.
        unfreeze_lr: Peak learning rate of what is unfrozen; null chooses by the backbone's size.
        attention: "causal", as the decoder was trained, or "full": a token sees all of its text.
        pooling: The state of a text's "last" token, or the "mean" over its tokens.
        packing: Lay texts one behind another in a row without padding; attention keeps them apart exactly. Otherwise
            texts of like length are padded to the longest of them. The logits are the same.
        dropout: Dropout before the head; null for none.
        activation_checkpointing: Keep only the states between layers and compute the rest again in the backward
            pass: a third more work for a fraction of the memory.
        compile: Compile norms and gates by torch for a CUDA GPU, each into one kernel for any number of tokens. The
            first step of every start takes longer; no effect on a CPU.
        r_drop: Weight of the divergence between two passes with different dropout (R-Drop); 0 for one pass. It doubles
            the compute of a step.
        fgm: Length of an adversarial offset of a text's embeddings, with which the text is learnt once more (FGM); 0
            for none. It more than doubles the compute of a step.
        optimizer: "adamw" in float32, "adamw_8bit" with moments of 8 bits, or "paged_adamw_8bit", whose moments
            move to the host when the GPU is full.
    """

    lora: LoraOptions | None = None
    adapter: AdapterOptions | None = None
    unfreeze: Annotated[int | None, Bounds(0, 10**4)] = None
    unfreeze_lr: Annotated[float | None, above(0, 1e3)] = None
    attention: DecoderAttention = "causal"
    pooling: DecoderPooling = "last"
    packing: bool = True
    dropout: Annotated[float | None, FRACTION_BELOW_ONE] = None
    activation_checkpointing: Annotated[bool, UNCHANGED] = False
    compile: bool = False
    optimizer: OptimizerName = "adamw"
    r_drop: Annotated[float, REGULARISER] = 0.0
    fgm: Annotated[float, REGULARISER] = 0.0

    def check_options(self) -> None:
        """See `ClassifierOptions.check_options`."""
        super().check_options()
        check_one_kind(self.lora, self.adapter, self.unfreeze)
        lora = self.lora or LoraOptions()
        check_regularisers(self, drops=bool(self.dropout or self.adapter or lora.dropout))
        if self.lora is not None:
            check_lora(self.lora, self.quantization)
        if self.unfreeze is not None and (self.quantization != "none" or self.compute_dtype != "auto"):
            raise ConfigError(
                f"model.unfreeze is {self.unfreeze} with model.quantization {self.quantization} and "
                f"model.compute_dtype {self.compute_dtype}, whose weights are too coarse to train: set "
                "model.quantization=none and model.compute_dtype=auto, or leave model.unfreeze out"
            )


@dataclass(kw_only=True)
class ZeroShotOptions(DecoderOptions):
    """The odds that a language model gives to yes against no when asked whether a film has a genre.

    These are the options of `ZeroShotLlama`.

    Attributes:
        prompt: Prompt with {text}, and after it {genre}; if the tokenizer has a chat format, it is a user's message.
        chat: Use the chat format; null if the tokenizer has one.
        yes: Spellings of the answer that a genre fits.
        no: Spellings of the other.
        batch_tokens: Tokens that go through the model at once, questions and padding included.
    """

    prompt: str = PROMPT
    chat: bool | None = None
    yes: list[str] = field(default_factory=lambda: ["yes", "Yes", "YES"])
    no: list[str] = field(default_factory=lambda: ["no", "No", "NO"])
    batch_tokens: Annotated[int, at_least(1, 10**9)] = 8192

    def check_options(self) -> None:
        """See `ClassifierOptions.check_options`."""
        for part in ("{text}", "{genre}"):
            if self.prompt.count(part) != 1:
                raise ConfigError(f"model.prompt holds {part} {self.prompt.count(part)} times: name it once")
        if self.prompt.index("{genre}") < self.prompt.index("{text}"):
            raise ConfigError("model.prompt has {genre} before {text}, whose states all genres share: put it after")
        if not self.yes or not self.no:
            raise ConfigError("model.yes or model.no is empty: give at least one spelling of each answer")
        super().check_options()
