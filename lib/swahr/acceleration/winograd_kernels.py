"""The loops of winograd.py, compiled for the processor at hand.

Sums have to stay in the processor's vector registers, for which Numba has no type. So what is done
to a few vectors at a time is written in LLVM's language, and everything around it in Numba's.
Arrays are one-dimensional and of float32, places in them and strides are counted in values, and
neighbouring values are channels. Every sum is made in the same order whatever the length of the
vectors, so results do not depend on the processor.

All of it is in one file, as Numba compiles a function anew only where its own file has changed.
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

TILE = 4
WINDOW = 6  # pixels of a tile's result, and of what it is made from, in each direction
NEAR = 0.75
FAR = 1.5  # the polynomials' points are 0, +-NEAR, +-FAR and infinity
PLANES = WINDOW * WINDOW
GAP = 16  # values between planes: a power of two apart, they would all fall on the same few lines of the cache

FEATURES = set((numba.config.CPU_FEATURES or get_host_cpu_features()).split(","))  # type: ignore[attr-defined]
LANES = 16 if "+avx512f" in FEATURES else 8  # values in a vector
ROWS = (
    8 if LANES == 16 else 6
)  # tiles whose sums are made together: there are registers for 2 vectors of each, or 3

# One convolution, as its threads see it. Addresses are those of float32 arrays.
JOB = np.dtype(
    [
        ("begun", np.int64, 2),  # how many threads have begun, and how many pieces of work
        *(
            (name, np.int64)
            for name in (
                "images",
                "filters",
                "bias",
                "results",
                "scratch",  # addresses
                "batch",
                "height",
                "width",
                "channels",
                "outputs",
                "block",  # tiles that are worked on together, a multiple of ROWS
                "parts",  # into which the outputs are divided; a piece of work is a block and a part
                "vectors",  # of outputs that are summed together: a panel
                "add",
                "relu",
            )
        ),
    ]
)


@register_jitable
def count_tiles(size: int) -> int:
    """How many tiles cover so many pixels."""
    return (size + TILE - 1) // TILE


@register_jitable
def scratch_layout(block: int, channels: int, vectors: int) -> tuple[int, int, int]:
    """Of a thread's memory: where products begin, behind the windows' values; where the corner
    does; its size.
    """
    products = PLANES * _plane(block, channels)
    corner = products + PLANES * _plane(block, vectors * LANES)
    return products, corner, corner + PLANES * channels


@register_jitable
def _plane(block: int, depth: int) -> int:
    """From a plane of (tile, channel or output) to the next."""
    return block * depth + GAP


@cache
def worker() -> Any:
    """What threads do together: a C function, at its .address, that each calls with the address of
    the same JOB.
    """
    return callback(_work, types.void(types.CPointer(numba.from_dtype(JOB))))


def _work(pointer: Any) -> None:
    job = carray(pointer, 1)[0]
    products_start, corner_start, size = scratch_layout(job.block, job.channels, job.vectors)
    scratch = _floats(job.scratch + 4 * size * _next(job.begun, 0), size)
    values = scratch[:products_start]
    products = scratch[products_start:corner_start]
    corner = scratch[corner_start:]
    tiles = job.batch * count_tiles(job.height) * count_tiles(job.width)
    panels = job.outputs // (job.vectors * LANES)
    pieces = -(-tiles // job.block) * job.parts
    while True:
        piece = _next(job.begun, 1)
        if piece >= pieces:
            break
        first = piece // job.parts * job.block
        part = piece % job.parts
        count = min(job.block, tiles - first)
        _take_windows(job, first, count, values, corner)
        for panel in range(part * panels // job.parts, (part + 1) * panels // job.parts):
            _multiply(job, count, panel, values, products)
            _give_results(job, first, count, panel, products, corner)


@kernel
def _take_windows(job: Any, first: int, count: int, values: Any, corner: Any) -> None:
    """Values of the windows of `count` tiles: a plane for each of the 36 points, in it (tile,
    channel).
    """
    channels = job.channels
    height = job.height
    width = job.width
    images = _floats(job.images, job.batch * height * width * channels)
    plane = _plane(job.block, channels)
    for tile in range(count):
        image, y, x = _place(job, first + tile)
        y = y - 1
        x = x - 1
        source = images
        start = ((image * height + y) * width + x) * channels
        line = width * channels
        if y < 0 or x < 0 or y + WINDOW > height or x + WINDOW > width:
            top = max(0, -y)
            left = max(0, -x)
            corner[:] = 0
            _copy_pixels(
                images,
                start + top * line + left * channels,
                line,
                channels,
                corner,
                (top * WINDOW + left) * channels,
                WINDOW * channels,
                channels,
                min(WINDOW, height - y) - top,
                min(WINDOW, width - x) - left,
                channels,
            )
            source = corner
            start = 0
            line = WINDOW * channels
        for channel in range(0, channels, LANES):
            _window_values(
                source, start + channel, line, channels, values, tile * channels + channel, plane
            )


@kernel
def _multiply(job: Any, count: int, panel: int, values: Any, products: Any) -> None:
    """Sums over the channels, for some outputs: a plane for each point, in it (tile, output)."""
    channels = job.channels
    vectors = job.vectors
    block = job.block
    all_outputs = job.outputs
    filters = _floats(job.filters, PLANES * channels * all_outputs)
    outputs = vectors * LANES
    for plane in range(PLANES):
        weights = (plane * all_outputs + panel * outputs) * channels
        left = plane * _plane(block, channels)
        place = plane * _plane(block, outputs)
        for _ in range(0, count, ROWS):
            if vectors == 3:
                _sums_of_3(values, left, filters, weights, channels, products, place)
            elif vectors == 2:
                _sums_of_2(values, left, filters, weights, channels, products, place)
            else:
                _sums_of_1(values, left, filters, weights, channels, products, place)
            left = left + ROWS * channels
            place = place + ROWS * outputs


@kernel
def _give_results(job: Any, first: int, count: int, panel: int, products: Any, corner: Any) -> None:
    """Pixels of the tiles, for some outputs, to where they belong."""
    height = job.height
    width = job.width
    outputs = job.outputs
    vectors = job.vectors
    add = job.add
    panel_outputs = vectors * LANES
    results = _floats(job.results, job.batch * height * width * outputs)
    bias = _floats(job.bias, outputs)
    floor = np.float32(0 if job.relu else -np.inf)
    plane = _plane(job.block, panel_outputs)
    for tile in range(count):
        image, y, x = _place(job, first + tile)
        rows = min(TILE, height - y)
        columns = min(TILE, width - x)
        whole = rows == TILE and columns == TILE
        for vector in range(vectors):
            place = tile * panel_outputs + vector * LANES
            channel = panel * panel_outputs + vector * LANES
            start = ((image * height + y) * width + x) * outputs + channel
            line = width * outputs
            target = results
            first_pixel = start
            target_line = line
            pixel = outputs
            if not whole:
                target = corner
                first_pixel = 0
                target_line = TILE * LANES
                pixel = LANES
                if add:
                    _copy_pixels(
                        results,
                        start,
                        line,
                        outputs,
                        corner,
                        0,
                        target_line,
                        pixel,
                        rows,
                        columns,
                        LANES,
                    )
            if add:
                _add_results(
                    products,
                    place,
                    plane,
                    bias,
                    channel,
                    floor,
                    target,
                    first_pixel,
                    target_line,
                    pixel,
                )
            else:
                _set_results(
                    products,
                    place,
                    plane,
                    bias,
                    channel,
                    floor,
                    target,
                    first_pixel,
                    target_line,
                    pixel,
                )
            if not whole:
                _copy_pixels(
                    corner,
                    0,
                    target_line,
                    pixel,
                    results,
                    start,
                    line,
                    outputs,
                    rows,
                    columns,
                    LANES,
                )


@kernel
def _copy_pixels(
    source: Any,
    start: int,
    line: int,
    pixel: int,
    target: Any,
    place: int,
    target_line: int,
    target_pixel: int,
    rows: int,
    columns: int,
    channels: int,
) -> None:
    for i in range(rows):
        for j in range(columns):
            for k in range(0, channels, LANES):
                _copy(
                    source,
                    start + i * line + j * pixel + k,
                    target,
                    place + i * target_line + j * target_pixel + k,
                )


@kernel
def _place(job: Any, tile: int) -> tuple[int, int, int]:
    """Image, and top left pixel, of a tile."""
    rows = count_tiles(job.height)
    columns = count_tiles(job.width)
    return tile // (rows * columns), tile // columns % rows * TILE, tile % columns * TILE


# What follows is written in LLVM's language.

_FLOAT = ir.FloatType()
_INT = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FLOATS = types.Array(types.float32, 1, "C")


class _Code:
    """Where instructions on vectors are written; pointers are to float32, at any address."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        self.fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f32"
        )

    def at(self, start: ir.Value, stride: ir.Value, count: int) -> ir.Value:
        """start + count * stride."""
        return self.builder.add(start, self.builder.mul(stride, _INT(count)))

    def load(self, pointer: ir.Value, at: ir.Value) -> ir.Value:
        return self.builder.load(self._vector(pointer, at), align=4)

    def store(self, value: ir.Value, pointer: ir.Value, at: ir.Value) -> None:
        self.builder.store(value, self._vector(pointer, at), align=4)

    def everywhere(self, value: ir.Value) -> ir.Value:
        """A vector of nothing but one value."""
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        first = self.builder.insert_element(nothing, value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, nothing, zeros)

    def times(self, factor: float, x: ir.Value, plus: ir.Value | None = None) -> ir.Value:
        """factor * x + plus, rounded once."""
        constant = ir.Constant(_VECTOR, [factor] * LANES)
        return (
            self.builder.fmul(constant, x)
            if plus is None
            else self.builder.call(self.fma, [constant, x, plus])
        )

    def _vector(self, pointer: ir.Value, at: ir.Value) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(pointer, [at]), _VECTOR.as_pointer())


