"""The inner loop over float32 as LLVM code: counting by leading bits beside the sums, at the price of either.

Counting is one addition in memory for each element, which keeps the load and store units busy and
leaves the arithmetic ones idle; the sums are the other way round. A compiler keeps such loops
apart, since it cannot prove that the counters are not the data. Written as one loop over vectors
both take as long as the counting alone.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
GROUP = 32  # elements of one turn: what is left of a stretch is not looked at
SUMS = 5  # powers 1 to 4 and absolute values
_ANY_ORDER = ("reassoc", "contract", "nsz")

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_INTS, _SINGLES, _DOUBLES = (ir.VectorType(kind, LANES) for kind in (_I32, ir.FloatType(), ir.DoubleType()))


@intrinsic  # type: ignore[untyped-decorator]
def sum_and_count(_: Any, data: Any, bins: Any, sums: Any, bounds: Any, groups: Any) -> Any:
    """Looks at ``groups`` · ``GROUP`` floats; all arguments but the last are addresses.

    Adds to ``bins`` (uint32, by the leading 16 bits), and writes, lane by lane, ``sums`` (float64,
    ``SUMS`` times ``LANES``) and ``bounds`` (uint32, three times ``LANES``: the bits' largest as a
    signed number, their largest without sign, and twice the least magnitude).
    """
    return types.void(types.uintp, types.uintp, types.uintp, types.uintp, types.intp), _generate


def _generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
    data, bins, sums, bounds = (builder.inttoptr(a, _I32.as_pointer()) for a in arguments[:4])
    totals = [cgutils.alloca_once_value(builder, _all(_DOUBLES, 0.0)) for _ in range(SUMS)]
    extremes = [cgutils.alloca_once_value(builder, _all(_INTS, n)) for n in (-(1 << 31), 0, -1)]
    with cgutils.for_range(builder, arguments[4]) as loop:
        first = builder.mul(loop.index, ir.Constant(_I64, GROUP))
        for lane in range(0, GROUP, LANES):
            place = builder.gep(data, [builder.add(first, ir.Constant(_I64, lane))])
            bits = builder.load(builder.bitcast(place, _INTS.as_pointer()), align=4)
            _add_powers(builder, totals, bits)
            _widen_bounds(builder, extremes, bits)
            _count(builder, bins, place)
    _write(builder, sums, _DOUBLES, totals)
    _write(builder, bounds, _INTS, extremes)
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def _all(vector: Any, value: float) -> Any:
    return ir.Constant(vector, [value] * LANES)


def _add_powers(builder: Any, totals: Any, bits: Any) -> None:
    value = builder.fpext(builder.bitcast(bits, _SINGLES), _DOUBLES)
    positive = builder.bitcast(builder.and_(bits, _all(_INTS, 0x7FFFFFFF)), _SINGLES)
    square = builder.fmul(value, value, flags=_ANY_ORDER)
    cube, fourth = (builder.fmul(square, factor, flags=_ANY_ORDER) for factor in (value, square))
    for total, term in zip(
        totals, (value, square, cube, fourth, builder.fpext(positive, _DOUBLES)), strict=True
    ):
        builder.store(builder.fadd(builder.load(total), term, flags=_ANY_ORDER), total)


def _widen_bounds(builder: Any, extremes: Any, bits: Any) -> None:
    doubled = builder.shl(bits, _all(_INTS, 1))
    looks = ((builder.icmp_signed, ">", bits), (builder.icmp_unsigned, ">", bits))
    for extreme, (compare, than, new) in zip(
        extremes, (*looks, (builder.icmp_unsigned, "<", doubled)), strict=True
    ):
        known = builder.load(extreme)
        builder.store(builder.select(compare(than, new, known), new, known), extreme)


def _count(builder: Any, bins: Any, place: Any) -> None:
    for lane in range(LANES):
        bits = builder.load(builder.gep(place, [ir.Constant(_I32, lane)]))
        leading = builder.zext(builder.lshr(bits, ir.Constant(_I32, 16)), _I64)
        counter = builder.gep(bins, [leading])
        builder.store(builder.add(builder.load(counter), ir.Constant(_I32, 1)), counter)


def _write(builder: Any, target: Any, vector: Any, values: Any) -> None:
    place = builder.bitcast(target, vector.as_pointer())
    for i, value in enumerate(values):
        builder.store(builder.load(value), builder.gep(place, [ir.Constant(_I32, i)]), align=4)
