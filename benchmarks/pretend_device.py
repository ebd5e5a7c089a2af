"""A GPU that is only pretended: what a program would make a GPU do is counted without one.

Tensors of the pretended device say that they are on "cuda:0", and hold a tensor on the CPU that
does the work. So a program takes its way for GPUs, with the right values. Each operation is
counted, each copy between the host and the device, and each wait of the host for the device. Times
mean nothing.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import _lru_cache_wrapper
from inspect import signature
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda", 0)
HOST = torch.device("cpu")
MADE_OF_OTHERS = torch._C.DispatchKey.CompositeImplicitAutograd
# These allocate memory and start no kernel.
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
# These read as much of their first input as they write.
GATHERS = {"index", "gather", "index_select"}
NEEDS_VALUE = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}
# A boolean mask as an index becomes a list of indices, whose length the host has to know.
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}


def _batch_norm(*args: Any) -> tuple[torch.Tensor, ...]:
    """cudnn_batch_norm of a network in evaluation mode."""
    return (*torch.native_batch_norm(*args), torch.empty(0))


def _convolution_relu(x: torch.Tensor, *weights_and_place: Any) -> torch.Tensor:
    return torch.conv2d(x, *weights_and_place).relu_()


def _convolution_add_relu(
    x: torch.Tensor, weight: torch.Tensor, z: torch.Tensor, alpha: float, *bias_and_place: Any
) -> torch.Tensor:
    return torch.conv2d(x, weight, *bias_and_place).add_(z, alpha=alpha).relu_()


# Operations that only GPUs have, and functions for the CPU that do the same.
ON_CPU: dict[str, Callable[..., Any]] = {
    "cudnn_batch_norm": _batch_norm,
    "cudnn_convolution_relu": _convolution_relu,
    "cudnn_convolution_add_relu": _convolution_add_relu,
}


@dataclass
class Counts:
    """What was asked of the device.

    operations: that compute or copy on the device; views are not counted. moved: bytes that they
    read and write, if every operation but GATHERS reads its whole inputs. uploads, downloads:
    bytes of each copy from and to the host. waits: of the host, until the device has done all it
    was given. by_name: operations by name.
    """

    operations: int = 0
    moved: int = 0
    uploads: list[int] = field(default_factory=list)
    downloads: list[int] = field(default_factory=list)
    waits: int = 0
    by_name: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        copies = [
            f"{len(sizes)} copies {way} the device ({sum(sizes) / 1e3:,.1f} kB)"
            for way, sizes in (("to", self.uploads), ("from", self.downloads))
        ]
        moved = f"{self.moved / 1e6:,.0f} MB read and written"
        return ", ".join(
            [f"{self.operations} operations", moved, *copies, f"{self.waits} waits of the host"]
        )


class OnDevice(torch.Tensor):
    """A tensor that says it is on DEVICE. inner: the tensor on the CPU with its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a tensor of the pretended device, outside PretendDevice")


class PretendDevice(TorchDispatchMode):
    """Within this context there is a device DEVICE; `counts` has what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self.lifted_before: list[bool] = []

    def __enter__(self) -> PretendDevice:
        # Lists of numbers then come as copies from the host. Each thread has this setting.
        self.lifted_before.append(torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self.lifted_before.pop())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, OnDevice)]
        goal = kwargs.get("device")
        if not given and not _is_pretended(goal):
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), MADE_OF_OTHERS):
            with self:  # in inference mode, such operations come whole
                return func._op_dk(MADE_OF_OTHERS, *args, **kwargs)
        name = func._schema.name.rpartition("::")[2]
        if goal is not None:
            kwargs["device"] = HOST
        inner = ON_CPU.get(name, func)(*_unwrapped(args), **_unwrapped(kwargs))
        if name == "_to_copy" and given and goal is not None and not _is_pretended(goal):
            self._download(inner, kwargs)
            return inner
        if not given and name == "_to_copy":
            self._upload(inner, kwargs)
            return _wrapped(inner, given)
        self._count(name, func, args, kwargs, inner)
        return inner if name in ("_local_scalar_dense", "equal") else _wrapped(inner, given)

    def _download(self, copied: torch.Tensor, kwargs: Mapping[str, Any]) -> None:
        self.counts.downloads.append(copied.nbytes)
        self.counts.waits += not kwargs.get("non_blocking", False)

    def _upload(self, copied: torch.Tensor, kwargs: Mapping[str, Any]) -> None:
        self.counts.uploads.append(copied.nbytes)
        self.counts.waits += not kwargs.get("non_blocking", False)

    def _count(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        tensors = [value for value in tree_flatten((args, kwargs))[0] if _is_tensor(value)]
        results = [value for value in tree_flatten(result)[0] if _is_tensor(value)]
        on_host = [tensor for tensor in tensors if not isinstance(tensor, OnDevice)]
        if name == "copy_" and not isinstance(args[0], OnDevice):
            self._download(args[0], {"non_blocking": len(args) > 2 and args[2]})
            return
        for tensor in on_host:
            if tensor.ndim:  # a single value is an argument of the kernel
                self._upload(
                    tensor, {"non_blocking": name == "copy_" and len(args) > 2 and args[2]}
                )
        if name in ALLOCATIONS or (name == "copy_" and on_host):
            return
        self.counts.waits += name in NEEDS_VALUE or (name in INDEXED and _has_mask(args))
        if name == "_local_scalar_dense":
            self.counts.downloads.append(tensors[0].element_size())
            return
        if _is_view(func):
            return
        self.counts.operations += 1
        self.counts.by_name[name] += 1
        read = [*results, *tensors[1:]] if name in GATHERS else tensors
        self.counts.moved += sum(tensor.nbytes for tensor in [*read, *results])


def _is_pretended(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _is_view(func: Any) -> bool:
    """Whether the results are the arguments' memory, as it is."""
    if func._schema.name in ("aten::_reshape_alias", "aten::_unsafe_view", "aten::lift_fresh"):
        return True
    returns = func._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _has_mask(args: Sequence[Any]) -> bool:
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def _unwrapped(values: Any) -> Any:
    return tree_map(lambda v: v.inner if isinstance(v, OnDevice) else v, values)


