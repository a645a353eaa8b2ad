"""Runs the pass over a tensor: in pieces that two threads share, read block by block.

Bytes are read, not mapped: a mapping of the whole file would stay resident. A piece is a run of
elements; what its blocks give is summed in a tally of its own, and the pieces' tallies are added.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.onepass.codes import codes_of, least_normal
from analyzer.checkpoints.onepass.layout import BLOCK, ROW, SCRATCH, SINGLE_BINS
from analyzer.checkpoints.onepass.native import Kernel
from analyzer.checkpoints.onepass.tally import Tally, Units, add_bins, add_block, add_codes, add_rows
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
    ref: TensorRef,
    piece: Piece,
    units: Units,
    kernels: Mapping[str, Kernel] | None = None,
    scale: float = 1.0,
) -> Tally:
    """Reads and sums a piece of a tensor, by numpy where ``kernels`` is None.

    ``scale`` divides every value. Raises IngestError.
    """
    sums, first_unit, position = units.sums(piece.first, piece.count)
    tally = Tally(sums, first_unit, scale)
    small = element_count(ref.shape) <= EXACT_QUANTILES
    kernels = None if small else kernels
    with np.errstate(all="ignore"):
        if kernels and isinstance(piece.blocks, StoredBlocks) and _readable_anywhere(piece.blocks):
            kernel = _kernel(kernels, piece.blocks.dtype)
            if kernel:
                _add_stored(tally, piece.blocks, kernel, position, units)
                return tally
        for block, kind in _raw_blocks(piece.blocks):
            kernel = _kernel(kernels or {}, kind)
            if kernel:
                _add_natively(tally, kernel, kind, (-1, 0, len(block), block), position, units)
            else:
                _add_by_numpy(tally, block, kind, position, units, least_normal(ref.dtype), small)
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


def _add_by_numpy(
    tally: Tally,
    block: NDArray[np.generic],
    kind: str,
    position: int,
    units: Units,
    least: float,
    small: bool,
) -> None:
    codes = codes_of(kind)
    raw = block if codes is None else block.view(f"u{block.itemsize}")
    if small:
        values = block if codes is None else codes.values[raw]
        add_block(tally, values, position, units, least, keep=True)
    elif codes is not None:
        tally.coded = kind
        add_codes(tally, raw, codes.finite, position, units)
    else:
        add_block(tally, block, position, units, least, keep=False)
        add_bins(tally, block)


# --- compiled --------------------------------------------------------------------------------------


class _Workspace(threading.local):
    """Memory that a thread uses again for every piece."""

    def __init__(self) -> None:
        self.buffer = np.empty(BLOCK, np.uint8)
        self.scratch = np.empty(SCRATCH)


_workspace = _Workspace()
_KERNELS = {"float32": "single", "bfloat16": "brain", "float16": "half"}


def _kernel(kernels: Mapping[str, Kernel], kind: str) -> Kernel | None:
    """What sums elements of this type; None for wide integers, doubles and complex numbers."""
    coded = {1: "byte", 2: "word"}.get(DTYPES[kind].size if codes_of(kind) else 0, "")
    return kernels.get(_KERNELS.get(kind, coded))


def _add_stored(tally: Tally, blocks: StoredBlocks, kernel: Kernel, position: int, units: Units) -> None:
    """All of a piece in one call, which reads the file itself."""
    count, width = element_count(blocks.shape), DTYPES[blocks.dtype].size
    with Reader(blocks.region) as reader:
        offset = reader.place(blocks.offset, count * width)
        source = (reader.fileno, offset, count, _workspace.buffer)
        done = _add_natively(tally, kernel, blocks.dtype, source, position, units)
        if done < count:
            raise reader.ends(offset + done * width, (count - done) * width)


def _add_natively(
    tally: Tally,
    kernel: Kernel,
    kind: str,
    source: tuple[int, int, int, NDArray[np.generic]],
    position: int,
    units: Units,
) -> int:
    """Elements summed, of those in a file (its descriptor, offset, count, buffer) or in the buffer alone."""
    file, offset, count, buffer = source
    codes = codes_of(kind)
    if tally.bins is None:
        tally.bins = np.zeros(len(codes.values) if codes else SINGLE_BINS, np.uint32)
    places = (buffer, tally.units), (len(tally.units), units.length, position)
    if codes is not None:
        tally.coded = kind
        return _call(kernel, file, offset, count, *places, tally.bins, codes.finite, _workspace.scratch)
    rows, whole = np.zeros((count * 4 // BLOCK + 1, ROW)), np.zeros(4, np.int64)
    rows[:, 5], rows[:, 6] = math.inf, -math.inf
    done = _call(kernel, file, offset, count, *places, tally.bins, rows, whole, _workspace.scratch)
    add_rows(tally, rows, whole)
    return done


def _call(
    kernel: Kernel,
    file: int,
    offset: int,
    count: int,
    arrays: tuple[NDArray[Any], ...],
    numbers: tuple[int, ...],
    *more: NDArray[Any],
) -> int:
    first, last = ([array.ctypes.data for array in some] for some in (arrays, more))
    return kernel(file, offset, count, BLOCK, *first, *numbers, *last)