def _instructions(write: Callable[..., None], *arguments: Any) -> Any:
    """A function for kernels that consists of what write(code, *values of the arguments) adds to
    the code.

    arguments: their Numba types; arrays come as pointers to their first value.
    """

    def function(context: Any, *given: Any) -> Any:
        def generate(
            context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]
        ) -> ir.Value:
            write(
                _Code(builder),
                *(
                    context.make_array(_FLOATS)(context, builder, value).data
                    if argument == _FLOATS
                    else value
                    for argument, value in zip(arguments, values)
                ),
            )
            return context.get_dummy_value()

        return types.void(*arguments), generate

    function.__signature__ = inspect.signature(write)  # type: ignore[attr-defined]  # by which Numba calls it
    return intrinsic(function)


def _of_windows(code: _Code, x: Sequence[ir.Value]) -> list[ir.Value]:
    """Six pixels in a row -> for each point their sum, weighted by the coefficients of the
    polynomial whose roots are the other points: x (x^2 - NEAR^2) (x^2 - FAR^2) for the last one,
    infinity.
    """
    near = NEAR**2
    far = FAR**2
    values = [code.times(near * far, x[0], code.times(-near - far, x[2], x[4]))]
    for point, other in ((NEAR, far), (FAR, near)):
        even = code.times(-other, x[2], x[4])
        odd = code.times(-other, x[1], x[3])
        values += [code.times(point, odd, even), code.times(-point, odd, even)]
    return [*values, code.times(near * far, x[1], code.times(-near - far, x[3], x[5]))]


