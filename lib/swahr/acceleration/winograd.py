"""3x3 convolutions by way of fewer multiplications, for CPUs: a quarter of those of the direct sum.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016: F(4 x 4, 3 x 3). A
window of 6 x 6 pixels and the filter are taken as polynomials and evaluated at six points, in both
directions; products of these 36 values, summed over the channels, are values of the 4 x 4 results,
which are interpolated.

The points decide the rounding errors (Barabasz et al., Error Analysis and Improving the Accuracy of
Winograd Convolution for Deep Neural Networks, 2020): those here leave two to three times the error
of the direct sum in float32.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from swahr.acceleration.winograd_kernels import (
    FAR,
    FEATURES,
    JOB,
    LANES,
    NEAR,
    PLANES,
    ROWS,
    count_tiles,
    scratch_layout,
    worker,
)

CACHE = 200_000  # bytes: the values of as many windows as a thread takes at a time; results need less beside them
LEAST_PIXELS = 64
LEAST_WORK = 5_000_000  # of one image's map, and multiplications of the direct sum


class Filters(NamedTuple):
    """What `convolve` takes in place of a weight (C', C, 3, 3): four times as much memory.

    values: (36, C' / width, C, width): the filters at the points, `width` outputs side by side.
    vectors: how many of the processor's vectors these are.
    """

    values: Tensor
    vectors: int


def transform_filters(weight: Tensor) -> Filters:
    """Filters (C', C, 3, 3), float32, evaluated at the points; `can_convolve` says for which C and
    C'.
    """
    outputs, channels = weight.shape[:2]
    points = np.array([0, NEAR, -NEAR, FAR, -FAR])
    distances = np.prod(
        points[:, None] - points + np.eye(5), 1, keepdims=True
    )  # to the other points
    at_points = torch.from_numpy(
        np.vstack([points[:, None] ** np.arange(3) / distances, [0, 0, 1]])
    )
    values = torch.einsum("ai,bj,ocij->abco", at_points, at_points, weight.double()).float()
    vectors = _vectors(outputs)
    width = vectors * LANES
    return Filters(
        values.reshape(PLANES, channels, outputs // width, width).transpose(1, 2).contiguous(),
        vectors,
    )


def can_convolve(conv: nn.Conv2d, x: Tensor, total: Tensor | None = None) -> bool:
    """Whether `convolve` can do what the layer does to x, on this machine, and is sooner; whatever
    the batch.
    """
    plain = (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == (
        (3, 3),
        (1, 1),
        (1, 1),
        (1, 1),
    )
    batch, channels, height, width = x.shape
    # Small maps fill too few registers, thin ones too little of their tiles, and little work is not
    # worth the start.
    pixels = height * width
    products = 9 * height * width
    pays = (
        pixels >= LEAST_PIXELS
        and 2 * PLANES * count_tiles(height) * count_tiles(width) <= products
        and products * channels * conv.out_channels >= LEAST_WORK
    )
    return (
        plain
        and conv.groups == 1
        and conv.bias is not None
        and conv.weight.dtype == torch.float32
        and pays
        and batch > 0
        and channels % LANES == 0
        and _vectors(conv.out_channels) > 0
        and all(_is_readable(maps) for maps in (x, total) if maps is not None)
        and _parallel() is not None
    )


def convolve(
    x: Tensor, filters: Filters, bias: Tensor, total: Tensor | None = None, relu: bool = False
) -> Tensor:
    """F.conv2d(x, weight, bias, padding=1) up to rounding: (B, C, h, w) -> (B, C', h, w), float32
    and channels_last.

    filters: transform_filters(weight). total, where given, is added to the result before the ReLU,
    and is overwritten with it; it shares no memory with x. Results are the same to the bit for any
    batch, number of threads and processor.
    """
    batch, channels, height, width = x.shape
    outputs = len(bias)
    results = total
    if results is None:
        results = torch.empty(
            (batch, outputs, height, width),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
    threads = torch.get_num_threads()
    tiles = batch * count_tiles(height) * count_tiles(width)
    most = min(CACHE // (4 * PLANES * channels), -(-tiles // threads))
    block = min(
        max(_up_to_multiple(most, ROWS), 2 * ROWS), _up_to_multiple(tiles, ROWS)
    )  # filters are read for each
    blocks = -(-tiles // block)
    panels = outputs // (filters.vectors * LANES)
    _, _, size = scratch_layout(block, channels, filters.vectors)
    scratch = _scratch.of(size * threads)
    job = {
        "begun": (0, 0),
        "images": x.data_ptr(),
        "filters": filters.values.data_ptr(),
        "bias": bias.data_ptr(),
        "results": results.data_ptr(),
        "scratch": scratch.data_ptr(),
        "batch": batch,
        "height": height,
        "width": width,
        "channels": channels,
        "outputs": outputs,
        "block": block,
        "parts": min(panels, -(-threads // blocks)),
        "vectors": filters.vectors,
        "add": total is not None,
        "relu": relu,
    }
    record = np.array([tuple(job[name] for name in JOB.names or ())], JOB)
    _parallel()(worker().address, record.ctypes.data, threads, 0)  # type: ignore[misc]  # as can_convolve said
    return results


@cache
def _parallel() -> Callable[..., None] | None:
    """GOMP_parallel(function, its argument, number of threads, flags) of the OpenMP that PyTorch
    itself works with.

    Threads of another kind would compete with PyTorch's, which keep spinning for a while after each
    operation. None where there is no such function (it is there on Linux) or the processor has no
    wide multiply-add.
    """
    try:
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function if {"+avx2", "+fma"} <= FEATURES else None


class _Scratch(threading.local):
    """Memory for each thread that calls, kept: new memory is slow to write to."""

    def __init__(self) -> None:
        self.kept = self.new(0)

    def of(self, size: int) -> Tensor:
        if len(self.kept) < size:
            self.kept = self.new(size)
        return self.kept

    @staticmethod
    def new(size: int) -> Tensor:
        """PyTorch's memory begins where a vector does."""
        return torch.zeros(size, dtype=torch.float32, device="cpu")


_scratch = _Scratch()


def _is_readable(maps: Tensor) -> bool:
    return (
        maps.device.type == "cpu"
        and maps.dtype == torch.float32
        and maps.is_contiguous(memory_format=torch.channels_last)
    )


def _vectors(outputs: int) -> int:
    """How many vectors of outputs are summed together; 0 where none fit."""
    return next((vectors for vectors in (2, 3, 1) if outputs % (vectors * LANES) == 0), 0)


def _up_to_multiple(number: int, of: int) -> int:
    return -(-number // of) * of
