"""The loops of winograd.py, compiled for this machine's processor.

Sums have to stay in the processor's vector registers, for which Numba has no type. So operations on
a few vectors at a time are emitted as LLVM instructions, and everything around them is Numba.
Arrays are one-dimensional; offsets and strides are counted in values, and neighbouring values are
channels. Maps are float32, or bf16 as uint16, which Numba has no type for; everything else is
float32. Every sum is made in the same order whatever the length of the vectors, so results do not
depend on the processor.

The names are those of Lavin and Gray, CVPR 2016: input transform, batched GEMM, output transform.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, register_jitable

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

FEATURES = set(
    (numba.config.CPU_FEATURES or get_host_cpu_features()).split(",")  # type: ignore[attr-defined]
)
LANES = 16 if "+avx512f" in FEATURES else 8  # values in a vector
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
    products = POINTS * _plane_size(tile_block, in_channels)
    border_tile = products + POINTS * _plane_size(tile_block, vectors * LANES)
    return products, border_tile, border_tile + POINTS * in_channels


@register_jitable
def _plane_size(tile_block: int, channels: int) -> int:
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
        _floats(conv.input, pixels),
        _floats(conv.output, output),
        _floats(border, POINTS * conv.in_channels),
    )


def _convolve_bf16(pointer: Any) -> None:
    conv = carray(pointer, 1)[0]
    scratch, border = _thread_memory(conv)
    pixels, output = _map_sizes(conv)
    _convolve_tiles(
        conv,
        scratch,
        _uint16s(conv.input, pixels),
        _uint16s(conv.output, output),
        _uint16s(border, POINTS * conv.in_channels),
    )


@kernel
def _thread_memory(conv: Any) -> tuple[Any, int]:
    """The memory of a thread, another one at each call, and the address of its border tile."""
    _, border, size = scratch_layout(conv.tile_block, conv.in_channels, conv.vectors)
    address = conv.scratch + 4 * size * _fetch_and_add(conv.counters, 0)
    return _floats(address, border), address + 4 * border


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
        task = _fetch_and_add(conv.counters, 1)
        if task >= tasks:
            break
        first = task // conv.splits * conv.tile_block
        split = task % conv.splits
        count = min(conv.tile_block, tiles - first)
        _input_transform(conv, first, count, pixels, transformed, border_tile)
        for block in range(split * blocks // conv.splits, (split + 1) * blocks // conv.splits):
            _batched_gemm(conv, count, block, transformed, products)
            _output_transform(conv, first, count, block, products, output, border_tile)


@kernel
def _input_transform(
    conv: Any, first: int, count: int, pixels: Any, transformed: Any, border_tile: Any
) -> None:
    """Transform `count` input tiles: a plane (tile, channel) for each of the 36 points."""
    channels = conv.in_channels
    height = conv.height
    width = conv.width
    plane = _plane_size(conv.tile_block, channels)
    for tile in range(count):
        image, y, x = _tile_position(conv, first + tile)
        y = y - 1
        x = x - 1
        source = pixels
        start = ((image * height + y) * width + x) * channels
        row_stride = width * channels
        if y < 0 or x < 0 or y + INPUT_TILE > height or x + INPUT_TILE > width:
            top = max(0, -y)
            left = max(0, -x)
            border_tile[:] = 0
            _copy_pixels(
                pixels,
                start + top * row_stride + left * channels,
                row_stride,
                channels,
                border_tile,
                (top * INPUT_TILE + left) * channels,
                INPUT_TILE * channels,
                channels,
                min(INPUT_TILE, height - y) - top,
                min(INPUT_TILE, width - x) - left,
                channels,
            )
            source = border_tile
            start = 0
            row_stride = INPUT_TILE * channels
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
def _batched_gemm(conv: Any, count: int, block: int, transformed: Any, products: Any) -> None:
    """Sums over the input channels for one output block: a plane (tile, output) for each point."""
    in_channels = conv.in_channels
    out_channels = conv.out_channels
    vectors = conv.vectors
    filters = _floats(conv.filters, POINTS * in_channels * out_channels)
    outputs = vectors * LANES
    for point in range(POINTS):
        right = (point * out_channels + block * outputs) * in_channels
        left = point * _plane_size(conv.tile_block, in_channels)
        sums = point * _plane_size(conv.tile_block, outputs)
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
    bias = _floats(conv.bias, channels)
    lowest = np.float32(0 if conv.relu else -np.inf)
    plane = _plane_size(conv.tile_block, block_channels)
    for tile in range(count):
        image, y, x = _tile_position(conv, first + tile)
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
def _tile_position(conv: Any, tile: int) -> tuple[int, int, int]:
    """Image, and top left pixel (y, x), of an output tile."""
    rows = count_tiles(conv.height)
    columns = count_tiles(conv.width)
    return (
        tile // (rows * columns),
        tile // columns % rows * OUTPUT_TILE,
        tile % columns * OUTPUT_TILE,
    )


# The functions below emit LLVM instructions.

_FLOAT = ir.FloatType()
_INT = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_BITS = ir.VectorType(ir.IntType(32), LANES)  # the bits of a vector of float32
_HALF = ir.IntType(16)  # the upper half of a float32 is the same value in bf16
_HALVES = ir.VectorType(_HALF, LANES)
_FLOATS = types.Array(types.float32, 1, "C")
_MAPS = "_FLOATS, or bf16 in an array of uint16"


class _VectorCode:
    """Emits instructions on vectors of float32; pointers are to float32 or bf16, with any
    alignment.
    """

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        self.fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f32"
        )

    def offset(self, start: ir.Value, stride: ir.Value, count: int) -> ir.Value:
        """start + count * stride."""
        return self.builder.add(start, self.builder.mul(stride, _INT(count)))

    def load(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        if not _is_bf16(pointer):
            return self.builder.load(self._vector(pointer, offset, _VECTOR), align=4)
        half = self.builder.load(self._vector(pointer, offset, _HALVES), align=2)
        bits = self.builder.shl(self.builder.zext(half, _BITS), _constant(16))
        return self.builder.bitcast(bits, _VECTOR)

    def store(self, value: ir.Value, pointer: ir.Value, offset: ir.Value) -> None:
        if not _is_bf16(pointer):
            self.builder.store(value, self._vector(pointer, offset, _VECTOR), align=4)
        else:
            half = self._rounded(value)
            self.builder.store(half, self._vector(pointer, offset, _HALVES), align=2)

    def _rounded(self, value: ir.Value) -> ir.Value:
        """The nearest bf16, halves to even.

        NaN stays NaN, as the lower half of its bits is 0: it comes from bf16 or from a sum.
        """
        builder = self.builder
        bits = builder.bitcast(value, _BITS)
        odd = builder.and_(builder.lshr(bits, _constant(16)), _constant(1))
        bits = builder.add(bits, builder.add(odd, _constant(0x7FFF)))
        return builder.trunc(builder.lshr(bits, _constant(16)), _HALVES)

    def broadcast(self, value: ir.Value) -> ir.Value:
        """A vector whose lanes all have one value."""
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        first = self.builder.insert_element(undefined, value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, undefined, zeros)

    def multiply_add(self, factor: float, x: ir.Value, addend: ir.Value | None = None) -> ir.Value:
        """factor * x + addend, rounded once."""
        constant = ir.Constant(_VECTOR, [factor] * LANES)
        return (
            self.builder.fmul(constant, x)
            if addend is None
            else self.builder.call(self.fma, [constant, x, addend])
        )

    def _vector(self, pointer: ir.Value, offset: ir.Value, vector: ir.Type) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(pointer, [offset]), vector.as_pointer())


def _is_bf16(pointer: ir.Value) -> bool:
    return bool(pointer.type.pointee == _HALF)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_BITS, [value] * LANES)


def _inlined(emit: Callable[..., None], *arguments: Any) -> Any:
    """A function for kernels whose instructions emit(code, *values of the arguments) writes.

    arguments: their Numba types, or _MAPS; arrays are passed as pointers to their first value.
    """

    def function(context: Any, *given: Any) -> Any:
        chosen = [
            actual if argument is _MAPS else argument for actual, argument in zip(given, arguments)
        ]

        def generate(
            context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]
        ) -> ir.Value:
            emit(
                _VectorCode(builder),
                *(
                    context.make_array(argument)(context, builder, value).data
                    if isinstance(argument, types.Array)
                    else value
                    for argument, value in zip(chosen, values)
                ),
            )
            return context.get_dummy_value()

        return types.void(*chosen), generate

    # Numba takes the names of the arguments from here.
    function.__signature__ = inspect.signature(emit)  # type: ignore[attr-defined]
    return intrinsic(function)


def _input_matrix(code: _VectorCode, x: Sequence[ir.Value]) -> list[ir.Value]:
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


def _output_matrix(code: _VectorCode, x: Sequence[ir.Value]) -> list[ir.Value]:
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
    code: _VectorCode, matrix: Callable[..., list[ir.Value]], square: list[list[ir.Value]]
) -> list[list[ir.Value]]:
    """Multiply with the matrix along the rows, then along the columns."""
    for _ in range(2):
        square = [list(column) for column in zip(*(matrix(code, row) for row in square))]
    return square


def _emit_input_tile(
    code: _VectorCode,
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
            for j in range(INPUT_TILE)
        ]
        for i in range(INPUT_TILE)
    ]
    for i, row in enumerate(_along_both_axes(code, _input_matrix, tile)):
        for j, value in enumerate(row):
            point = INPUT_TILE * i + j
            code.store(value, transformed, code.offset(transformed_start, plane, point))


def _output_tile_emitter(add: bool) -> Callable[..., None]:
    """add: the output holds values that are added to the result, before the ReLU."""

    def emit(
        code: _VectorCode,
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
        code: _VectorCode,
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
        channel = builder.phi(_INT)
        totals = [builder.phi(_VECTOR) for _ in range(GEMM_ROWS * vectors)]
        weights_start = builder.mul(channel, _INT(width))
        weights = [
            code.load(first_weights, builder.add(weights_start, _INT(v * LANES)))
            for v in range(vectors)
        ]
        new_totals = []
        for row in range(GEMM_ROWS):
            value = code.broadcast(builder.load(builder.gep(tiles[row], [channel])))
            for weight, total in zip(weights, totals[row * vectors :]):
                new_totals.append(builder.call(code.fma, [value, weight, total]))
        next_channel = builder.add(channel, _INT(1))
        for phi, first, later in zip(
            [channel, *totals],
            [_INT(0), *[ir.Constant(_VECTOR, None)] * len(totals)],
            [next_channel, *new_totals],
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(later, loop)
        builder.cbranch(builder.icmp_signed("<", next_channel, depth), loop, after)
        builder.position_at_end(after)
        for row in range(GEMM_ROWS):
            for v in range(vectors):
                offset = builder.add(sums_start, _INT(row * width + v * LANES))
                code.store(new_totals[row * vectors + v], sums, offset)

    return emit


def _emit_copy(
    code: _VectorCode,
    source: ir.Value,
    source_start: ir.Value,
    target: ir.Value,
    target_start: ir.Value,
) -> None:
    code.store(code.load(source, source_start), target, target_start)


_I = types.int64
_F = types.float32
_OUTPUT_ARGUMENTS = (_FLOATS, _I, _I, _FLOATS, _I, _F, _MAPS, _I, _I, _I)
_GEMM_ARGUMENTS = (_FLOATS, _I, _FLOATS, _I, _I, _FLOATS, _I)
_transform_input_tile = _inlined(_emit_input_tile, _MAPS, _I, _I, _I, _FLOATS, _I, _I)
_copy_vector = _inlined(_emit_copy, _MAPS, _I, _MAPS, _I)
_store_output_tile = _inlined(_output_tile_emitter(add=False), *_OUTPUT_ARGUMENTS)
_add_output_tile = _inlined(_output_tile_emitter(add=True), *_OUTPUT_ARGUMENTS)
_gemm_1 = _inlined(_gemm_emitter(1), *_GEMM_ARGUMENTS)
_gemm_2 = _inlined(_gemm_emitter(2), *_GEMM_ARGUMENTS)
_gemm_3 = _inlined(_gemm_emitter(3), *_GEMM_ARGUMENTS)


def _typed_fetch_and_add(context: Any, counters: Any, index: Any) -> Any:
    """An atomic counter: its value, which is one more for the next caller in any thread."""

    def generate(
        context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]
    ) -> ir.Value:
        pointer = builder.gep(
            context.make_array(counters)(context, builder, values[0]).data, [values[1]]
        )
        return builder.atomic_rmw("add", pointer, _INT(1), "monotonic")

    return types.int64(counters, types.int64), generate


def _typed_pointer(value_type: Any, llvm_type: ir.Type) -> Any:
    """A function: address -> pointer to values of a type."""

    def function(context: Any, address: Any) -> Any:
        def generate(
            context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]
        ) -> ir.Value:
            return builder.inttoptr(values[0], llvm_type.as_pointer())

        return types.CPointer(value_type)(types.int64), generate

    return intrinsic(function)


_fetch_and_add: Any = intrinsic(_typed_fetch_and_add)
_float_pointer: Any = _typed_pointer(types.float32, _FLOAT)
_uint16_pointer: Any = _typed_pointer(types.uint16, _HALF)


@kernel
def _floats(address: int, size: int) -> Any:
    """The array of `size` values at an address."""
    return carray(_float_pointer(address), (size,))


@kernel
def _uint16s(address: int, size: int) -> Any:
    """The array of `size` values at an address."""
    return carray(_uint16_pointer(address), (size,))
