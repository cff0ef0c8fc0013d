"""The parts of a training step's memory: one formula for each, in bytes.

`c` stands for the bytes of a number in matmuls (2 in half precision, else 4), `d` for the width, `f` for the inner
width, `t` for tokens with padding.
"""

from __future__ import annotations

from collections import defaultdict

from genre_lightning.planning.setting import BatchShape, Setting
from genre_lightning.planning.shape import Adapter, ModelShape, Weight


def _shard(weight: Weight, size: int, setting: Setting) -> int:
    """Return the bytes of a rank's shard of `size`: fully_shard cuts the first dimension, padded to equal shards."""
    if setting.strategy != "fsdp":
        return size
    return -(-weight.rows // setting.ranks) * (size // max(weight.rows, 1))


def weight_bytes(shape: ModelShape, setting: Setting) -> int:
    """Return the bytes of stored weights: 4 each if they train; frozen ones as they are kept.

    NF4 takes 1/2 byte a weight, 1/64 for the scales of 64 weights and 4 / (64 x 256) for the scales of those; int8
    takes 1 byte and 4 a row. Sharded, all are divided by the ranks but for the scales, which stand whole on each.
    """
    return sum(_shard(weight, weight.stored, setting) + weight.scales for weight in shape.weights)


def gradient_bytes(shape: ModelShape, setting: Setting) -> int:
    """Return the bytes of gradients: 4 for each trained number.

    Sharded, divided by the ranks. If a step has several micro-batches, each rank keeps the whole sums until the last
    of them, as gradients are reduced once a step.
    """
    trained = [weight for weight in shape.weights if weight.trained]
    if setting.strategy == "fsdp" and setting.micro_batches > 1:
        return sum(4 * weight.numbers for weight in trained)
    return sum(_shard(weight, 4 * weight.numbers, setting) for weight in trained)


def optimizer_bytes(shape: ModelShape, setting: Setting) -> int:
    """Return the bytes of AdamW's two moments: 8 for each trained number, sharded as the weights are.

    In 8 bits 2 bytes and a scale of 4 for each 256 of either moment; bitsandbytes keeps tensors below 4,096 numbers in
    32 bits. Paged ones count too, as they leave the device only when it is full. A moving average of the weights takes
    4 bytes a number.
    """
    size = sum(_shard(w, 4 * w.numbers, setting) for w in shape.weights if w.trained) if setting.averaged else 0
    for weight in shape.weights:
        if weight.trained and "8bit" in setting.optimizer and weight.numbers >= 4096:
            size += 2 * (weight.numbers + 4 * -(-weight.numbers // 256))
        elif weight.trained:
            size += 2 * _shard(weight, 4 * weight.numbers, setting)
    return size


def activation_bytes(shape: ModelShape, setting: Setting, batch: BatchShape) -> int:
    """Return the bytes kept for the backward pass: every block's, or with checkpointing all inputs and one block's.

    Before the blocks an encoder keeps the sum of its embeddings (4d a token), a decoder its rotary angles; all blocks
    share what the matmuls of a CPU's attention add to hide padding and later tokens.
    """
    if batch.packed and setting.device == "cpu":
        attention = _grouped_attention_bytes(shape, setting, batch)
    elif shape.decoder:
        attention = _place_bytes(shape, setting) * batch.attention_tokens
    else:
        attention = _attention_bytes(shape, setting, batch)
    lower, full = (_block_bytes(shape, setting, trained) * batch.tokens + attention for trained in (False, True))
    state = shape.width * (setting.number if setting.strategy == "fsdp" else 4)
    before = 8 * shape.head_width if shape.decoder else _embedding_bytes(shape, setting)
    if shape.checkpointed:
        kept = (shape.blocks - 1) * state * batch.tokens + (full if shape.full_blocks else lower)
    else:
        kept = (shape.blocks - shape.full_blocks) * lower + shape.full_blocks * full
    biases = _pair_bytes(shape, setting, batch)
    return kept + before * batch.tokens + biases


def _embedding_bytes(shape: ModelShape, setting: Setting) -> int:
    if shape.full_blocks < shape.blocks:
        return 0
    return (4 + bool(shape.dropouts) * setting.mask) * shape.width


def _block_bytes(shape: ModelShape, setting: Setting, trained: bool) -> int:
    """Return the bytes that a block keeps for each token: one with adapters, or one whose own layers are trained."""
    adapters = 0 if trained else _adapter_bytes(shape.adapters, setting)
    of_block = _llama_bytes if shape.decoder else _encoder_bytes
    return of_block(shape, setting, trained) + adapters


def _place_bytes(shape: ModelShape, setting: Setting) -> int:
    """Return the bytes that a decoder's block keeps for each token that attention sees.

    Queries and mixture (heads x head width x c each), keys and values (key-value heads x head width x c each), and the
    sum of exponentials (4 a head).
    """
    return 2 * (shape.heads + shape.kv_heads) * shape.head_width * setting.number + 4 * shape.heads


def _encoder_bytes(shape: ModelShape, setting: Setting, trained: bool) -> int:
    """Return the bytes of a block of BERT or DistilBERT, for each token.

    Frozen: the inputs of two norms (8d) and of GELU (fc), and dropout's masks. Trained, the inputs of the linear layers
    too: dc for queries, keys and values together (3dc under autocast, which casts for each), dc for the first
    feed-forward layer, fc for the second. Attention comes on top. Other encoders are taken for such a block.
    """
    c, d, f = setting.number, shape.width, shape.inner_width
    states = 4 if setting.autocast else c
    size = 2 * d * states + 16 + f * c + shape.dropouts * d * setting.mask
    if trained:
        size += (3 if setting.autocast else 1) * d * c + d * c + f * c
    return size


def _attention_bytes(shape: ModelShape, setting: Setting, batch: BatchShape) -> int:
    """Return the bytes of an encoder's attention.

    Fused kernels keep queries, keys, values and their mixture (4dc), the sum of exponentials (4 a head) and, once for
    all heads, the mask (longest c); of packed texts the mixture twice, padded and not. A CPU has none with dropout: it
    keeps scaled queries and keys, values, and for each head and pair of tokens the probabilities, dropout's factors and
    their product, in float32.
    """
    c, d = setting.number, shape.width
    if batch.packed:
        return d * c * batch.tokens + (4 * d * c + 4 * shape.heads) * batch.attention_tokens
    if _fused_attention(shape, setting):
        token = 4 * d * c + 4 * shape.heads + (batch.longest * c if batch.masked else 0)
    else:
        token = 3 * d * 4 + d * c + 12 * shape.heads * batch.longest
    return token * batch.tokens


def _grouped_attention_bytes(shape: ModelShape, setting: Setting, batch: BatchShape) -> int:
    """Return the bytes of the attention within packed texts in groups of like length, as a CPU takes them.

    Queries, keys and values (heads x head width x c each). The matmuls of this package, for dropout or bfloat16, keep
    for each head and pair of tokens the probability (c), and with dropout what it leaves (c) and its mask. The kernel
    of torch keeps the mixture (heads x head width x c) and the sum of exponentials (4 a head). An encoder keeps the
    mixture once more, without padding.
    """
    c, width = setting.number, shape.heads * shape.head_width
    mixture = 0 if shape.decoder else width * c * batch.tokens
    if weights := _pair_bytes(shape, setting, batch):
        dropped = weights + shape.heads * setting.mask * batch.pairs if shape.attention_dropout else 0
        return mixture + 3 * width * c * batch.attention_tokens + weights + dropped
    return mixture + (4 * width * c + 4 * shape.heads) * batch.attention_tokens


def _pair_bytes(shape: ModelShape, setting: Setting, batch: BatchShape) -> int:
    """Return the bytes of a number for each head and pair of tokens, if this package's matmuls take the attention."""
    matmuls = batch.packed and setting.device == "cpu" and (shape.attention_dropout or setting.number == 2)
    return shape.heads * setting.number * batch.pairs if matmuls else 0


def _fused_attention(shape: ModelShape, setting: Setting) -> bool:
    return setting.device == "cuda" or not shape.attention_dropout


def _llama_bytes(shape: ModelShape, setting: Setting, trained: bool) -> int:
    """Return the bytes of a block of a Llama, for each token.

    Frozen: the states between the two halves of a block in float32 (8d), as its norms need them; the gate, its SiLU and
    what it multiplies (3fc). Norms that train keep what they scale (8d). Trained, the inputs of the linear layers too:
    dc for queries, keys and values together and dc for gate and up (5dc under autocast, which casts for each), fc for
    down.
    """
    c, d, f = setting.number, shape.width, shape.inner_width
    size = 8 * d + 16 + 3 * f * c
    if shape.trains_norms:
        size += 8 * d
    if trained:
        size += (5 if setting.autocast else 2) * d * c + f * c
    return size


def _adapter_bytes(adapters: tuple[Adapter, ...], setting: Setting) -> int:
    """Return LoRA's bytes a token: the inputs of both matrices, and the mask of the dropout before the first.

    Without dropout and casts, layers that read the same states share them.
    """
    c = setting.number
    size = sum(adapter.rank * c for adapter in adapters)
    dropped = [adapter for adapter in adapters if adapter.dropout]
    size += sum(adapter.inputs * (c + setting.mask) for adapter in dropped)
    plain = [adapter.inputs for adapter in adapters if not adapter.dropout]
    return size + c * sum(plain if setting.autocast else set(plain))


def working_bytes(shape: ModelShape, setting: Setting, batch: BatchShape) -> int:
    """Return the gradients of states while the last block's feed-forward layers are differentiated, or its attention.

    Of an encoder's feed-forward layers (fc + 8d) a token, of a decoder's (2fc + 8d). The attention of a CPU may need
    more, when what the feed-forward layers kept is freed: with dropout if texts are padded, two numbers for each head
    and pair of tokens; by this package's matmuls one, and gradients of queries, keys, values and their mixture
    (heads x head width x c each).
    """
    c, d, f = setting.number, shape.width, shape.inner_width
    token = (2 if shape.decoder else 1) * f * c + 8 * d
    freed = (3 if shape.decoder else 2 if shape.full_blocks else 1) * f * c + 8 * d
    attention = 0
    if weights := _pair_bytes(shape, setting, batch):
        attention = weights + 4 * shape.heads * shape.head_width * c * batch.attention_tokens
    elif not shape.decoder and not batch.packed and not _fused_attention(shape, setting):
        attention = 8 * shape.heads * batch.longest * batch.tokens
    return max(token * batch.tokens, attention - freed * batch.tokens)


def cast_bytes(shape: ModelShape, setting: Setting) -> int:
    """Return the bytes of casts: 2 for each number of a float32 linear layer under autocast, kept for backward.

    Frozen ones are cast too, and with checkpointing dropped block by block.
    """
    if not setting.autocast:
        return 0
    outside_head = [weight for weight in shape.weights if weight.linear and not weight.head]
    cast = [weight for weight in outside_head if weight.stored == 4 * weight.numbers]
    kept = [weight for weight in cast if weight.trained or not shape.checkpointed or weight.block == 0]
    return sum(2 * weight.numbers for weight in kept)


def dequantisation_bytes(shape: ModelShape, setting: Setting) -> int:
    """Return the bytes of the largest quantised layer in the matmuls' dtype, c a weight, and of NF4's scales."""
    return max((w.numbers * setting.number + w.numbers // 16 for w in shape.weights if w.quantised), default=0)


def communication_bytes(shape: ModelShape, setting: Setting, *, freed: int) -> int:
    """Return the bytes of the buffers that ranks exchange.

    Under DDP the gradients are views of its buckets, which take no more; if a step has several micro-batches the
    buckets stand beside their sums, 4 bytes for each trained number.
    Sharded: two gathered blocks, the one at work and the one that is fetched; embeddings, last norm and head, which
    stay gathered between forward and backward; and of a block's gradients what is reduced, (c + 4) for each number, as
    far as it is more than the states of the block, which are `freed` by then.
    """
    if setting.strategy == "ddp" and setting.micro_batches > 1:
        return 4 * shape.trained
    if setting.strategy != "fsdp":
        return 0
    blocks: dict[int, int] = defaultdict(int)
    trained: dict[int, int] = defaultdict(int)
    root = 0
    for weight in shape.weights:
        gathered = weight.stored if weight.quantised else weight.numbers * (4 if weight.head else setting.number)
        if weight.block is None:
            root += gathered
            continue
        blocks[weight.block] += gathered
        trained[weight.block] += weight.numbers * (setting.number + 4) if weight.trained else 0
    return 2 * max(blocks.values()) + root + max(max(trained.values()) - freed, 0)


def step_bytes(shape: ModelShape, setting: Setting) -> int:
    """Return the bytes needed once the states are freed: in the optimizer's step, or to reduce a gradient.

    AdamW that is not fused takes the square roots of all second moments at once, 4 bytes for each trained number.
    Sharded, the gradient of what is outside of the blocks is reduced last, (c + 4) for each number.
    """
    trained = [weight for weight in shape.weights if weight.trained]
    roots = 0
    if not setting.fused and setting.optimizer == "adamw" and not setting.offload:
        roots = sum(_shard(weight, 4 * weight.numbers, setting) for weight in trained)
    if setting.strategy != "fsdp":
        return roots
    outside = sum(w.numbers * (setting.number + 4) for w in trained if w.block is None)
    return max(roots, outside)
