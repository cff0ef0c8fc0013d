"""The options of every model and what can be told of them by themselves: read, and refused, without loading torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from genre_lightning.bounds import FRACTION_BELOW_ONE, SEED, Bounds, above, at_least, bound_problems
from genre_lightning.config.regularisers import check_regularisers
from genre_lightning.errors import ConfigError
from genre_lightning.foreign import check_folder
from genre_lightning.types import LOSSES, LossFunction, PosWeight

Schedule = Literal["linear", "cosine", "constant"]
Pooling = Literal["mean", "cls"]
DecoderAttention = Literal["causal", "full"]
DecoderPooling = Literal["last", "mean"]
Fusion = Literal["gate", "concat"]
Quantization = Literal["none", "nf4", "int8"]
ComputeDtype = Literal["auto", "float16", "bfloat16", "float32"]
QuantStorage = Literal["uint8", "float16", "bfloat16", "float32"]
LoraInit = Literal["default", "pissa", "olora", "loftq"]
OptimizerName = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]

VALIDATION_METRICS = (
    "f1_micro",
    "f1_macro",
    "precision_micro",
    "recall_micro",
    "subset_accuracy",
    "map_macro",
    "auroc_macro",
    "f1_micro_tuned",
)


SMALL = "small"
"""The value of `model.backbone` that asks for a small encoder with random weights."""

RANDOM = "random"
"""The value of `model.backbone` that asks for a Llama of `model.architecture` with random weights."""

# a hundred times what the largest models have
LAYERS = at_least(1, 10**4)
WIDTH = at_least(1, 10**6)
HEADS = at_least(1, 10**4)

GAMMA = Bounds(0, 100)
"""Exponents of the focal losses: (1 - p) ** 100 is nothing for any p that is not close to 0."""

REGULARISER = Bounds(0, 100)

PROMPT = "Overview of a film:\n{text}\n\nIs {genre} a genre of this film? Answer yes or no.\nAnswer:"


@dataclass
class LoraOptions:
    """Low-rank adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021).

    Attributes:
        rank: of the update's matrices.
        alpha: the update is scaled by alpha / rank (alpha / sqrt(rank) with rslora).
        dropout: on the input of the adapters.
        targets: names of the linear layers that get one, or "all-linear"; null takes the attention projections.
        rslora: rank-stabilised scaling.
        dora: weight-decomposed adapters. They start from the norms of the weights, so that under strategy fsdp too
            the base stands whole on every rank while the model is built.
        init: what the matrices start from: "default" (A random, B zero), "pissa" (the largest singular vectors of the
            weights), "olora" (their QR decomposition) or "loftq" (the error of quantising them). All but the first
            read the weights, as dora does.
        lr_ratio_b: the learning rate of B is that of A times this (LoRA+); 1 for equal rates.
    """

    rank: Annotated[int, at_least(1, 10**5)] = 16
    alpha: Annotated[float, above(0, 1e6)] = 32.0
    dropout: Annotated[float, FRACTION_BELOW_ONE] = 0.05
    targets: list[str] | Literal["all-linear"] | None = None
    rslora: bool = False
    dora: bool = False
    init: LoraInit = "default"
    lr_ratio_b: Annotated[float, above(0, 1e3)] = 1.0

    @property
    def reads_weights(self) -> bool:
        """Whether the adapters start from the weights below them."""
        return self.dora or self.init != "default"


@dataclass
class AdapterOptions:
    """Adapters of another of peft's methods, in place of LoRA.

    Attributes:
        method: its name in peft's table, such as IA3, OFT, MISS, VERA, HRA or LOHA.
        arguments: of its configuration: numbers, names, and lists of them; the layers are the attention projections
            where `target_modules` is not given.
    """

    method: str = "IA3"
    arguments: dict[str, Any] = field(default_factory=dict)


def check_lora(options: LoraOptions, quantization: Quantization = "none") -> None:
    """Refuse adapters that have no place or no start; their numbers are checked with the model's own.

    Args:
        options: The adapters.
        quantization: Of the weights below them.

    Raises:
        ConfigError: with the option and the fix.
    """
    if options.dora and options.init != "default":
        raise ConfigError(
            f"model.lora.init is {options.init} with model.lora.dora, whose magnitudes start from adapters of zero: "
            "leave one of them out"
        )
    if options.init == "loftq" and quantization == "none":
        raise ConfigError(
            "model.lora.init is loftq, which makes up for the error of quantised weights, and these are not quantised: "
            "set model.lora.init=pissa, or model.quantization=nf4 for a decoder"
        )
    if options.targets is not None and not options.targets:
        raise ConfigError("model.lora.targets is empty: name linear layers, or leave it null for the attention")


def check_one_kind(lora: LoraOptions | None, adapter: AdapterOptions | None, unfreeze: int | None) -> None:
    """Refuse adapters of two kinds, and whole layers beside others than LoRA's.

    Raises:
        ConfigError: with the options.
    """
    if adapter is not None and lora is not None:
        raise ConfigError("model.lora and model.adapter are both set: a backbone has adapters of one kind, drop one")
    if adapter is not None and unfreeze is not None:
        raise ConfigError("model.unfreeze is for adapters of model.lora, and model.adapter is set: drop one of them")


@dataclass
class Architecture:
    """The shape of a small encoder that is trained from random weights; its vocabulary is the tokenizer's.

    Attributes:
        layers: transformer blocks.
        width: of a token's state; a multiple of `heads`.
        heads: of the attention.
        inner_width: of the feed-forward layers.
    """

    layers: Annotated[int, LAYERS] = 2
    width: Annotated[int, WIDTH] = 128
    heads: Annotated[int, HEADS] = 4
    inner_width: Annotated[int, WIDTH] = 512


@dataclass
class LlamaArchitecture:
    """The shape of a Llama that is made from random weights; its vocabulary is the tokenizer's.

    Llama 2 7B is {layers: 32, width: 4096, heads: 32, inner_width: 11008}.

    Attributes:
        layers: transformer blocks.
        width: of a token's state; a multiple of `heads`.
        heads: of the attention.
        kv_heads: heads of keys and values; null takes `heads`.
        inner_width: of the feed-forward layers.
        vocab_size: tokens; null takes the tokenizer's.
    """

    layers: Annotated[int, LAYERS] = 2
    width: Annotated[int, WIDTH] = 64
    heads: Annotated[int, HEADS] = 4
    kv_heads: Annotated[int | None, HEADS] = None
    inner_width: Annotated[int, WIDTH] = 172
    vocab_size: Annotated[int | None, at_least(1, 10**7)] = None


@dataclass(kw_only=True)
class ClassifierOptions:
    """Loss and optimizer of every model.

    Attributes:
        loss: "bce" with pos_weight, "focal", "asymmetric" or "zlpr"; or a function of your own of logits, targets and
            pos_weight that gives one value for each film, such as my_package.my_loss with --trust my_package.
        pos_weight: weight of each genre's positives: "full" is negatives / positives as in the paper, "sqrt" its
            square root, "none" one.
        pos_weight_cap: largest such weight; null for no limit.
        focal_gamma: exponent of the focal loss.
        asymmetric_gamma_positive: exponent of the asymmetric loss for positives.
        asymmetric_gamma_negative: exponent of the asymmetric loss for negatives.
        asymmetric_margin: probability below which a negative counts nothing in the asymmetric loss.
        label_smoothing: of "bce": a target of 1 counts as 1 - s / 2, one of 0 as s / 2.
        lr: peak learning rate of the backbone; null chooses by its size.
        head_lr: peak learning rate of the head; null is ten times the backbone's.
        layer_lr_decay: each transformer block of the backbone learns this much slower than the one above it, and the
            embeddings below the first; 1 for equal rates.
        weight_decay: of AdamW; biases and norms are never decayed.
        ema_decay: evaluate, keep and export an exponential moving average of the trained weights with this decay; null
            for the weights of the last step.
        warmup_fraction: share of all optimizer steps in which the learning rate rises from 0.
        schedule: of the learning rate after that: "linear" or "cosine" to 0, or "constant".
        beta2: AdamW's second moment decay.
        seed: Random seed for new weights, dropout and the order of the films; null takes that of the run (--seed; 0 in
            Python).
        fusion: how the inputs of data.features join the text in the head: by a "gate" that depends on all of them, or
            side by side ("concat").
        teacher: a run, an ensemble, or a table of 'genre-lightning folds', whose probabilities of the training films
            are learnt beside their genres (distillation); null for none.
        teacher_weight: weight of the teacher's loss beside that of the genres.
        drop_input: probability that an input of a film is taken for missing in training, for each input by itself; and
            that all inputs of a film are.
        input_width: numbers of an input's state in the head.
    """

    loss: str | LossFunction = "bce"
    pos_weight: PosWeight = "sqrt"
    pos_weight_cap: Annotated[float | None, above(0)] = None
    focal_gamma: Annotated[float, GAMMA] = 2.0
    asymmetric_gamma_positive: Annotated[float, GAMMA] = 0.0
    asymmetric_gamma_negative: Annotated[float, GAMMA] = 4.0
    asymmetric_margin: Annotated[float, FRACTION_BELOW_ONE] = 0.05
    label_smoothing: Annotated[float, FRACTION_BELOW_ONE] = 0.0
    lr: Annotated[float | None, above(0, 1e3)] = None
    head_lr: Annotated[float | None, above(0, 1e3)] = None
    layer_lr_decay: Annotated[float, above(0, 1)] = 1.0
    weight_decay: Annotated[float, Bounds(0, 1e3)] = 0.01
    ema_decay: Annotated[float | None, FRACTION_BELOW_ONE] = None
    warmup_fraction: Annotated[float, FRACTION_BELOW_ONE] = 0.1
    schedule: Schedule = "linear"
    beta2: Annotated[float, FRACTION_BELOW_ONE] = 0.999
    seed: Annotated[int | None, SEED] = None
    teacher: str | None = None
    teacher_weight: Annotated[float, above(0, 1e3)] = 1.0
    fusion: Fusion = "gate"
    drop_input: Annotated[float, FRACTION_BELOW_ONE] = 0.1
    input_width: Annotated[int, at_least(1, 10**5)] = 128

    @property
    def loss_options(self) -> dict[str, float]:
        """Arguments of `losses.loss_function`."""
        names = ("label_smoothing", "focal_gamma", "asymmetric_gamma_positive", "asymmetric_gamma_negative",
                 "asymmetric_margin")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def check_files(self) -> None:
        """Check the model's files as far as that goes without reading them.

        Raises:
            ConfigError: with the option and the cure.
        """

    def check_options(self) -> None:
        """Everything that can be told of the options by themselves.

        Raises:
            ConfigError: with the option and the cure.
        """
        problems = bound_problems(type(self), vars(self), "model")
        if not callable(self.loss) and self.loss not in LOSSES and "." not in str(self.loss):
            problems.append(
                f"model.loss is {self.loss!r}: choose one of {', '.join(LOSSES)}, or name a function of your own"
            )
        if self.label_smoothing and self.loss != "bce":
            problems.append(
                f"model.label_smoothing is {self.label_smoothing} with model.loss {self.loss}: it is of bce alone, "
                "leave one of them out"
            )
        if problems:
            raise ConfigError("; and ".join(problems))


@dataclass
class EncoderOptions(ClassifierOptions):
    """An encoder of the hub or of a local directory, fine-tuned in full or by LoRA, with a linear head.

    These are the options of `DistilBertClassifier`.

    Attributes:
        backbone: model of the hub (DistilBERT, BERT, RoBERTa, DeBERTa, MiniLM, ModernBERT, …) or local directory;
            "small" makes `architecture` with random weights.
        revision: commit or tag of the backbone on the hub.
        pooling: "mean" over a text's tokens, or its first token's state ("cls").
        dropout: of the backbone and before the head; null keeps the backbone's own, and 0.1 before the head.
        lora: train low-rank adapters in the attention and the head in full; null trains everything.
        adapter: adapters of another method in place of LoRA; null for none.
        unfreeze: this many blocks nearest to the output train in full, without adapters, and the norms of all; null
            trains adapters alone.
        unfreeze_lr: peak learning rate of what is unfrozen; null chooses by the backbone's size.
        activation_checkpointing: keep only the states between layers and compute the rest again in the backward
            pass: a third more work for a fraction of the memory.
        compile: compile the blocks by torch for a CUDA GPU, into one graph for any number of tokens. The first steps of
            every start take minutes; no effect on a CPU.
        packing: lay texts one behind another in a row without padding, for backbones whose attention can keep them
            apart (BERT, DistilBERT, ELECTRA, RoBERTa and its kin). Otherwise texts of like length are padded to the
            longest of them. The logits are the same.
        architecture: used with backbone "small".
        r_drop: weight of the divergence between two passes with different dropout (R-Drop); 0 for one pass. It doubles
            the compute of a step.
        fgm: length of an adversarial offset of a text's embeddings, with which the text is learnt once more (FGM); 0
            for none. It more than doubles the compute of a step.
    """

    backbone: str = "distilbert-base-uncased"
    revision: str | None = None
    pooling: Pooling = "mean"
    dropout: Annotated[float | None, FRACTION_BELOW_ONE] = None
    lora: LoraOptions | None = None
    adapter: AdapterOptions | None = None
    unfreeze: Annotated[int | None, Bounds(0, 10**4)] = None
    unfreeze_lr: Annotated[float | None, above(0, 1e3)] = None
    activation_checkpointing: bool = False
    compile: bool = False
    packing: bool = True
    architecture: Architecture | None = None
    r_drop: Annotated[float, REGULARISER] = 0.0
    fgm: Annotated[float, REGULARISER] = 0.0

    @property
    def from_scratch(self) -> bool:
        """Whether the backbone starts from random weights."""
        return self.backbone == SMALL

    @property
    def shape(self) -> Architecture:
        """Of a small encoder."""
        return self.architecture or Architecture()

    def check_files(self) -> None:
        """See `ClassifierOptions.check_files`."""
        if not self.from_scratch:
            check_folder(self.backbone)

    def check_options(self) -> None:
        """See `ClassifierOptions.check_options`."""
        super().check_options()
        if self.shape.width % self.shape.heads:
            raise ConfigError(
                f"model.architecture.width is {self.shape.width}, no multiple of its {self.shape.heads} "
                "heads: change one of them"
            )
        if self.from_scratch and (self.lora or self.adapter):
            name = "lora" if self.lora else "adapter"
            raise ConfigError(
                f"model.{name} adapts pretrained weights, and backbone 'small' has none: drop one of them"
            )
        check_one_kind(self.lora, self.adapter, self.unfreeze)
        check_regularisers(self, drops=self.dropout != 0 or bool(self.adapter) or bool(self.lora and self.lora.dropout))
        if self.lora is not None:
            check_lora(self.lora)
        elif self.unfreeze is not None:
            raise ConfigError(
                f"model.unfreeze is {self.unfreeze} without adapters, and all of the backbone trains then: leave it "
                "out, or add model.lora"
            )


@dataclass
class DecoderOptions(ClassifierOptions):
    """A Llama-like decoder whose own weights never train.

    These are the options of `FrozenDecoder`.

    Attributes:
        backbone: model of the hub (Llama 2 and 3, Mistral, Qwen 2 and 3) or local directory; "random" makes
            `architecture` with random weights.
        revision: commit or tag of the backbone on the hub.
        random_weights: draw the weights of the backbone's configuration at random instead of loading them, for
            benchmarks and planning.
        architecture: used with backbone "random".
        quantization: of the frozen linear layers: "nf4" (4 bits, scales quantised too), "int8" (LLM.int8()) or "none".
        compute_dtype: of their products; "auto" is that of trainer.precision: fp16 under the 16-mixed of CUDA.
        quant_storage: dtype that packed 4-bit weights are stored under. uint8 is right for strategy fsdp too, which
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
        lora: shape and place of the adapters; null takes the defaults.
        adapter: adapters of another method in place of LoRA; null for none.
        unfreeze: this many blocks nearest to the output train in full, without adapters, and the norms of all; null
            trains adapters alone. Quantised weights cannot be unfrozen.
        unfreeze_lr: peak learning rate of what is unfrozen; null chooses by the backbone's size.
        attention: "causal", as the decoder was trained, or "full": a token sees all of its text.
        pooling: the state of a text's "last" token, or the "mean" over its tokens.
        packing: lay texts one behind another in a row without padding; attention keeps them apart exactly. Otherwise
            texts of like length are padded to the longest of them. The logits are the same.
        dropout: before the head; null for none.
        activation_checkpointing: keep only the states between layers and compute the rest again in the backward
            pass: a third more work for a fraction of the memory.
        r_drop: weight of the divergence between two passes with different dropout (R-Drop); 0 for one pass. It doubles
            the compute of a step.
        fgm: length of an adversarial offset of a text's embeddings, with which the text is learnt once more (FGM); 0
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
    activation_checkpointing: bool = False
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
        prompt: with {text}, and after it {genre}; where the tokenizer has a chat format, it is a user's message.
        chat: use the chat format; null where the tokenizer has one.
        yes: spellings of the answer that a genre fits.
        no: spellings of the other.
        batch_tokens: tokens that go through the model at once, questions and padding included.
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


OPTIONS: dict[str, type[ClassifierOptions]] = {
    "genre_lightning.models.distilbert.DistilBertClassifier": EncoderOptions,
    "genre_lightning.models.llama_qlora.LlamaQLoraClassifier": LlamaQLoraOptions,
    "genre_lightning.models.zero_shot.ZeroShotLlama": ZeroShotOptions,
}
"""The options of each model by its class path; the first model is the default."""
