"""A pretended CUDA: FakeTensorMode over fake "cuda" tensors on a CPU-only torch, with a ledger of what the host waits for.

    with FakeCuda(devices=1) as gpu:
        ...                       # build the model, run a trainer; nothing is computed, only shapes, dtypes and devices
    gpu.syncs, gpu.kernels

What it can find: tensors on the wrong device (FakeTensorMode raises), wrong dtypes, operations that wait for the device
(.item(), .tolist(), nonzero, copies that are not asynchronous), and how many kernels a step starts. It cannot find wrong
numbers, wrong orders of collectives or anything about time.
"""

# ruff: noqa: E402, E501, PT008  # torch is imported late; lambdas stand in for functions of torch
from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import subprocess
import sys
import tempfile
import traceback
import types
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).parent


def _load_guard() -> None:
    """Build (two seconds, g++) and load a device guard for CUDA: a CPU-only torch has none, and autograd asks for it.

    It must be there before torch is imported, which looks for its hooks once.
    """
    assert "torch" not in sys.modules, "import fake_cuda before torch"
    (root,) = importlib.util.find_spec("torch").submodule_search_locations  # type: ignore[union-attr,misc]
    library = Path(os.environ.get("FAKE_CUDA_FOLDER") or tempfile.mkdtemp()) / "libfake_cuda_guard.so"
    if not library.is_file():
        include = f"{root}/include"
        subprocess.run(
            ["g++", "-std=c++20", "-O0", "-shared", "-fPIC", f"-I{include}", f"-I{include}/torch/csrc/api/include",
             str(HERE / "fake_cuda_guard.cpp"), "-o", str(library), f"-L{root}/lib", "-ltorch_cpu", "-lc10",
             f"-Wl,-rpath,{root}/lib"], check=True)  # fmt: skip
    ctypes.CDLL(str(library))


_load_guard()

import torch
import torch.cuda.amp.common
import torch.nn.utils.clip_grad
import torch.optim.adam
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

aten = torch.ops.aten

# operations that start no kernel: views, and what only asks for metadata or memory
VIEWS = {
    "view",
    "_unsafe_view",
    "reshape",
    "t",
    "transpose",
    "permute",
    "expand",
    "slice",
    "select",
    "unsqueeze",
    "squeeze",
    "detach",
    "alias",
    "as_strided",
    "split",
    "split_with_sizes",
    "unbind",
    "chunk",
    "narrow",
    "diagonal",
    "lift_fresh",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "is_same_size",
    "_reshape_alias",
    "unfold",
    "set_",
    "resize_",
    "view_as",
    "result_type",
    "sym_size",
    "is_pinned",
    "_to_copy_view",
    "_has_compatible_shallow_copy_type",
    "_local_scalar_dense",
    "device",
    "is_contiguous",
}


@dataclass
class Sync:
    """Something that makes the host wait for the device."""

    what: str
    where: str
    step: int


CURRENT: list[Any] = []
"""The ledger at work."""