def _of_results(code: _Code, x: Sequence[ir.Value]) -> list[ir.Value]:
    """Values at the points -> four pixels in a row: their sums, weighted by the points' powers 0 to
    3.
    """
    add = code.builder.fadd
    subtract = code.builder.fsub
    near = add(x[1], x[2])
    near_odd = subtract(x[1], x[2])
    far = add(x[3], x[4])
    far_odd = subtract(x[3], x[4])
    return [
        add(x[0], add(near, far)),
        code.times(FAR, far_odd, code.times(NEAR, near_odd)),
        code.times(FAR**2, far, code.times(NEAR**2, near)),
        code.times(FAR**3, far_odd, code.times(NEAR**3, near_odd, x[5])),
    ]


def _both_ways(
    code: _Code, line: Callable[..., list[ir.Value]], square: list[list[ir.Value]]
) -> list[list[ir.Value]]:
    """`line` along the rows, then down the columns."""
    for _ in range(2):
        square = [list(column) for column in zip(*(line(code, row) for row in square))]
    return square


def _write_window_values(
    code: _Code,
    source: ir.Value,
    start: ir.Value,
    line: ir.Value,
    pixel: ir.Value,
    values: ir.Value,
    place: ir.Value,
    plane: ir.Value,
) -> None:
    window = [
        [code.load(source, code.at(code.at(start, line, i), pixel, j)) for j in range(WINDOW)]
        for i in range(WINDOW)
    ]
    for i, row in enumerate(_both_ways(code, _of_windows, window)):
        for j, value in enumerate(row):
            code.store(value, values, code.at(place, plane, WINDOW * i + j))


