"""The loops of winograd.py, compiled for this machine's processor; see vector_code.py for how.

Every sum is made in the same order whatever the length of the vectors, so results do not depend on
the processor. The names are those of Lavin and Gray, CVPR 2016: input transform, batched GEMM,
output transform.
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
    FLOAT32,
    FLOATS,
    INT,
    INT64,
    LANES,
    MAPS,
    VECTOR,
    VectorCode,
    fetch_and_add,
    floats,
    inlined,
    uint16s,
)
from swahr.jit import callback, kernel

# F(4 x 4, 3 x 3): sides of an output tile and of the input tile that it is computed from, px.
OUTPUT_TILE = 4
INPUT_TILE = 6
POINTS = INPUT_TILE * INPUT_TILE  # values of a transformed tile
# The polynomials are evaluated at 0, +-INNER_POINT, +-OUTER_POINT and infinity.
INNER_POINT = 0.75
OUTER_POINT = 1.5
# Values between the planes of two points. Planes a power of two apart would share cache lines.
PLANE_PADDING = 16

# Tiles whose sums are made together. There are registers for 2 vectors of each, or 3.
GEMM_ROWS = 8 if LANES == 16 else 6

# The arguments of one convolution, which its threads share.
ARGUMENTS = np.dtype(
    [
        ("counters", np.int64, 2),  # threads and tasks that have been started
        # Addresses of arrays.
        ("input", np.int64),
        ("filters", np.int64),
        ("bias", np.int64),
        ("output", np.int64),
        ("scratch", np.int64),
        ("batch", np.int64),
        ("height", np.int64),
        ("width", np.int64),
        ("in_channels", np.int64),
        ("out_channels", np.int64),
        ("tile_block", np.int64),  # tiles that are transformed together, a multiple of GEMM_ROWS
        ("splits", np.int64),  # into which out_channels are divided; a task is one split of a block
        ("vectors", np.int64),  # of output channels that are summed together: an output block
        ("add", np.int64),
        ("relu", np.int64),
    ]
)


@register_jitable
def count_tiles(size: int) -> int:
    """Tiles that cover `size` pixels."""
    return (size + OUTPUT_TILE - 1) // OUTPUT_TILE


@register_jitable
def scratch_layout(tile_block: int, in_channels: int, vectors: int) -> tuple[int, int, int]:
    """Layout of a thread's memory, which starts with the transformed input.

    Offset of the products, offset of the border tile, and size of it all.
    """
    products = POINTS * plane_size(tile_block, in_channels)
    border_tile = products + POINTS * plane_size(tile_block, vectors * LANES)
    return products, border_tile, border_tile + POINTS * in_channels


@register_jitable
def plane_size(tile_block: int, channels: int) -> int:
    """From the plane (tile, channel) of one point to that of the next."""
    return tile_block * channels + PLANE_PADDING


@cache
def thread_function(bf16: bool = False) -> Any:
    """The C function that every thread calls with the address of the same ARGUMENTS.

    bf16: of maps in bf16.
    """
    function = _convolve_bf16 if bf16 else _convolve_float32
    return callback(function, types.void(types.CPointer(numba.from_dtype(ARGUMENTS))))


def _convolve_float32(pointer: Any) -> None:
    conv = carray(pointer, 1)[0]
    scratch, border = _thread_memory(conv)
    pixels, output = _map_sizes(conv)
    _convolve_tiles(
        conv,
        scratch,
        floats(conv.input, pixels),
        floats(conv.output, output),
        floats(border, POINTS * conv.in_channels),
    )


def _convolve_bf16(pointer: Any) -> None:
    conv = carray(pointer, 1)[0]
    scratch, border = _thread_memory(conv)
    pixels, output = _map_sizes(conv)
    _convolve_tiles(
        conv,
        scratch,
        uint16s(conv.input, pixels),
        uint16s(conv.output, output),
        uint16s(border, POINTS * conv.in_channels),
    )


@kernel
def _thread_memory(conv: Any) -> tuple[Any, int]:
    """The memory of a thread, another one at each call, and the address of its border tile."""
    _, border, size = scratch_layout(conv.tile_block, conv.in_channels, conv.vectors)
    address = conv.scratch + 4 * size * fetch_and_add(conv.counters, 0)
    return floats(address, border), address + 4 * border


@kernel
def _map_sizes(conv: Any) -> tuple[int, int]:
    """Values of the input and of the output."""
    pixels = conv.batch * conv.height * conv.width
    return pixels * conv.in_channels, pixels * conv.out_channels


@kernel
def _convolve_tiles(conv: Any, scratch: Any, pixels: Any, output: Any, border_tile: Any) -> None:
    """Work on tasks until none is left."""
    products_start, _, _ = scratch_layout(conv.tile_block, conv.in_channels, conv.vectors)
    transformed = scratch[:products_start]
    products = scratch[products_start:]
    tiles = conv.batch * count_tiles(conv.height) * count_tiles(conv.width)
    blocks = conv.out_channels // (conv.vectors * LANES)
    tasks = -(-tiles // conv.tile_block) * conv.splits
    while True:
        task = fetch_and_add(conv.counters, 1)
        if task >= tasks:
            break
        first = task // conv.splits * conv.tile_block
        split = task % conv.splits
        count = min(conv.tile_block, tiles - first)
        input_transform(conv, first, count, pixels, transformed, border_tile)
        for block in range(split * blocks // conv.splits, (split + 1) * blocks // conv.splits):
            _batched_gemm(conv, count, block, transformed, products)
            _output_transform(conv, first, count, block, products, output, border_tile)


@kernel
def input_transform(
    conv: Any, first: int, count: int, pixels: Any, transformed: Any, border_tile: Any
) -> None:
    """Transform `count` input tiles: a plane (tile, channel) for each of the 36 points."""
    channels = conv.in_channels
    plane = plane_size(conv.tile_block, channels)
    for tile in range(count):
        image, y, x = tile_position(conv, first + tile)
        source, start, row_stride = find_tile(
            conv, pixels, channels, image, y - 1, x - 1, INPUT_TILE, border_tile
        )
        for channel in range(0, channels, LANES):
            _transform_input_tile(
                source,
                start + channel,
                row_stride,
                channels,
                transformed,
                tile * channels + channel,
                plane,
            )


@kernel
def find_tile(
    conv: Any, pixels: Any, channels: int, image: int, y: int, x: int, side: int, border_tile: Any
) -> tuple[Any, int, int]:
    """Where the tile of `side` pixels at (y, x) of an image is: array, start and row stride.

    If it is not wholly inside of the map, it is copied to border_tile, with zeros around the map.
    """
    height = conv.height
    width = conv.width
    row_stride = width * channels
    start = ((image * height + y) * width + x) * channels
    if y >= 0 and x >= 0 and y + side <= height and x + side <= width:
        return pixels, start, row_stride
    top = max(0, -y)
    left = max(0, -x)
    border_tile[: side * side * channels] = 0
    _copy_pixels(
        pixels,
        start + top * row_stride + left * channels,
        row_stride,
        channels,
        border_tile,
        (top * side + left) * channels,
        side * channels,
        channels,
        min(side, height - y) - top,
        min(side, width - x) - left,
        channels,
    )
    return border_tile, 0, side * channels


@kernel
def _batched_gemm(conv: Any, count: int, block: int, transformed: Any, products: Any) -> None:
    """Sums over the input channels for one output block: a plane (tile, output) for each point."""
    in_channels = conv.in_channels
    out_channels = conv.out_channels
    vectors = conv.vectors
    filters = floats(conv.filters, POINTS * in_channels * out_channels)
    outputs = vectors * LANES
    for point in range(POINTS):
        right = (point * out_channels + block * outputs) * in_channels
        left = point * plane_size(conv.tile_block, in_channels)
        sums = point * plane_size(conv.tile_block, outputs)
        for _ in range(0, count, GEMM_ROWS):
            if vectors == 3:
                _gemm_3(transformed, left, filters, right, in_channels, products, sums)
            elif vectors == 2:
                _gemm_2(transformed, left, filters, right, in_channels, products, sums)
            else:
                _gemm_1(transformed, left, filters, right, in_channels, products, sums)
            left = left + GEMM_ROWS * in_channels
            sums = sums + GEMM_ROWS * outputs


@kernel
def _output_transform(
    conv: Any, first: int, count: int, block: int, products: Any, output: Any, border_tile: Any
) -> None:
    """Transform the products of one output block back to pixels and write these to the output."""
    height = conv.height
    width = conv.width
    channels = conv.out_channels
    vectors = conv.vectors
    add = conv.add
    block_channels = vectors * LANES
    bias = floats(conv.bias, channels)
    lowest = np.float32(0 if conv.relu else -np.inf)
    plane = plane_size(conv.tile_block, block_channels)
    for tile in range(count):
        image, y, x = tile_position(conv, first + tile)
        rows = min(OUTPUT_TILE, height - y)
        columns = min(OUTPUT_TILE, width - x)
        whole = rows == OUTPUT_TILE and columns == OUTPUT_TILE
        for vector in range(vectors):
            product = tile * block_channels + vector * LANES
            channel = block * block_channels + vector * LANES
            start = ((image * height + y) * width + x) * channels + channel
            row_stride = width * channels
            target = output
            target_start = start
            target_row_stride = row_stride
            target_pixel_stride = channels
            if not whole:
                target = border_tile
                target_start = 0
                target_row_stride = OUTPUT_TILE * LANES
                target_pixel_stride = LANES
                if add:
                    _copy_pixels(
                        output,
                        start,
                        row_stride,
                        channels,
                        border_tile,
                        0,
                        target_row_stride,
                        target_pixel_stride,
                        rows,
                        columns,
                        LANES,
                    )
            if add:
                _add_output_tile(
                    products,
                    product,
                    plane,
                    bias,
                    channel,
                    lowest,
                    target,
                    target_start,
                    target_row_stride,
                    target_pixel_stride,
                )
            else:
                _store_output_tile(
                    products,
                    product,
                    plane,
                    bias,
                    channel,
                    lowest,
                    target,
                    target_start,
                    target_row_stride,
                    target_pixel_stride,
                )
            if not whole:
                _copy_pixels(
                    border_tile,
                    0,
                    target_row_stride,
                    target_pixel_stride,
                    output,
                    start,
                    row_stride,
                    channels,
                    rows,
                    columns,
                    LANES,
                )


@kernel
def _copy_pixels(
    source: Any,
    source_start: int,
    source_row_stride: int,
    source_pixel_stride: int,
    target: Any,
    target_start: int,
    target_row_stride: int,
    target_pixel_stride: int,
    rows: int,
    columns: int,
    channels: int,
) -> None:
    for i in range(rows):
        for j in range(columns):
            for k in range(0, channels, LANES):
                _copy_vector(
                    source,
                    source_start + i * source_row_stride + j * source_pixel_stride + k,
                    target,
                    target_start + i * target_row_stride + j * target_pixel_stride + k,
                )


@kernel
def tile_position(conv: Any, tile: int) -> tuple[int, int, int]:
    """Image, and top left pixel (y, x), of an output tile."""
    rows = count_tiles(conv.height)
    columns = count_tiles(conv.width)
    return (
        tile // (rows * columns),
        tile // columns % rows * OUTPUT_TILE,
        tile % columns * OUTPUT_TILE,
    )


# The functions below emit LLVM instructions.


def _input_matrix(code: VectorCode, x: Sequence[ir.Value]) -> list[ir.Value]:
    """Lavin and Gray's B^T: six pixels of a row -> values at the six points.

    The coefficients for a point are those of the polynomial whose roots are the other points; for
    infinity: x (x^2 - INNER_POINT^2) (x^2 - OUTER_POINT^2).
    """
    inner = INNER_POINT**2
    outer = OUTER_POINT**2
    values = [code.multiply_add(inner * outer, x[0], code.multiply_add(-inner - outer, x[2], x[4]))]
    for point, other in ((INNER_POINT, outer), (OUTER_POINT, inner)):
        even = code.multiply_add(-other, x[2], x[4])
        odd = code.multiply_add(-other, x[1], x[3])
        values.append(code.multiply_add(point, odd, even))
        values.append(code.multiply_add(-point, odd, even))
    infinity = code.multiply_add(inner * outer, x[1], code.multiply_add(-inner - outer, x[3], x[5]))
    return [*values, infinity]


def _output_matrix(code: VectorCode, x: Sequence[ir.Value]) -> list[ir.Value]:
    """Lavin and Gray's A^T: values at the six points -> four pixels of a row.

    The coefficients of pixel n are the points to the power of n.
    """
    add = code.builder.fadd
    subtract = code.builder.fsub
    inner = add(x[1], x[2])
    inner_odd = subtract(x[1], x[2])
    outer = add(x[3], x[4])
    outer_odd = subtract(x[3], x[4])
    return [
        add(x[0], add(inner, outer)),
        code.multiply_add(OUTER_POINT, outer_odd, code.multiply_add(INNER_POINT, inner_odd)),
        code.multiply_add(OUTER_POINT**2, outer, code.multiply_add(INNER_POINT**2, inner)),
        code.multiply_add(
            OUTER_POINT**3, outer_odd, code.multiply_add(INNER_POINT**3, inner_odd, x[5])
        ),
    ]


def _along_both_axes(
    code: VectorCode, matrix: Callable[..., list[ir.Value]], square: list[list[ir.Value]]
) -> list[list[ir.Value]]:
    """Multiply with the matrix along the rows, then along the columns."""
    for _ in range(2):
        square = [list(column) for column in zip(*(matrix(code, row) for row in square))]
    return square


def tile_emitter(side: int, matrix: Callable[..., list[ir.Value]]) -> Callable[..., None]:
    """Reads a tile of `side` x `side` pixels and writes its values at the 36 points.

    matrix: of the transform, `side` values -> INPUT_TILE values.
    """

    def emit(
        code: VectorCode,
        source: ir.Value,
        start: ir.Value,
        row_stride: ir.Value,
        pixel_stride: ir.Value,
        transformed: ir.Value,
        transformed_start: ir.Value,
        plane: ir.Value,
    ) -> None:
        tile = [
            [
                code.load(source, code.offset(code.offset(start, row_stride, i), pixel_stride, j))
                for j in range(side)
            ]
            for i in range(side)
        ]
        for i, row in enumerate(_along_both_axes(code, matrix, tile)):
            for j, value in enumerate(row):
                point = INPUT_TILE * i + j
                code.store(value, transformed, code.offset(transformed_start, plane, point))

    return emit


def _output_tile_emitter(add: bool) -> Callable[..., None]:
    """add: the output holds values that are added to the result, before the ReLU."""

    def emit(
        code: VectorCode,
        products: ir.Value,
        products_start: ir.Value,
        plane: ir.Value,
        bias: ir.Value,
        channel: ir.Value,
        lowest: ir.Value,
        output: ir.Value,
        start: ir.Value,
        row_stride: ir.Value,
        pixel_stride: ir.Value,
    ) -> None:
        values = [
            [
                code.load(products, code.offset(products_start, plane, INPUT_TILE * i + j))
                for j in range(INPUT_TILE)
            ]
            for i in range(INPUT_TILE)
        ]
        shift = code.load(bias, channel)
        limit = code.broadcast(lowest)
        for i, row in enumerate(_along_both_axes(code, _output_matrix, values)):
            for j, value in enumerate(row):
                pixel = code.offset(code.offset(start, row_stride, i), pixel_stride, j)
                value = code.builder.fadd(value, shift)
                if add:
                    value = code.builder.fadd(value, code.load(output, pixel))
                below = code.builder.fcmp_ordered("<", value, limit)  # false for NaN, which stays
                code.store(code.builder.select(below, limit, value), output, pixel)

    return emit


def _gemm_emitter(vectors: int) -> Callable[..., None]:
    """left (tile, channel) x right (channel, output) -> GEMM_ROWS x (vectors x LANES) sums.

    The sums over `depth` channels stay in registers.
    """

    def emit(
        code: VectorCode,
        left: ir.Value,
        left_start: ir.Value,
        right: ir.Value,
        right_start: ir.Value,
        depth: ir.Value,
        sums: ir.Value,
        sums_start: ir.Value,
    ) -> None:
        builder = code.builder
        width = vectors * LANES
        tiles = [
            builder.gep(left, [code.offset(left_start, depth, row)]) for row in range(GEMM_ROWS)
        ]
        first_weights = builder.gep(right, [right_start])
        before = builder.block
        loop = builder.append_basic_block()
        after = builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        channel = builder.phi(INT)
        totals = [builder.phi(VECTOR) for _ in range(GEMM_ROWS * vectors)]
        weights_start = builder.mul(channel, INT(width))
        weights = [
            code.load(first_weights, builder.add(weights_start, INT(v * LANES)))
            for v in range(vectors)
        ]
        new_totals = []
        for row in range(GEMM_ROWS):
            value = code.broadcast(builder.load(builder.gep(tiles[row], [channel])))
            for weight, total in zip(weights, totals[row * vectors :]):
                new_totals.append(builder.call(code.fma, [value, weight, total]))
        next_channel = builder.add(channel, INT(1))
        for phi, first, later in zip(
            [channel, *totals],
            [INT(0), *[ir.Constant(VECTOR, None)] * len(totals)],
            [next_channel, *new_totals],
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(later, loop)
        builder.cbranch(builder.icmp_signed("<", next_channel, depth), loop, after)
        builder.position_at_end(after)
        for row in range(GEMM_ROWS):
            for v in range(vectors):
                offset = builder.add(sums_start, INT(row * width + v * LANES))
                code.store(new_totals[row * vectors + v], sums, offset)

    return emit


def _emit_copy(
    code: VectorCode,
    source: ir.Value,
    source_start: ir.Value,
    target: ir.Value,
    target_start: ir.Value,
) -> None:
    code.store(code.load(source, source_start), target, target_start)


_OUTPUT_ARGUMENTS = (FLOATS, INT64, INT64, FLOATS, INT64, FLOAT32, MAPS, INT64, INT64, INT64)
_GEMM_ARGUMENTS = (FLOATS, INT64, FLOATS, INT64, INT64, FLOATS, INT64)
_transform_input_tile = inlined(
    tile_emitter(INPUT_TILE, _input_matrix), MAPS, INT64, INT64, INT64, FLOATS, INT64, INT64
)
_copy_vector = inlined(_emit_copy, MAPS, INT64, MAPS, INT64)
_store_output_tile = inlined(_output_tile_emitter(add=False), *_OUTPUT_ARGUMENTS)
_add_output_tile = inlined(_output_tile_emitter(add=True), *_OUTPUT_ARGUMENTS)
_gemm_1 = inlined(_gemm_emitter(1), *_GEMM_ARGUMENTS)
_gemm_2 = inlined(_gemm_emitter(2), *_GEMM_ARGUMENTS)
_gemm_3 = inlined(_gemm_emitter(3), *_GEMM_ARGUMENTS)