class Ledger(TorchDispatchMode):
    """Counts kernels and notes what waits; answers .item() of the device with a number, so the program continues."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs: list[Sync] = []
        self.kernels: Counter[str] = Counter()
        self.draws: Counter[str] = Counter()
        """Random numbers drawn, by the type of the device that draws."""
        self.log: list[tuple[str, Any]] = []
        self.on = False
        self.step = -1
        self.keep_args = False

    def where(self) -> str:
        frames = [
            f
            for f in traceback.extract_stack()[:-3]
            if "/torch/_" not in f.filename and "fake_cuda.py" not in f.filename
        ]
        own = [f for f in frames if "genre_lightning/" in f.filename and "site-packages" not in f.filename]
        last = frames[-1]
        text = f"{last.filename.split('site-packages/')[-1].split('/genre/')[-1]}:{last.lineno} {last.name}"
        if own and own[-1] is not last:
            o = own[-1]
            text += f"  <- {o.filename.split('/genre/')[-1]}:{o.lineno} {o.name}"
        return text

    def note(self, what: str) -> None:
        if self.on:
            self.syncs.append(Sync(what, self.where(), self.step))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[-1]
        flat, _ = tree_flatten((args, kwargs))
        tensors = [x for x in flat if isinstance(x, torch.Tensor)]
        on_cuda = any(t.device.type == "cuda" for t in tensors)
        if name in ("_local_scalar_dense", "item"):
            (tensor,) = tensors
            if not isinstance(tensor, FakeTensor):
                return func(*args, **kwargs)
            if on_cuda:
                self.note(".item()")
            if tensor.dtype == torch.bool:
                return False
            if tensor.dtype == torch.float64:
                return 2.0  # sums that something is divided by
            # found_inf and counts of bad steps are 0 on the device; a step of an optimizer, on the host, is not
            return float(not on_cuda) if tensor.dtype.is_floating_point else 0
        generators = [x for x in flat if isinstance(x, torch.Generator)]
        device = kwargs.get("device")
        made_on = torch.device(device).type if device is not None else (tensors[0].device.type if tensors else "cpu")
        if generators and generators[0].device.type != made_on:
            # FakeTensorMode does not look at it; a real device raises
            raise RuntimeError(
                f"Expected a {made_on!r} device type for generator but found {generators[0].device.type!r}"
            )
        if self.on and name in ("normal_", "uniform_", "randn", "rand", "bernoulli_", "random_"):
            self.draws[made_on] += 1
        if name in ("_pin_memory", "pin_memory"):
            tensors[0].pretended_pinned = True  # type: ignore[attr-defined]
            return tensors[0]
        if name == "is_pinned":
            return getattr(tensors[0], "pretended_pinned", False)
        if name in ("_to_copy", "copy_", "to"):
            self._copies(name, args, kwargs, tensors)
        if name in ("nonzero", "masked_select", "unique_dim", "_unique2", "_unique", "unique_consecutive") and on_cuda:
            self.note(name)
        if name in ("index", "index_put", "index_put_") and on_cuda:
            indices = [t for t in tree_flatten(args[1])[0] if isinstance(t, torch.Tensor)]
            if any(t.dtype == torch.bool for t in indices):
                self.note(f"{name} by a mask (nonzero)")
        if name == "index" and isinstance(args[0], FakeTensor) and len(args[1]) == 1 and args[1][0].dtype == torch.bool:
            return args[0].flatten(0, args[1][0].ndim - 1).clone()  # how many it chooses is not known: all of them
        if name in ("repeat_interleave",) and on_cuda and kwargs.get("output_size") is None:
            self.note("repeat_interleave without output_size")
        out = func(*args, **kwargs)
        outs = [x for x in tree_flatten(out)[0] if isinstance(x, torch.Tensor)]
        if self.on and (on_cuda or any(t.device.type == "cuda" for t in outs)):
            full = f"{func._schema.name.split('::')[0]}::{name}" if not func._schema.name.startswith("aten") else name
            if name not in VIEWS:
                self.kernels[full] += 1
            if self.keep_args:
                self.log.append(
                    (full, [(tuple(t.shape), t.dtype) for t in tensors], [(tuple(t.shape), t.dtype) for t in outs])
                )
        return out

    def _copies(self, name: str, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> None:
        if name == "copy_":
            target, source = args[0], args[1]
            blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            a, b = source.device.type, target.device.type
        else:
            source = tensors[0]
            device = kwargs.get("device")
            if device is None:
                return
            a, b = source.device.type, torch.device(device).type
            blocking = not kwargs.get("non_blocking", False)
        if {a, b} != {"cpu", "cuda"}:
            return
        if not blocking and a == "cpu" and not getattr(source, "pretended_pinned", False):
            self.note(f"asynchronous copy from memory that is not pinned, {tuple(source.shape)}")
        if blocking:
            self.note(f"copy {a} to {b}, {tuple(source.shape)} {source.dtype}".replace("torch.", ""))


def _apply(self: Any, fn: Any, recurse: bool = True) -> Any:
    """Replace the parameters of fake tensors, which torch can neither swap nor set in place (`nn.Module._apply`)."""
    if recurse:
        for module in self.children():
            module._apply(fn)
    for key, param in self._parameters.items():
        if param is not None:
            with torch.no_grad():
                moved = fn(param)
            if moved is not param:
                self._parameters[key] = torch.nn.Parameter(moved, param.requires_grad)
    for key, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[key] = fn(buffer)
    return self


class _Mode(FakeTensorMode):
    avoid_device_init = True  # torch.cuda.is_available is pretended, and there is no device to start


class Dummy:
    """Stands in for a stream or an event."""

    def __init__(self, *a: Any, **k: Any) -> None:
        self.device = torch.device("cuda", 0)

    def __getattr__(self, name: str) -> Any:
        return lambda *a, **k: Dummy() if name == "record_event" else None

    def __enter__(self) -> Dummy:
        return self

    def __exit__(self, *a: Any) -> None:
        return None

    def query(self) -> bool:
        return True


class FakeCuda(contextlib.ExitStack):
    def __init__(self, devices: int = 1, name: str = "NVIDIA H100 80GB HBM3") -> None:
        super().__init__()
        self.devices, self.name = devices, name
        self.ledger = Ledger()

    def __enter__(self) -> FakeCuda:
        super().__enter__()
        with contextlib.suppress(ImportError):
            import bitsandbytes  # noqa: F401  # binds to a real CUDA if one seems to be there
        # made before CUDA is pretended, so that it does not try to start it
        self.mode = _Mode(allow_non_fake_inputs=True)
        props = types.SimpleNamespace(
            name=self.name, major=9, minor=0, total_memory=80 << 30, multi_processor_count=132, gcnArchName=""
        )
        patches: dict[str, Any] = {
            "is_available": lambda: True,
            "device_count": lambda: self.devices,
            "current_device": lambda: 0,
            "set_device": lambda d: None,
            "get_device_name": lambda d=None: self.name,
            "get_device_capability": lambda d=None: (9, 0),
            "get_device_properties": lambda d=None: props,
            "max_memory_allocated": lambda d=None: 0,
            "memory_allocated": lambda d=None: 0,
            "empty_cache": lambda: None,
            "synchronize": lambda d=None: None,
            "is_bf16_supported": lambda including_emulation=True: True,
            "is_initialized": lambda: False,
            "manual_seed_all": lambda s: None,
            "manual_seed": lambda s: None,
            "reset_peak_memory_stats": lambda d=None: None,
            "Stream": Dummy,
            "Event": Dummy,
            "stream": lambda s: Dummy(),
            "current_stream": lambda d=None: Dummy(),
            "default_stream": lambda d=None: Dummy(),
            "_lazy_init": lambda: None,
            "is_current_stream_capturing": lambda: False,
        }
        for key, value in patches.items():
            self.enter_context(mock.patch.object(torch.cuda, key, value))
        self.enter_context(mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False))
        self.enter_context(mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", sdpa))
        self.enter_context(mock.patch.object(torch.nn.Module, "_apply", _apply))
        self.enter_context(
            mock.patch.object(FakeTensor, "__deepcopy__", lambda self, memo: self.detach().clone(), create=True)
        )
        # both look at the type of a tensor, which here is FakeTensor
        self.enter_context(
            mock.patch.object(sys.modules["torch.nn.utils.clip_grad"], "_has_foreach_support", lambda t, device: True)
        )
        self.enter_context(
            mock.patch.object(
                sys.modules["torch.optim.adam"], "_default_to_fused_or_foreach", lambda *a, **k: (False, True)
            )
        )
        self.enter_context(self.mode)
        self.enter_context(self.ledger)
        CURRENT[:] = [self.ledger]
        return self


def sdpa(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):  # type: ignore[no-untyped-def]
    """Choose as torch does on an A100: flash without a mask, else memory-efficient."""
    if query.device.type != "cuda":
        raise AssertionError(f"attention on {query.device}")
    devices = {t.device.type for t in (query, key, value, attn_mask) if t is not None}
    assert devices == {"cuda"}, devices
    assert query.dtype == key.dtype == value.dtype, (query.dtype, key.dtype, value.dtype)
    half = query.dtype in (torch.float16, torch.bfloat16)
    if attn_mask is None and half:
        if enable_gqa:
            key = key.repeat_interleave(query.shape[1] // key.shape[1], 1, output_size=query.shape[1])
            value = value.repeat_interleave(query.shape[1] // value.shape[1], 1, output_size=query.shape[1])
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    bias = None
    if attn_mask is not None:
        bias = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), float("-inf"))
        bias = bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    needs = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs, dropout_p, is_causal, scale=scale
    )[0]
