"""Runs the pass over a tensor: in pieces that two threads share, read block by block.

Bytes are read, not mapped: a mapping of the whole file would stay resident. A piece is a run of
elements; what its blocks give is summed in a tally of its own, and the pieces' tallies are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.onepass.codes import codes_of, least_normal
from analyzer.checkpoints.onepass.moments import far_from_zero, from_power_sums, merge
from analyzer.checkpoints.onepass.tally import SINGLE_BINS, Tally, Units, add_bins, add_block, add_codes
from analyzer.checkpoints.regions import (
    DTYPES,
    Blocks,
    JoinedBlocks,
    Reader,
    StoredBlocks,
    element_count,
    is_contiguous,
)
from analyzer.model import TensorRef

BLOCK = 1 << 20  # bytes read at a time: they are still in the second-level cache when summed
PIECE = 1 << 24  # bytes of a tensor that one thread takes at least
EXACT_QUANTILES = 1 << 12  # elements up to which all values are kept, so that quantiles are exact
MOST_PIECES = 64  # of one tensor, each of which has its own bins
MOST_WIDE_PIECES = 8  # of a tensor of more than 32 bits, whose bins take megabytes


@dataclass(frozen=True, slots=True)
class Piece:
    """``count`` elements of a tensor, ``first`` on; ``blocks`` gives them."""

    blocks: Blocks
    first: int
    count: int


@cache
def compiled_pass() -> ModuleType | None:
    """The compiled pass; None without numba, or where it finds no folder to keep its code in."""
    try:
        from analyzer.checkpoints.onepass import compiled
    except (ImportError, RuntimeError):
        return None
    return compiled


def pieces(ref: TensorRef) -> list[Piece]:
    """A tensor's elements in runs; a single one where they cannot be read from the middle."""
    parts = ref.blocks.parts if isinstance(ref.blocks, JoinedBlocks) else (ref.blocks,)
    stored = [part for part in parts if isinstance(part, StoredBlocks) and _readable_anywhere(part)]
    if len(stored) < len(parts):
        return [Piece(ref.blocks, 0, element_count(ref.shape))]
    wide = ref.nbytes > 4 * element_count(ref.shape)
    step, place, found = max(PIECE, ref.nbytes // (MOST_WIDE_PIECES if wide else MOST_PIECES)), 0, []
    for run in (run for part in stored for run in _runs(part, step)):
        found.append(Piece(run, place, run.shape[0]))
        place += run.shape[0]
    return found


def _readable_anywhere(blocks: StoredBlocks) -> bool:
    return (
        blocks.region.packed < 0
        and is_contiguous(blocks.shape, blocks.strides)
        and blocks.big_endian == (not np.little_endian)
    )


def _runs(blocks: StoredBlocks, step: int) -> Iterator[StoredBlocks]:
    """Runs of elements of about ``step`` bytes."""
    width = DTYPES[blocks.dtype].size
    count, length = element_count(blocks.shape), max(1, step // width)
    for first in range(0, count, length):
        offset = blocks.offset + first * width
        yield replace(blocks, shape=(min(length, count - first),), strides=(1,), offset=offset)


def tally_piece(
    ref: TensorRef, piece: Piece, units: Units, compiled: ModuleType | None = None, scale: float = 1.0
) -> Tally:
    """Reads and sums a piece of a tensor, by numpy where ``compiled`` is None.

    ``scale`` divides every value. Raises IngestError.
    """
    sums, first_unit, position = units.sums(piece.first, piece.count)
    tally = Tally(sums, first_unit, scale)
    small = element_count(ref.shape) <= EXACT_QUANTILES
    with np.errstate(all="ignore"):
        for block, kind in _raw_blocks(piece.blocks):
            codes = codes_of(kind)
            if small:
                values = block if codes is None else codes.values[block.view(f"u{block.itemsize}")]
                add_block(tally, values, position, units, least_normal(ref.dtype), keep=True)
            elif codes is not None:
                _add_codes(tally, block, kind, position, units, compiled)
            elif kind == "float32" and compiled is not None:
                _add_single(tally, block, position, units, compiled)
            else:
                add_block(tally, block, position, units, least_normal(ref.dtype), keep=False)
                add_bins(tally, block)
            position += len(block)
    return tally


def _raw_blocks(blocks: Blocks) -> Iterator[tuple[NDArray[np.generic], str]]:
    """Blocks with the type of their elements: codes as they are stored where that can be had.

    A block is good until the next one is asked for.
    """
    if not (isinstance(blocks, StoredBlocks) and _readable_anywhere(blocks)):
        for block in blocks(BLOCK):
            yield block, block.dtype.name
        return
    stored = DTYPES[blocks.dtype]
    raw = np.dtype(f"u{stored.size}" if codes_of(blocks.dtype) else stored.raw)
    buffer, size = memoryview(bytearray(BLOCK)), element_count(blocks.shape) * stored.size
    with Reader(blocks.region) as reader:
        for done in range(0, size, BLOCK):
            part = buffer[: min(BLOCK, size - done)]
            reader.fill(blocks.offset + done, part)
            yield np.frombuffer(part, raw), blocks.dtype


def _add_codes(
    tally: Tally,
    block: NDArray[np.generic],
    kind: str,
    position: int,
    units: Units,
    compiled: ModuleType | None,
) -> None:
    codes, raw = codes_of(kind), block.view(f"u{block.itemsize}")
    assert codes is not None
    tally.coded = kind
    if compiled is None:
        add_codes(tally, raw, codes.finite, position, units)
        return
    if tally.bins is None:
        tally.bins = np.zeros(len(codes.values), np.uint32)
    if kind == "bfloat16":
        compiled.brain(raw, tally.bins, tally.units, position, units.length)
    elif kind == "float16":
        compiled.half(raw, tally.bins, tally.units, position, units.length)
    else:
        compiled.coded(raw, codes.finite, tally.bins, tally.units, position, units.length)


_EMPTY = (0, 0, 0x7FFFFFFF, -0x80000000, 0, 0)  # zeros, subnormals, lowest, highest, NaN, Inf


def _add_single(
    tally: Tally, block: NDArray[np.generic], position: int, units: Units, compiled: ModuleType
) -> None:
    if tally.bins is None:
        tally.bins = np.zeros(SINGLE_BINS, np.uint32)
    sums, whole = np.zeros(5), np.array(_EMPTY)
    views = (block, block.view(np.int32), block.view(np.uint32))
    compiled.single(*views, tally.bins, tally.units, position, units.length, sums, whole)
    zeros, subnormal, low, high, nan, inf = whole.tolist()
    tally.zeros += zeros
    tally.subnormal += subnormal
    tally.nan += nan
    tally.inf += inf
    n = len(block) - nan - inf
    if n:
        tally.minimum = min(tally.minimum, _from_order(low))
        tally.maximum = max(tally.maximum, _from_order(high))
        s1, s2, s3, s4, l1 = sums.tolist()
        tally.l1 += l1
        moments = from_power_sums(n, s1, s2, s3, s4)
        if far_from_zero(moments):
            about = np.zeros(4)
            compiled.power_sums_about(block, moments.mean, about)
            s1, s2, s3, s4 = about.tolist()
            moments = from_power_sums(n, s1, s2, s3, s4, pivot=moments.mean)
        tally.moments = merge(tally.moments, moments)


def _from_order(order: int) -> float:
    """The float32 whose bits, all but the sign flipped where negative, are this number."""
    return float(np.int32(order if order >= 0 else order ^ 0x7FFFFFFF).view(np.float32))
