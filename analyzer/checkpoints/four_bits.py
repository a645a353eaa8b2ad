"""Weights of four bits as bitsandbytes keeps them: numbers of a table, with a size for each run of them.

``weight`` has two elements a byte, the high half first. Beside it ``weight.quant_map`` is the
table, ``weight.absmax`` the sizes, and ``weight.quant_state.bitsandbytes__nf4`` a description in
JSON with the weight's shape. Sizes may be quantised in the same way, by tables named ``nested_``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.entries import Entry
from analyzer.checkpoints.regions import Blocks, StoredBlocks, element_count
from analyzer.errors import IngestError

_KINDS = ("nf4", "fp4")
_MOST = 4096  # bytes of a description

Key = tuple[str, str]  # group and name


@dataclass(frozen=True, slots=True)
class Runs:
    """The table, and a size for each run of ``length`` numbers of it."""

    table: Blocks
    sizes: Blocks
    length: int

    def reals(
        self, codes: NDArray[np.generic], first: int, sizes: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """What the numbers from ``first`` on stand for."""
        run = (first + np.arange(len(codes))) // self.length
        found: NDArray[np.float32] = _all(self.table)[codes.astype(np.intp)] * sizes[run]
        return found


@dataclass(frozen=True, slots=True)
class FourBitBlocks:
    """The weight as float32. With ``nested`` the sizes are numbers of a table as well, over ``offset``."""

    whole: StoredBlocks
    runs: Runs
    nested: Runs | None = None
    offset: float = 0.0

    def __call__(self, limit: int) -> Iterator[NDArray[np.generic]]:
        sizes, position = _all(self.runs.sizes), 0
        if self.nested:
            sizes = self.nested.reals(sizes, 0, _all(self.nested.sizes)) + np.float32(self.offset)
        for block in self.whole(max(1, limit // 16)):
            packed = block.view(np.uint8)
            codes = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)
            yield self.runs.reals(codes, position, sizes)
            position += len(codes)


def _all(part: Blocks) -> NDArray[Any]:
    return np.concatenate(list(part(1 << 20)))


def of_four_bits(entry: Entry, named: Mapping[Key, Entry]) -> Entry | None:
    """The weight as reals; None where what stands beside it does not describe it."""
    packed, whole = element_count(entry.shape), entry.blocks
    kind, facts = _description(entry, named)
    shape = _shape(facts.get("shape"))
    sizes = named.get((entry.group, f"{entry.name}.absmax"))
    runs = _runs(entry, named, "", facts.get("blocksize"), 16, 2 * packed)
    if not (runs and sizes and isinstance(whole, StoredBlocks)) or element_count(shape) != 2 * packed:
        return None
    blocks = FourBitBlocks(whole, runs)
    if sizes.dtype == "uint8":
        count, offset = element_count(sizes.shape), facts.get("nested_offset")
        nested = _runs(entry, named, "nested_", facts.get("nested_blocksize"), 256, count)
        if not nested or not isinstance(offset, float):
            return None
        blocks = replace(blocks, nested=nested, offset=offset)
    return replace(entry, blocks=blocks, dtype=f"q{kind}", shape=shape, nbytes=packed)


def _description(entry: Entry, named: Mapping[Key, Entry]) -> tuple[str, Mapping[str, object]]:
    """Kind of the numbers, and what the JSON says."""
    for kind in _KINDS:
        state = named.get((entry.group, f"{entry.name}.quant_state.bitsandbytes__{kind}"))
        if state and state.dtype == "uint8" and 0 < element_count(state.shape) <= _MOST:
            try:
                found = json.loads(_all(state.blocks).tobytes())
            except (ValueError, RecursionError, IngestError):
                continue
            return kind, found if isinstance(found, dict) else {}
    return "", {}


def _shape(sizes: object) -> tuple[int, ...]:
    """An empty shape, which no weight has, for what is none."""
    sound = (
        isinstance(sizes, list) and len(sizes) < 64 and all(type(n) is int and 0 < n < 1 << 48 for n in sizes)
    )
    return tuple(sizes) if sound and isinstance(sizes, list) else ()


def _runs(
    entry: Entry, named: Mapping[Key, Entry], prefix: str, length: object, codes: int, count: int
) -> Runs | None:
    """Table of so many ``codes`` and sizes for ``count`` numbers, where both are there and long enough."""
    table, sizes = (
        named.get((entry.group, f"{entry.name}.{prefix}{name}")) for name in ("quant_map", "absmax")
    )
    if type(length) is not int or length <= 0 or not table or not sizes:
        return None
    fits = table.shape == (codes,) and element_count(sizes.shape) == -(-count // length)
    real = table.dtype == "float32" and sizes.dtype in (("float32",) if prefix else ("float32", "uint8"))
    return Runs(table.blocks, sizes.blocks, length) if fits and real else None
