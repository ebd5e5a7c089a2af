"""3x3 convolutions for CPUs with a quarter of the multiplications of the direct sum.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016: F(4 x 4, 3 x 3). Each
input tile of 6 x 6 pixels and each filter is taken as a polynomial and evaluated at six points, in
both directions (input and filter transform). Products of these 36 values are summed over the
channels (batched GEMM) and interpolated to an output tile of 4 x 4 pixels (output transform).

The points decide the rounding errors (Barabasz et al., Error Analysis and Improving the Accuracy of
Winograd Convolution for Deep Neural Networks, 2020): these give two to three times the error of the
direct sum in float32.

Maps and weights in bf16 are read and written as such, and everything between is float32. That is
faster than oneDNN's direct sum with bf16 units (but for AMX), and more exact.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swahr.acceleration.vector_code import FEATURES, LANES
from swahr.acceleration.winograd_kernels import (
    ARGUMENTS,
    GEMM_ROWS,
    INNER_POINT,
    OUTER_POINT,
    POINTS,
    count_tiles,
    scratch_layout,
    thread_function,
)

logger = logging.getLogger("swahr")

CACHE = 200_000  # bytes of transformed input tiles that a thread makes at a time
MIN_PIXELS = 64  # of a feature map
MIN_PRODUCTS = 5_000_000  # multiplications of the direct sum for one image
# In bf16 oneDNN reads an eighth of the memory for its filters, which decides for small maps.
MIN_PIXELS_BF16 = 512
HAS_AMX = "+amx-bf16" in FEATURES  # units for whole bf16 matrices, with which oneDNN is faster


# Largest error of the self-test for maps of each type, in units of their largest value.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2}


class Filters(NamedTuple):
    """Transformed filters; they take four times the memory of the weight (C', C, 3, 3).

    values: (36, C' / width, C, width), `width` output channels side by side.
    vectors: how many of the processor's vectors these are.
    """

    values: Tensor
    vectors: int


def transform_filters(weight: Tensor, dtype: torch.dtype = torch.float64) -> Filters:
    """The filter transform of a weight (C', C, 3, 3); see `can_convolve` for C and C'.

    dtype: of the computation. The result is float32.
    """
    out_channels, in_channels = weight.shape[:2]
    vectors = _vectors(out_channels)
    width = vectors * LANES
    rows = weight.reshape(out_channels // width, width, in_channels, 9)
    columns = rows.permute(3, 0, 2, 1).reshape(9, -1).to(dtype)
    values = (filter_matrix(dtype) @ columns).float()
    return Filters(values.view(POINTS, out_channels // width, in_channels, width), vectors)


@cache
def filter_matrix(dtype: torch.dtype) -> Tensor:
    """Lavin and Gray's G along both axes: (36, 9), nine weights of a filter -> 36 points."""
    points = np.array([0, INNER_POINT, -INNER_POINT, OUTER_POINT, -OUTER_POINT])
    distances = np.prod(  # products of the distances to the other points
        points[:, None] - points + np.eye(5), 1, keepdims=True
    )
    matrix = np.vstack([points[:, None] ** np.arange(3) / distances, [0, 0, 1]])
    return torch.from_numpy(np.kron(matrix, matrix)).to(dtype)


def is_plain_3x3(conv: nn.Conv2d) -> bool:
    """Whether a layer has filters of 3x3 on all channels, and pads its maps by a pixel of zeros."""
    return (
        (conv.kernel_size, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1))
        and conv.padding_mode == "zeros"
        and conv.groups == 1
    )


def can_convolve(conv: nn.Conv2d, x: Tensor, total: Tensor | None = None) -> bool:
    """Whether `convolve` can compute the layer for x and is faster; the batch size does not matter.

    x: (B, C, h, w). total: what is added to the result, if anything.
    """
    batch, channels, height, width = x.shape
    pixels = height * width
    products = 9 * pixels
    # Too small to fill the registers, too narrow to fill the tiles, or too little work to start.
    is_faster = (
        pixels >= (MIN_PIXELS if x.dtype == torch.float32 else MIN_PIXELS_BF16)
        and 2 * POINTS * count_tiles(height) * count_tiles(width) <= products
        and products * channels * conv.out_channels >= MIN_PRODUCTS
    )
    return (
        is_plain_3x3(conv)
        and conv.stride == (1, 1)
        and conv.weight.dtype == x.dtype
        and x.dtype in TOLERANCE
        and (x.dtype == torch.float32 or not HAS_AMX)
        and is_faster
        and batch > 0
        and channels % LANES == 0
        and _vectors(conv.out_channels) > 0
        and all(is_readable(maps, x.dtype) for maps in (x, total) if maps is not None)
        and is_available(x.dtype)
    )


def convolve(
    x: Tensor,
    filters: Filters,
    bias: Tensor | None = None,
    total: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """F.conv2d(x, weight, bias, padding=1) up to rounding.

    x: (B, C, h, w), float32 or bf16 and channels_last, as the result (B, C', h, w) is. filters:
    transform_filters(weight). bias: (C',). total: of x's type, is added to the result before the
    ReLU and overwritten with it; it shares no memory with x. Results are the same to the bit for
    any batch, number of threads and processor. Needs a machine where `is_available(x.dtype)`.
    """
    batch, channels, height, width = x.shape
    out_channels = filters.values.shape[1] * filters.values.shape[3]
    bias = x.new_zeros(out_channels).float() if bias is None else bias.float()
    output = total
    if output is None:
        output = torch.empty(
            (batch, out_channels, height, width),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
    threads = torch.get_num_threads()
    tiles = batch * count_tiles(height) * count_tiles(width)
    tile_block = _tile_block(tiles, channels, threads)
    task_blocks = -(-tiles // tile_block)
    output_blocks = out_channels // (filters.vectors * LANES)
    _, _, size = scratch_layout(tile_block, channels, filters.vectors)
    arguments = {
        "counters": (0, 0),
        "input": x.data_ptr(),
        "filters": filters.values.data_ptr(),
        "bias": bias.data_ptr(),
        "output": output.data_ptr(),
        "scratch": scratch_memory(size * threads).data_ptr(),
        "batch": batch,
        "height": height,
        "width": width,
        "in_channels": channels,
        "out_channels": out_channels,
        "tile_block": tile_block,
        "splits": min(output_blocks, -(-threads // task_blocks)),
        "vectors": filters.vectors,
        "add": total is not None,
        "relu": relu,
    }
    run_threads(thread_function(x.dtype == torch.bfloat16), arguments, ARGUMENTS, threads)
    return output


def run_threads(
    function: Any, arguments: dict[str, Any], layout: np.dtype[Any], threads: int
) -> None:
    """Call a compiled function in each of PyTorch's threads with the address of the arguments.

    layout: the fields of the arguments, all of which are needed.
    """
    record = np.array([tuple(arguments[name] for name in layout.names or ())], layout)
    run = _openmp_parallel()
    assert run is not None, "see is_available()"
    run(function.address, record.ctypes.data, threads, 0)


def _tile_block(tiles: int, channels: int, threads: int) -> int:
    """Tiles that a thread transforms at a time; the filters are read once for each block."""
    most = min(CACHE // (4 * POINTS * channels), -(-tiles // threads))
    return min(
        max(_up_to_multiple(most, GEMM_ROWS), 2 * GEMM_ROWS), _up_to_multiple(tiles, GEMM_ROWS)
    )


def is_supported() -> bool:
    """Whether this machine has the OpenMP and the vector instructions that convolutions need."""
    return _openmp_parallel() is not None and {"+avx2", "+fma"} <= FEATURES


@cache
def is_available(dtype: torch.dtype) -> bool:
    """Whether this machine can run the convolutions of maps of a type, and they compute what
    PyTorch's compute.

    Small convolutions are compared once per process; the first one compiles the kernels.
    """
    return is_supported() and passes(lambda: _self_test(dtype), "the fast CPU convolutions")


def passes(self_test: Callable[[], str], name: str) -> bool:
    """Whether a self-test finds nothing; otherwise a warning says that `name` are not used."""
    try:
        problem = self_test()
    except Exception as error:  # whatever the compiler raises on a processor that it does not know
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    if problem:
        logger.warning("%s are not used: %s", name, problem)
    return not problem


def difference(name: str, output: Tensor, expected: Tensor) -> str:
    """What a self-test says of a result that is not PyTorch's; empty if it is, up to rounding."""
    error = float((output - expected).abs().max())
    if error <= TOLERANCE[output.dtype] * float(expected.abs().max()):
        return ""
    return f"{name} differs from PyTorch's by up to {error:.2g}"


def _self_test(dtype: torch.dtype) -> str:
    """What differs in small convolutions of each kind; empty if nothing does."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")
        return values.to(dtype)

    for vectors in (1, 2, 3):
        x = random(2, 2 * LANES, 9, 14).contiguous(memory_format=torch.channels_last)
        weight = random(vectors * LANES, 2 * LANES, 3, 3)
        bias = random(vectors * LANES)
        total = random(2, vectors * LANES, 9, 14).contiguous(memory_format=torch.channels_last)
        plain = F.conv2d(x.float(), weight.float(), bias.float(), padding=1)
        filters = transform_filters(weight)
        for name, output, expected in (
            ("convolution", convolve(x, filters, bias), plain),
            (
                "sum and ReLU",
                convolve(x, filters, bias, total.clone(), True),
                (plain + total).relu(),
            ),
        ):
            problem = difference(f"{name} to {vectors * LANES} channels", output, expected)
            if problem:
                return problem
    return ""


@cache
def _openmp_parallel() -> Callable[..., None] | None:
    """GOMP_parallel(function, its argument, number of threads, flags) of PyTorch's own OpenMP.

    Other threads would compete with PyTorch's, which keep spinning for a while after each
    operation. None if there is no such function; it exists on Linux.
    """
    try:
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


@cache
def make_forks_safe() -> None:
    """From now on, processes that are forked compute with one thread.

    OpenMP's threads do not exist in a forked process, and PyTorch would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class _Scratch(threading.local):
    """Memory for each thread that calls, which is kept: new memory is slow to write to."""

    def __init__(self) -> None:
        self.memory = self.allocate(0)

    def get(self, size: int) -> Tensor:
        if len(self.memory) < size:
            self.memory = self.allocate(size)
        return self.memory

    @staticmethod
    def allocate(size: int) -> Tensor:
        """PyTorch aligns its memory to vectors."""
        return torch.zeros(size, dtype=torch.float32, device="cpu")


_scratch = _Scratch()


def scratch_memory(size: int) -> Tensor:
    """At least `size` values of float32 with any content, the same ones for every call here."""
    return _scratch.get(size)


def is_readable(maps: Tensor, dtype: torch.dtype) -> bool:
    """Whether maps are of that type, channels_last, and in the memory of the processor."""
    return (
        maps.device.type == "cpu"
        and maps.dtype == dtype
        and maps.is_contiguous(memory_format=torch.channels_last)
    )


def _vectors(out_channels: int) -> int:
    """Vectors of output channels that are summed together; 0 if no number fits."""
    return next((count for count in (2, 3, 1) if out_channels % (count * LANES) == 0), 0)


def _up_to_multiple(value: int, factor: int) -> int:
    return -(-value // factor) * factor
