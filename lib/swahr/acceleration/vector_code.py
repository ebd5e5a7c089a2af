"""LLVM instructions for vectors of float32 in Numba's kernels, and what threads share.

Sums have to stay in the processor's vector registers, for which Numba has no type. So operations on
a few vectors at a time are emitted as LLVM instructions, and everything around them is Numba, see
swahr.jit. Arrays are one-dimensional; offsets and strides are counted in values, and neighbouring
values are channels. Maps are float32, or bf16 as uint16, which Numba has no type for; everything
else is float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numba
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from swahr.jit import kernel

FEATURES = set(
    (numba.config.CPU_FEATURES or get_host_cpu_features()).split(",")  # type: ignore[attr-defined]
)
LANES = 16 if "+avx512f" in FEATURES else 8  # values in a vector

FLOAT = ir.FloatType()
INT = ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
_BITS = ir.VectorType(ir.IntType(32), LANES)  # the bits of a vector of float32
_HALF = ir.IntType(16)  # the upper half of a float32 is the same value in bf16
_HALVES = ir.VectorType(_HALF, LANES)
FLOATS = types.Array(types.float32, 1, "C")
INT64 = types.int64
FLOAT32 = types.float32
MAPS = "FLOATS, or bf16 in an array of uint16"


class VectorCode:
    """Emits instructions on vectors of float32; pointers are to float32 or bf16, with any
    alignment.
    """

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        self.fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32"
        )

    def offset(self, start: ir.Value, stride: ir.Value, count: int) -> ir.Value:
        """start + count * stride."""
        return self.builder.add(start, self.builder.mul(stride, INT(count)))

    def load(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        if not _is_bf16(pointer):
            return self.builder.load(self._vector(pointer, offset, VECTOR), align=4)
        half = self.builder.load(self._vector(pointer, offset, _HALVES), align=2)
        bits = self.builder.shl(self.builder.zext(half, _BITS), _constant(16))
        return self.builder.bitcast(bits, VECTOR)

    def store(self, value: ir.Value, pointer: ir.Value, offset: ir.Value) -> None:
        if not _is_bf16(pointer):
            self.builder.store(value, self._vector(pointer, offset, VECTOR), align=4)
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
        undefined = ir.Constant(VECTOR, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        first = self.builder.insert_element(undefined, value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, undefined, zeros)

    def multiply_add(self, factor: float, x: ir.Value, addend: ir.Value | None = None) -> ir.Value:
        """factor * x + addend, rounded once."""
        constant = ir.Constant(VECTOR, [factor] * LANES)
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


def inlined(emit: Callable[..., None], *arguments: Any) -> Any:
    """A function for kernels whose instructions emit(code, *values of the arguments) writes.

    arguments: their Numba types, or MAPS; arrays are passed as pointers to their first value.
    """

    def function(context: Any, *given: Any) -> Any:
        chosen = [
            actual if argument is MAPS else argument for actual, argument in zip(given, arguments)
        ]

        def generate(
            context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]
        ) -> ir.Value:
            emit(
                VectorCode(builder),
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


def _typed_fetch_and_add(context: Any, counters: Any, index: Any) -> Any:
    """An atomic counter: its value, which is one more for the next caller in any thread."""

    def generate(
        context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]
    ) -> ir.Value:
        pointer = builder.gep(
            context.make_array(counters)(context, builder, values[0]).data, [values[1]]
        )
        return builder.atomic_rmw("add", pointer, INT(1), "monotonic")

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


fetch_and_add: Any = intrinsic(_typed_fetch_and_add)
_float_pointer: Any = _typed_pointer(types.float32, FLOAT)
_uint16_pointer: Any = _typed_pointer(types.uint16, _HALF)


@kernel
def floats(address: int, size: int) -> Any:
    """The array of `size` values at an address."""
    return carray(_float_pointer(address), (size,))


@kernel
def uint16s(address: int, size: int) -> Any:
    """The array of `size` values at an address."""
    return carray(_uint16_pointer(address), (size,))