def _wrapped(values: Any, given: Sequence[OnDevice]) -> Any:
    """Results on the device; an argument that was changed in-place stays the same object."""

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        same = [tensor for tensor in given if tensor.inner is value]
        return same[0] if same else OnDevice(value)

    return tree_map(wrap, values)


class Streams(threading.local):
    """The streams of the pretended device, in whose place a CPU does all work at once.

    current: the stream of this thread, by name. order: what was asked of streams, shared by all
    threads: (stream, "record", event), (stream, "wait", event) or ("host", "wait", event or
    stream).
    """

    order: list[tuple[str, str, str]] = []

    def __init__(self) -> None:
        self.current = "network"


STREAMS = Streams()


class Event:
    """In place of torch.cuda.Event. name: the stream that recorded it last, and a number."""

    def __init__(self, **options: Any) -> None:
        self.name = ""

    def record(self, stream: Any = None) -> None:
        self.name = f"{STREAMS.current} {len(STREAMS.order)}"
        STREAMS.order.append((STREAMS.current, "record", self.name))

    def synchronize(self) -> None:
        STREAMS.order.append(("host", "wait", self.name))


class Stream:
    """In place of torch.cuda.Stream."""

    def __init__(self, device: Any = None) -> None:
        self.name = threading.current_thread().name

    def wait_event(self, event: Event) -> None:
        STREAMS.order.append((self.name, "wait", event.name))

    def synchronize(self) -> None:
        STREAMS.order.append(("host", "wait", self.name))


@contextmanager
def _on_stream(stream: Stream) -> Iterator[None]:
    before = STREAMS.current
    STREAMS.current = stream.name
    try:
        yield
    finally:
        STREAMS.current = before


def forget_devices() -> None:
    """Empty the package's caches that are kept by device.

    The pretended device has the name of a real one, whose tensors and abilities it has not.
    """
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "swahr"]
    for value in [value for module in modules for value in vars(module).values()]:
        if isinstance(value, _lru_cache_wrapper) and "device" in signature(value).parameters:
            value.cache_clear()


@contextmanager
def pretended() -> Iterator[PretendDevice]:
    """A PretendDevice, where memory counts as pinned and no driver is looked for."""
    forget_devices()
    try:
        with _pretended() as device:
            yield device
    finally:
        forget_devices()


@contextmanager
def _pretended() -> Iterator[PretendDevice]:
    torch._C._ensureCUDADeviceGuardSet()  # without a driver, indexing then asks for none
    STREAMS.order.clear()
    with (
        mock.patch.object(torch.Tensor, "pin_memory", lambda self, device=None: self),
        mock.patch.object(torch.cuda, "_lazy_init", lambda: None),
        mock.patch.object(torch.cuda, "Event", Event),
        mock.patch.object(torch.cuda, "Stream", Stream),
        mock.patch.object(torch.cuda, "stream", _on_stream),
        mock.patch.object(torch.cuda, "current_stream", lambda device=None: device),
        mock.patch.object(
            torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True
        ),
        PretendDevice() as device,
    ):
        yield device
