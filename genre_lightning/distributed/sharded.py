"""FSDP through PyTorch's `fully_shard` (FSDP2), with fp16 and a loss scaler that all ranks agree on."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from typing_extensions import override

from genre_lightning.distributed.checkpoint.io import AtomicCheckpointIO, read_checkpoint
from genre_lightning.distributed.checkpoint.shards import read_shards, read_unsharded, read_whole, write_shards
from genre_lightning.distributed.scaling import ScaledPrecision
from genre_lightning.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch.distributed.device_mesh import DeviceMesh

_COMPUTE_DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a model: the members of its longest list of modules of one kind.

    Raises:
        ConfigError: There is none, so nothing to shard by.
    """
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    alike = [blocks for blocks in lists if len({type(block) for block in blocks}) == 1]
    if not alike:
        raise ConfigError(f"{type(model).__name__} has no list of transformer blocks to shard by: use strategy ddp")
    return max(alike, key=len)


def shard(
    backbone: nn.Module,
    head: nn.Module,
    mesh: DeviceMesh,
    *,
    compute_dtype: torch.dtype,
    cpu_offload: bool = False,
    materialise: Callable[[nn.Module], None] = lambda part: None,
    keeps_states: bool = False,
) -> None:
    """Shard a backbone block by block and the head by itself, in place.

    Every block is a group of its own, and within it every parameter is sharded by itself: frozen NF4 weights, float32
    adapters and norms live side by side. The head is a group that computes in float32.

    Each part is filled just before it is sharded, so that no rank holds more than its shards and one block.

    Args:
        backbone: The same on every rank, with its weights or placeholders for them.
        head: Head with its weights, the same on every rank.
        mesh: One dimension, over all ranks.
        compute_dtype: Data type of the backbone's forward and backward; gradients are summed over ranks in float32.
        cpu_offload: Keep shards, gradients and optimizer states in the host's memory.
        materialise: Puts in the weights that a part lacks.
        keeps_states: Whether states between blocks keep their dtype: a decoder's are float32, and would overflow in
            float16; an encoder's norms take them in the dtype of their weights alone.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=None if compute_dtype == torch.float32 else compute_dtype,
        reduce_dtype=torch.float32,
        output_dtype=torch.float32,
    )
    blockwise = MixedPrecisionPolicy(
        param_dtype=policy.param_dtype, reduce_dtype=torch.float32, cast_forward_inputs=not keeps_states
    )
    offload = OffloadPolicy()
    if cpu_offload:
        # pinned memory is the accelerator's, and a machine without one has none
        offload = CPUOffloadPolicy(pin_memory=torch.accelerator.is_available())
    for block in transformer_blocks(backbone):
        materialise(block)
        fully_shard(block, mesh=mesh, mp_policy=blockwise, offload_policy=offload)
    materialise(backbone)
    fully_shard(backbone, mesh=mesh, mp_policy=policy, offload_policy=offload)
    fully_shard(head, mesh=mesh, mp_policy=MixedPrecisionPolicy(), offload_policy=offload)


def load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put whole tensors into a module, sharded or not; names that the weights lack keep their values.

    Raises:
        RuntimeError: A shape differs.
    """
    if not _is_sharded(module):
        module.load_state_dict(weights, strict=False)
        return
    for name, target in module.state_dict().items():
        if name not in weights:
            continue
        value = weights[name]
        if value.shape != target.shape:
            raise RuntimeError(f"{name} has shape {tuple(value.shape)}, not {tuple(target.shape)}")
        with torch.no_grad():
            if isinstance(target, DTensor):
                target.to_local().copy_(_shard_of(value, target).to_local())
            else:
                target.copy_(value)


def whole(value: Tensor) -> Tensor:
    """Return a tensor gathered from its shards, on the host; a collective for a sharded one."""
    gathered = value.full_tensor() if isinstance(value, DTensor) else value
    return gathered.detach().cpu()


def open_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Return the verified content of a checkpoint, file or directory; tensors of a directory have no values yet.

    Raises:
        CheckpointError: Missing, damaged, or holding more than tensors and plain values.
    """
    return read_unsharded(checkpoint) if checkpoint.is_dir() else read_checkpoint(checkpoint)


def restore_weights(module: nn.Module, checkpoint: Path, content: dict[str, Any]) -> None:
    """Put a checkpoint's weights into a module, of a directory only what this rank needs; a collective.

    Args:
        module: Sharded or not.
        checkpoint: Path of the checkpoint.
        content: What `open_checkpoint` gave.

    Raises:
        CheckpointError: The checkpoint is of a model of another shape.
    """
    try:
        if not checkpoint.is_dir():
            load_weights(module, content["state_dict"])
        elif _is_sharded(module):
            read_shards(checkpoint, module.state_dict(), [])
        else:
            load_weights(module, read_whole(checkpoint)["state_dict"])
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint} is of another shape of model: use its own configuration") from error


def _is_sharded(module: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load whole optimizer states, cutting each to the shard that this rank has of its parameter.

    Args:
        optimizer: Optimizer over the parameters in the order of the run that saved.
        state: `optimizer.state_dict()` of an unsharded run, or `ShardedStrategy.optimizer_state`.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    cut: dict[int, dict[str, Any]] = {}
    for index, values in state["state"].items():
        parameter = parameters[int(index)]
        cut[int(index)] = {
            name: _shard_of(value, parameter) if _belongs(value, parameter) else value for name, value in values.items()
        }
    optimizer.load_state_dict({**state, "state": cut})


def _belongs(value: Any, parameter: Tensor) -> TypeGuard[Tensor]:
    """Return whether a value of an optimizer's state is sharded as its parameter: moments are, step counts are not."""
    return isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape


def _shard_of(value: Tensor, like: Any) -> DTensor:
    if isinstance(value, DTensor):
        return value
    # every rank has read the whole tensor, so each cuts its shard out of its own: no broadcast
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


class ShardedPrecision(ScaledPrecision):
    """Precision under `fully_shard`, whose own policy casts parameters: here are only the loss scaler and its step.

    Args:
        precision: "32-true", "bf16-mixed" or "16-mixed".
        device: Type of the device that trains.
    """

    def __init__(self, precision: Literal["32-true", "bf16-mixed", "16-mixed"], device: str) -> None:
        Precision.__init__(self)
        self.precision = precision  # 32-true too, which needs no autocast
        self.device = device
        self.scaler = torch.amp.GradScaler(device) if precision == "16-mixed" else None

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of the backbone."""
        return _COMPUTE_DTYPES[str(self.precision)]

    @override
    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        yield  # no autocast: the parameters are cast already, and autocast would cast them again

    @override
    def agree_on_overflow(self, optimizer: Optimizer) -> None:
        """Make an infinity in one rank's shard known to all: they skip a step together, or their scales part."""
        if not torch.distributed.is_initialized():
            return
        assert self.scaler is not None
        found: dict[torch.device, Tensor] = self.scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
        for tensor in found.values():
            local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            torch.distributed.all_reduce(local, op=torch.distributed.ReduceOp.MAX)


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for `fully_shard`, over all ranks, applied to any `GenreClassifier`.

    Args:
        cpu_offload: Keep shards, gradients and optimizer states in the host's memory.
        shards_checkpoints: Write checkpoints as directories, each rank its own shards, in place of one file that the
            rank 0 gathers. Either is read at any number of ranks and under any strategy.
        kwargs: Lightning's own options.
    """

    def __init__(self, cpu_offload: bool = False, shards_checkpoints: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cpu_offload = cpu_offload
        self.shards_checkpoints = shards_checkpoints

    @override
    def setup_environment(self) -> None:
        assert self.cluster_environment is not None
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        if self.cpu_offload and self.root_device.type == "cuda":
            # gradients on the host have their norm and their infinities summed there
            self._process_group_backend = self._process_group_backend or "cpu:gloo,cuda:nccl"
        super().setup_environment()

    @override
    def setup(self, trainer: Trainer) -> None:
        module: Any = self.model
        precision = self.precision_plugin
        if not isinstance(precision, ShardedPrecision):
            raise ConfigError(
                f"strategy fsdp needs precision 32-true, bf16-mixed or 16-mixed, not {precision.precision}"
            )
        if not isinstance(module.backbone, FSDPModule):
            shard(
                module.backbone,
                module.head,
                self.device_mesh["data_parallel"],
                compute_dtype=precision.compute_dtype,
                cpu_offload=self.cpu_offload,
                materialise=module.materialise,
                keeps_states=module.decoder,
            )
        super().setup(trainer)

    @override
    def model_to_device(self) -> None:
        """Move what is not sharded; shards are where their policy keeps them."""
        assert self.model is not None
        self.model._apply(lambda tensor: tensor if isinstance(tensor, DTensor) else tensor.to(self.root_device))

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the tensors of a checkpoint: this rank's shards, or whole on rank 0's host; a collective."""
        module: Any = self.model
        kept = module.trained_names()
        return {name: self._to_save(value) for name, value in module.state_dict().items() if name in kept}

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state by parameter, as in an unsharded run, so that each resumes from the other."""
        state = getattr(optimizer, "_optimizer", optimizer).state_dict()
        state["state"] = {
            index: {name: self._to_save(v) if isinstance(v, Tensor) else v for name, v in values.items()}
            for index, values in state["state"].items()
        }
        return state

    def _to_save(self, value: Tensor) -> Tensor:
        if self.shards_checkpoints:
            return value
        # every rank takes part in the gathering, and the one that writes keeps what comes of it
        gathered = whole(value)
        return gathered if self.is_global_zero else torch.empty(0)

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if self.shards_checkpoints:
            path, door = Path(filepath), self.checkpoint_io
            write_shards(checkpoint, path, door.kept(path) if isinstance(door, AtomicCheckpointIO) else ())
        elif self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath)

    @override
    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Put a checkpoint's weights and optimizer state in as each rank's shards, whatever form it has."""
        path = Path(self.broadcast(checkpoint_path))
        assert self.lightning_module is not None
        optimizers = [getattr(optimizer, "_optimizer", optimizer) for optimizer in self.optimizers]
        if path.is_dir():
            read_unsharded(path)
            parameters = [[p for group in o.param_groups for p in group["params"]] for o in optimizers]
            checkpoint = read_shards(path, self.lightning_module.state_dict(), parameters)
        else:
            checkpoint = self.checkpoint_io.load_checkpoint(path)
            load_weights(self.lightning_module, checkpoint["state_dict"])
        for optimizer, state in zip(optimizers, checkpoint.get("optimizer_states", []), strict=False):
            load_optimizer_state(optimizer, state)
        return checkpoint

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Keep gradients unreduced until the step's last micro-batch."""
        module: Any = self.model
        parts = [module.backbone, module.head]
        for part in parts:
            part.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            for part in parts:
                part.set_requires_gradient_sync(True)
