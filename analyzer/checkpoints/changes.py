"""How tensors change from checkpoint to checkpoint: a pair's difference, a run's path.

Tensors are matched by group, name and slot and read a block at a time, all checkpoints side by side.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.entries import is_buffer
from analyzer.checkpoints.regions import real
from analyzer.model import Checkpoint, FloatArray, TensorChange, TensorPath, TensorRef

BLOCK = 1 << 22  # bytes of a tensor at a time
WEIGHTS = ("model", "ema")

Key = tuple[str, str, str]


def difference(
    before: Checkpoint, after: Checkpoint, groups: Collection[str] = WEIGHTS
) -> Iterator[TensorChange]:
    """Every tensor of the given groups in either checkpoint, in the later one's order, removed ones last."""
    old, new = by_key(before, groups), by_key(after, groups)
    for key, ref in new.items():
        if key not in old:
            yield _alone(ref, "added")
        elif old[key].shape != ref.shape:
            yield _alone(ref, "reshaped", old[key].shape)
        else:
            yield _change(old[key], ref)
    for key, ref in old.items():
        if key not in new:
            yield _alone(ref, "removed", ref.shape)


def trajectory(checkpoints: Sequence[Checkpoint]) -> Iterator[TensorPath]:
    """The path of every tensor of the model that all checkpoints hold in one shape, in order of depth."""
    held = [by_key(checkpoint, ("model",)) for checkpoint in checkpoints]
    for key, ref in held[-1].items():
        refs = [tensors.get(key) for tensors in held]
        present = [found for found in refs if found is not None and found.shape == ref.shape]
        if len(present) == len(held) > 1:
            yield _path(present)


def by_key(checkpoint: Checkpoint, groups: Collection[str]) -> dict[Key, TensorRef]:
    return {(ref.group, ref.name, ref.slot): ref for ref in checkpoint.tensors if ref.group in groups}


def _alone(ref: TensorRef, status: str, before: tuple[int, ...] = ()) -> TensorChange:
    parameter = not is_buffer(ref.name, ref.dtype)
    return TensorChange(ref.name, ref.group, status, ref.shape, before, ref.slot, parameter=parameter)


def _change(old: TensorRef, new: TensorRef) -> TensorChange:
    sums = _Sums(2)
    for blocks in aligned([old, new]):
        sums.add(blocks)
    return TensorChange(
        new.name,
        new.group,
        "identical" if sums.identical else "changed",
        new.shape,
        old.shape,
        new.slot,
        norm=_root(sums.squares[1]),
        norm_before=_root(sums.squares[0]),
        relative=_ratio(sums.moved[1], sums.squares[0]),
        cosine=sums.cosine(1),
        largest=sums.largest if math.isfinite(sums.largest) else None,
        parameter=not is_buffer(new.name, new.dtype),
    )


def _path(refs: Sequence[TensorRef]) -> TensorPath:
    sums = _Sums(len(refs))
    for blocks in aligned(refs):
        sums.add(blocks)
    first, later = sums.squares[0], range(1, len(refs))
    return TensorPath(
        refs[-1].name,
        refs[-1].shape,
        norms=tuple(map(_root, sums.squares)),
        travelled=tuple(_ratio(square, first) for square in sums.travelled),
        moved=(None, *(_ratio(sums.moved[i], first) for i in later)),
        cosine=tuple(sums.cosine(i) for i in range(len(refs))),
        frozen=sums.identical,
        parameter=not is_buffer(refs[-1].name, refs[-1].dtype),
    )


class _Sums:
    """Running sums over the blocks of one tensor in n checkpoints."""

    def __init__(self, count: int) -> None:
        self.identical = True
        self.largest = 0.0
        self.squares = np.zeros(count)  # of each
        self.travelled = np.zeros(count)  # of the difference from the first
        self.moved = np.zeros(count)  # of the difference from the one before
        self.products = np.zeros(count)  # with the first

    def add(self, blocks: Sequence[FloatArray]) -> None:
        first = before = blocks[0]
        with np.errstate(all="ignore"):
            for i, block in enumerate(blocks):
                self.squares[i] += block @ block
                self.products[i] += first @ block
                if i:
                    self._step(i, block, before, first)
                before = block

    def _step(self, i: int, block: FloatArray, before: FloatArray, first: FloatArray) -> None:
        if self.identical:
            self.identical = np.array_equal(block, before, equal_nan=True)
        step, away = block - before, block - first
        self.moved[i] += step @ step
        self.travelled[i] += away @ away
        self.largest = float(np.maximum(self.largest, np.abs(step).max(initial=0.0)))

    def cosine(self, i: int) -> float | None:
        size = float(np.sqrt(self.squares[0] * self.squares[i]))
        if not math.isfinite(size) or size == 0:
            return None
        return float(np.clip(self.products[i] / size, -1, 1))


def _root(square: float) -> float | None:
    return math.sqrt(square) if math.isfinite(square) else None


def _ratio(square: float, base: float) -> float | None:
    if base <= 0 or not math.isfinite(base) or not math.isfinite(square):
        return None
    return math.sqrt(square / base)


def aligned(refs: Sequence[TensorRef], block: int = 0) -> Iterator[list[FloatArray]]:
    """The tensors' blocks of so many bytes as float64 (complex: the magnitude), cut to equal lengths."""
    sources = [ref.blocks(block or BLOCK) for ref in refs]
    ahead = [np.zeros(0) for _ in refs]
    while True:
        ahead = [block if len(block) else _next(source) for block, source in zip(ahead, sources, strict=True)]
        length = min(map(len, ahead))
        if not length:
            return
        yield [block[:length] for block in ahead]
        ahead = [block[length:] for block in ahead]


def _next(source: Iterator[NDArray[np.generic]]) -> FloatArray:
    block = next(source, None)
    return np.zeros(0) if block is None else real(block)
