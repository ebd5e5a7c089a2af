"""The loops of conv_training.py's gradients of the weights, see vector_code.py.

Winograd: the products of winograd_kernels.py, for each of the 36 points, are linear in the
transformed filters. So the gradient of these is the sum over all tiles of the transformed input
times the transformed gradient of the output, whose transform is the transpose of the output
transform.

Direct, for strides and small maps: the gradient of each of the nine weights of a filter is the sum
over all output pixels of the input pixel that the weight reads there times the gradient of the
output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import register_jitable

from swahr.acceleration.vector_code import (
    FLOATS,
    INT,
    INT64,
    LANES,
    VECTOR,
    VectorCode,
    fetch_and_add,
    floats,
    inlined,
)
from swahr.acceleration.winograd_kernels import (
    INNER_POINT,
    OUTER_POINT,
    OUTPUT_TILE,
    POINTS,
    count_tiles,
    find_tile,
    input_transform,
    plane_size,
    tile_emitter,
    tile_position,
)
from swahr.jit import callback, kernel

# Input channels whose sums are made together. There are registers for 2 vectors of each.
SUM_ROWS = 8 if LANES == 16 else 4

# The arguments of one gradient, which its threads share.
ARGUMENTS = np.dtype(
    [
        ("counters", np.int64, 1),  # parts that have been started
        # Addresses of arrays.
        ("input", np.int64),
        ("gradient", np.int64),  # of the output
        ("sums", np.int64),  # (part, point or weight, input channel, output channel)
        ("scratch", np.int64),
        ("batch", np.int64),
        ("height", np.int64),  # of the input
        ("width", np.int64),
        ("stride", np.int64),
        ("in_channels", np.int64),
        ("out_channels", np.int64),
        ("tile_block", np.int64),  # tiles that are transformed together
        ("winograd", np.int64),  # sums at the points of Winograd's algorithm, else of weights
        ("parts", np.int64),  # into which the tiles, or the rows of the output, are divided
        ("vectors", np.int64),  # of output channels that are summed together: 1 or 2
    ]
)


@register_jitable
def scratch_layout(tile_block: int, in_channels: int, out_channels: int) -> tuple[int, int, int]:
    """Layout of a part's memory, which starts with the transformed input.

    Offset of the transformed gradient, offset of the border tile, and size of it all.
    """
    gradient = POINTS * plane_size(tile_block, in_channels)
    border_tile = gradient + POINTS * plane_size(tile_block, out_channels)
    return gradient, border_tile, border_tile + POINTS * max(in_channels, out_channels)


@cache
def thread_function() -> Any:
    """The C function that every thread calls with the address of the same ARGUMENTS."""
    return callback(_sum_parts, types.void(types.CPointer(numba.from_dtype(ARGUMENTS))))


def _sum_parts(pointer: Any) -> None:
    """Work on parts until none is left. What is in a part decides its sums, whichever thread makes
    them.
    """
    conv = carray(pointer, 1)[0]
    while True:
        part = fetch_and_add(conv.counters, 0)
        if part >= conv.parts:
            break
        if conv.winograd:
            _sum_part_of_tiles(conv, part)
        else:
            _sum_part_of_rows(conv, part)


@kernel
def _sum_part_of_tiles(conv: Any, part: int) -> None:
    in_channels = conv.in_channels
    out_channels = conv.out_channels
    pixels = conv.batch * conv.height * conv.width
    maps = floats(conv.input, pixels * in_channels)
    gradient = floats(conv.gradient, pixels * out_channels)
    gradient_start, border_start, size = scratch_layout(conv.tile_block, in_channels, out_channels)
    scratch = floats(conv.scratch + 4 * size * part, size)
    transformed = scratch[:gradient_start]
    transformed_gradient = scratch[gradient_start:border_start]
    border_tile = scratch[border_start:]
    count_sums = POINTS * in_channels * out_channels
    sums = floats(conv.sums + 4 * count_sums * part, count_sums)
    sums[:] = 0
    tiles = conv.batch * count_tiles(conv.height) * count_tiles(conv.width)
    end = tiles * (part + 1) // conv.parts
    for first in range(tiles * part // conv.parts, end, conv.tile_block):
        count = min(conv.tile_block, end - first)
        input_transform(conv, first, count, maps, transformed, border_tile)
        _gradient_transform(conv, first, count, gradient, transformed_gradient, border_tile)
        _add_products(conv, count, transformed, transformed_gradient, sums)


@kernel
def _gradient_transform(
    conv: Any, first: int, count: int, gradient: Any, transformed: Any, border_tile: Any
) -> None:
    """Transform `count` tiles of the gradient: a plane (tile, channel) for each point."""
    channels = conv.out_channels
    plane = plane_size(conv.tile_block, channels)
    for tile in range(count):
        image, y, x = tile_position(conv, first + tile)
        source, start, row_stride = find_tile(
            conv, gradient, channels, image, y, x, OUTPUT_TILE, border_tile
        )
        for channel in range(0, channels, LANES):
            _transform_gradient_tile(
                source,
                start + channel,
                row_stride,
                channels,
                transformed,
                tile * channels + channel,
                plane,
            )


@kernel
def _add_products(
    conv: Any, count: int, transformed: Any, transformed_gradient: Any, sums: Any
) -> None:
    """Add the products of `count` tiles to the sums of each point."""
    for point in range(POINTS):
        _add_outer_products(
            conv,
            transformed,
            point * plane_size(conv.tile_block, conv.in_channels),
            conv.in_channels,
            transformed_gradient,
            point * plane_size(conv.tile_block, conv.out_channels),
            count,
            sums,
            point,
        )


@kernel
def _sum_part_of_rows(conv: Any, part: int) -> None:
    channels = conv.in_channels
    stride = conv.stride
    height = _output_size(conv.height, stride)
    width = _output_size(conv.width, stride)
    maps = floats(conv.input, conv.batch * conv.height * conv.width * channels)
    gradient = floats(conv.gradient, conv.batch * height * width * conv.out_channels)
    count_sums = 9 * channels * conv.out_channels
    sums = floats(conv.sums + 4 * count_sums * part, count_sums)
    sums[:] = 0
    rows = conv.batch * height
    for row in range(rows * part // conv.parts, rows * (part + 1) // conv.parts):
        image = row // height
        for i in range(3):
            y = row % height * stride + i - 1
            if y < 0 or y >= conv.height:
                continue
            for j in range(3):
                # The first and the last pixel of the output for which the weight reads a pixel.
                first = 1 if j == 0 else 0
                last = min(width - 1, (conv.width - j) // stride)
                if first <= last:
                    pixel = (image * conv.height + y) * conv.width + first * stride + j - 1
                    _add_outer_products(
                        conv,
                        maps,
                        pixel * channels,
                        stride * channels,
                        gradient,
                        (row * width + first) * conv.out_channels,
                        last + 1 - first,
                        sums,
                        3 * i + j,
                    )


@register_jitable
def _output_size(size: int, stride: int) -> int:
    """Of a convolution of 3 pixels with a padding of 1."""
    return (size - 1) // stride + 1


@kernel
def _add_outer_products(
    conv: Any,
    left: Any,
    left_start: int,
    left_stride: int,
    right: Any,
    right_start: int,
    count: int,
    sums: Any,
    plane: int,
) -> None:
    """Add the outer products of `count` pairs to a plane (input channel, output channel) of sums.

    left: input channels, left_stride apart from pair to pair. right: output channels side by side.
    """
    in_channels = conv.in_channels
    out_channels = conv.out_channels
    vectors = conv.vectors
    for output in range(0, out_channels, vectors * LANES):
        for channel in range(0, in_channels, SUM_ROWS):
            total = (plane * in_channels + channel) * out_channels + output
            if vectors == 2:
                _add_2(
                    left,
                    left_start + channel,
                    left_stride,
                    right,
                    right_start + output,
                    out_channels,
                    count,
                    sums,
                    total,
                )
            else:
                _add_1(
                    left,
                    left_start + channel,
                    left_stride,
                    right,
                    right_start + output,
                    out_channels,
                    count,
                    sums,
                    total,
                )


# The functions below emit LLVM instructions.


def _gradient_matrix(code: VectorCode, x: Sequence[ir.Value]) -> list[ir.Value]:
    """Lavin and Gray's A, the transpose of the output matrix: four pixels -> six points.

    The pixels are the coefficients of a polynomial, which is evaluated at the points.
    """
    values = [x[0]]
    for point in (INNER_POINT, OUTER_POINT):
        even = code.multiply_add(point**2, x[2], x[0])
        odd = code.multiply_add(point**2, x[3], x[1])
        values.append(code.multiply_add(point, odd, even))
        values.append(code.multiply_add(-point, odd, even))
    return [*values, x[3]]


def _add_emitter(vectors: int) -> Callable[..., None]:
    """left (tile, row) x right (tile, output), summed over the tiles and added to sums.

    SUM_ROWS x (vectors x LANES) sums stay in registers. The rows of sums are as far apart as the
    tiles of `right`.
    """

    def emit(
        code: VectorCode,
        left: ir.Value,
        left_start: ir.Value,
        left_stride: ir.Value,
        right: ir.Value,
        right_start: ir.Value,
        right_stride: ir.Value,
        depth: ir.Value,
        sums: ir.Value,
        sums_start: ir.Value,
    ) -> None:
        builder = code.builder
        places = [
            builder.add(code.offset(sums_start, right_stride, row), INT(v * LANES))
            for row in range(SUM_ROWS)
            for v in range(vectors)
        ]
        starts = [code.load(sums, place) for place in places]
        before = builder.block
        loop = builder.append_basic_block()
        after = builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        tile = builder.phi(INT)
        left_offset = builder.phi(INT)
        right_offset = builder.phi(INT)
        totals = [builder.phi(VECTOR) for _ in places]
        factors = [
            code.load(right, builder.add(right_offset, INT(v * LANES))) for v in range(vectors)
        ]
        new_totals = []
        for row in range(SUM_ROWS):
            pointer = builder.gep(left, [builder.add(left_offset, INT(row))])
            value = code.broadcast(builder.load(pointer))
            for factor, total in zip(factors, totals[row * vectors :]):
                new_totals.append(builder.call(code.fma, [value, factor, total]))
        next_tile = builder.add(tile, INT(1))
        for phi, first, later in zip(
            [tile, left_offset, right_offset, *totals],
            [INT(0), left_start, right_start, *starts],
            [
                next_tile,
                builder.add(left_offset, left_stride),
                builder.add(right_offset, right_stride),
                *new_totals,
            ],
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(later, loop)
        builder.cbranch(builder.icmp_signed("<", next_tile, depth), loop, after)
        builder.position_at_end(after)
        for place, total in zip(places, new_totals):
            code.store(total, sums, place)

    return emit


_ADD_ARGUMENTS = (FLOATS, INT64, INT64, FLOATS, INT64, INT64, INT64, FLOATS, INT64)
_transform_gradient_tile = inlined(
    tile_emitter(OUTPUT_TILE, _gradient_matrix), FLOATS, INT64, INT64, INT64, FLOATS, INT64, INT64
)
_add_1 = inlined(_add_emitter(1), *_ADD_ARGUMENTS)
_add_2 = inlined(_add_emitter(2), *_ADD_ARGUMENTS)