def _write_results(add: bool) -> Callable[..., None]:
    def write(
        code: _Code,
        products: ir.Value,
        place: ir.Value,
        plane: ir.Value,
        bias: ir.Value,
        channel: ir.Value,
        floor: ir.Value,
        results: ir.Value,
        start: ir.Value,
        line: ir.Value,
        pixel: ir.Value,
    ) -> None:
        values = [
            [code.load(products, code.at(place, plane, WINDOW * i + j)) for j in range(WINDOW)]
            for i in range(WINDOW)
        ]
        shift = code.load(bias, channel)
        lowest = code.everywhere(floor)
        for i, row in enumerate(_both_ways(code, _of_results, values)):
            for j, value in enumerate(row):
                at = code.at(code.at(start, line, i), pixel, j)
                value = code.builder.fadd(value, shift)
                if add:
                    value = code.builder.fadd(value, code.load(results, at))
                below = code.builder.fcmp_ordered(
                    "<", value, lowest
                )  # not so where it is not a number, which stays
                code.store(code.builder.select(below, lowest, value), results, at)

    return write


def _write_sums(vectors: int) -> Callable[..., None]:
    """ROWS x (vectors x LANES) sums, over `depth` channels, of left (tile, channel) x right
    (channel, output).
    """

    def write(
        code: _Code,
        left: ir.Value,
        left_start: ir.Value,
        right: ir.Value,
        right_start: ir.Value,
        depth: ir.Value,
        sums: ir.Value,
        place: ir.Value,
    ) -> None:
        builder = code.builder
        width = vectors * LANES
        tiles = [builder.gep(left, [code.at(left_start, depth, row)]) for row in range(ROWS)]
        weights_of = builder.gep(right, [right_start])
        before = builder.block
        loop = builder.append_basic_block()
        after = builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        channel = builder.phi(_INT)
        totals = [builder.phi(_VECTOR) for _ in range(ROWS * vectors)]
        weights_start = builder.mul(channel, _INT(width))
        weights = [
            code.load(weights_of, builder.add(weights_start, _INT(v * LANES)))
            for v in range(vectors)
        ]
        grown = []
        for row in range(ROWS):
            value = code.everywhere(builder.load(builder.gep(tiles[row], [channel])))
            grown += [
                builder.call(code.fma, [value, weight, total])
                for weight, total in zip(weights, totals[row * vectors :])
            ]
        following = builder.add(channel, _INT(1))
        for phi, first, later in zip(
            [channel, *totals],
            [_INT(0), *[ir.Constant(_VECTOR, None)] * len(totals)],
            [following, *grown],
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(later, loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
        builder.position_at_end(after)
        for row in range(ROWS):
            for v in range(vectors):
                code.store(
                    grown[row * vectors + v],
                    sums,
                    builder.add(place, _INT(row * width + v * LANES)),
                )

    return write


def _write_copy(
    code: _Code, source: ir.Value, start: ir.Value, target: ir.Value, place: ir.Value
) -> None:
    code.store(code.load(source, start), target, place)


_I = types.int64
_F = types.float32
_window_values = _instructions(_write_window_values, _FLOATS, _I, _I, _I, _FLOATS, _I, _I)
_copy = _instructions(_write_copy, _FLOATS, _I, _FLOATS, _I)
_set_results, _add_results = (
    _instructions(_write_results(add), _FLOATS, _I, _I, _FLOATS, _I, _F, _FLOATS, _I, _I, _I)
    for add in (False, True)
)
_sums_of_1, _sums_of_2, _sums_of_3 = (
    _instructions(_write_sums(vectors), _FLOATS, _I, _FLOATS, _I, _I, _FLOATS, _I)
    for vectors in (1, 2, 3)
)


def _typed_next(context: Any, numbers: Any, at: Any) -> Any:
    """A number in an array, which is one more for whoever asks next, in whichever thread."""

    def generate(
        context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]
    ) -> ir.Value:
        pointer = builder.gep(
            context.make_array(numbers)(context, builder, values[0]).data, [values[1]]
        )
        return builder.atomic_rmw("add", pointer, _INT(1), "monotonic")

    return types.int64(numbers, types.int64), generate


def _typed_pointer(context: Any, address: Any) -> Any:
    def generate(
        context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]
    ) -> ir.Value:
        return builder.inttoptr(values[0], _FLOAT.as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


_next: Any = intrinsic(_typed_next)
_pointer: Any = intrinsic(_typed_pointer)


@kernel
def _floats(address: int, size: int) -> Any:
    """The array of that many values there."""
    return carray(_pointer(address), (size,))
