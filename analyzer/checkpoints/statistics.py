"""Statistics of a checkpoint's tensors in one pass, a block at a time, on two threads.

Small checkpoints are summed by numpy, large ones by compiled code where numba is there. Both give
the same results; docs/checkpoint-statistics.md says how exact they are and what they cost.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.onepass import codes, native, quantiles
from analyzer.checkpoints.onepass.layout import BLOCK
from analyzer.checkpoints.onepass.moments import Moments
from analyzer.checkpoints.onepass.native import Kernel
from analyzer.checkpoints.onepass.quantiles import Histogram
from analyzer.checkpoints.onepass.scan import pieces, tally_piece
from analyzer.checkpoints.onepass.tally import Tally, Units, add, add_by_unit
from analyzer.checkpoints.regions import element_count, real
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, FloatArray, LayerStats, Problem, TensorRef

COMPILED_FROM = 1 << 26  # bytes of tensors from which loading the compiled code pays
BUILT_FROM = 1 << 29  # and from which it is built where it is not yet there: that takes some seconds
THREADS = 2
AHEAD = 24  # tensors' pieces that are under way or wait for their turn
MAX_UNITS = 1 << 22  # output units whose norms are kept
DEAD_NORM = 1e-8  # of the median unit norm: far below what training or decay leaves in a used unit
OUTLIER = 6.0  # standard deviations from the mean: two in a billion of a Gaussian
BINS = 48  # of the histogram that is kept for drawing
_SHORTEST_UNIT = 8  # elements: shorter units may be equal by chance in a coarse type
_SAME_SQUARES = 1e-12  # relative: the same squares summed in another order differ by less
_SAME_PROJECTION = 1e-9
_HUGE, _TINY = 1e75, 1e-75  # beyond these, fourth powers leave the range of float64


def layer_stats(checkpoint: Checkpoint, problems: list[Problem] | None = None) -> Iterator[LayerStats]:
    """Statistics of every tensor, in order; one that shares its storage with another is read once.

    A tensor whose bytes cannot be read goes to ``problems`` and is left out; without that list
    IngestError is raised.
    """
    distinct: dict[object, TensorRef] = {}
    for ref in checkpoint.tensors:
        distinct.setdefault(ref.blocks, ref)
    size = sum(ref.nbytes for ref in distinct.values())
    kernels = native.kernels(build=size >= BUILT_FROM) if size >= COMPILED_FROM else None
    measured = _in_turn(distinct.values(), kernels)
    done: dict[object, LayerStats | IngestError] = {}
    for ref in checkpoint.tensors:
        if ref.blocks not in done:
            done[ref.blocks] = next(measured)
        found = done[ref.blocks]
        if isinstance(found, LayerStats):
            found = replace(found, name=ref.name, group=ref.group, slot=ref.slot)
            yield replace(found, fan_in=fan_in(ref), checkpoint=checkpoint.path)
        elif problems is None:
            raise found
        else:
            message = f"tensor {ref.name[:80]!r}: {found.message}"
            problems.append(Problem(found.path, found.kind, message, found.offset))


def _in_turn(
    refs: Iterable[TensorRef], kernels: Mapping[str, Kernel] | None
) -> Iterator[LayerStats | IngestError]:
    """Each tensor's statistics, in order, while two threads are at the following ones."""
    pool = ThreadPoolExecutor(THREADS)
    waiting: deque[tuple[TensorRef, list[Future[Tally]]]] = deque()
    try:
        for ref in refs:
            units = units_of(ref)
            tasks = [pool.submit(tally_piece, ref, p, units, kernels) for p in pieces(ref)]
            waiting.append((ref, tasks))
            while sum(len(futures) for _, futures in waiting) > AHEAD and len(waiting) > 1:
                yield _settle(*waiting.popleft())
        while waiting:
            yield _settle(*waiting.popleft())
    finally:
        pool.shutdown(
            wait=False, cancel_futures=True
        )  # one that is dropped half-way may end in a thread of the pool


def _settle(ref: TensorRef, parts: list[Future[Tally]]) -> LayerStats | IngestError:
    try:
        return _finish(ref, (part.result() for part in parts))
    except IngestError as error:
        return error


def tensor_stats(ref: TensorRef, kernels: Mapping[str, Kernel] | None = None) -> LayerStats:
    """Statistics of one tensor; of the magnitudes where it is complex.

    Raises IngestError when its bytes cannot be read.
    """
    units = units_of(ref)
    return _finish(ref, (tally_piece(ref, piece, units, kernels) for piece in pieces(ref)))


def fan_in(ref: TensorRef) -> int | None:
    """Inputs of one output unit; None for vectors and lookup tables.

    PyTorch keeps ``[out, in, *kernel]``, Keras and Flax a ``kernel`` of ``[*kernel, in, out]``.
    """
    if len(ref.shape) < 2 or ref.slot or lookup_table(ref.name):
        return None
    return element_count(ref.shape[:-1] if units_last(ref.name) else ref.shape[1:])


def lookup_table(name: str) -> bool:
    """True for what its name says is looked up by row: embeddings of tokens and positions."""
    return bool(re.search(r"emb|(^|[._])w[tp]e([._]|$)", name, re.IGNORECASE))


def units_last(name: str) -> bool:
    """True where the output units are the last axis, as the name ``kernel`` tells."""
    return re.split(r"[./]", name)[-1].removesuffix(":0") == "kernel"


def units_of(ref: TensorRef) -> Units:
    """How the elements belong to output units; no units for vectors, scalars and what is empty."""
    last, count = units_last(ref.name), element_count(ref.shape)
    if len(ref.shape) < 2 or not count or ref.shape[-1 if last else 0] > MAX_UNITS:
        return Units()
    return Units(ref.shape[-1]) if last else Units(ref.shape[0], count // ref.shape[0])


# --- the result ------------------------------------------------------------------------------------


def _finish(ref: TensorRef, parts: Iterable[Tally]) -> LayerStats:
    with np.errstate(all="ignore"):
        tally = _total(ref, parts)
        codes.settle(tally)
        largest = max(abs(tally.minimum), abs(tally.maximum)) if tally.moments.count else 0.0
        if largest <= _HUGE and not 0 < largest < _TINY:
            return _described(ref, tally, 1.0)
        scale = 2.0 ** min(1022, math.frexp(largest)[1])
        units = units_of(ref)
        again = (tally_piece(ref, piece, units, scale=scale) for piece in pieces(ref))
        return _described(ref, _total(ref, again), scale)


def _total(ref: TensorRef, parts: Iterable[Tally]) -> Tally:
    total = Tally(np.zeros(units_of(ref).count))
    for part in parts:
        add(total, part)
    return total


def _described(ref: TensorRef, tally: Tally, scale: float) -> LayerStats:
    moments = tally.moments
    stats = LayerStats(
        name=ref.name,
        group=ref.group,
        shape=ref.shape,
        dtype=ref.dtype,
        count=element_count(ref.shape),
        mean=None,
        std=None,
        min=None,
        max=None,
        abs_max=None,
        l1=None,
        l2=None,
        zeros=tally.zeros,
        nan=tally.nan,
        inf=tally.inf,
        skew=None,
        kurtosis=None,
        slot=ref.slot,
        fan_in=fan_in(ref),
        subnormal=tally.subnormal,
    )
    if moments.count == 0:
        return stats
    std = math.sqrt(moments.m2 / moments.count)
    return replace(
        stats,
        mean=moments.mean * scale,
        std=std * scale,
        min=tally.minimum * scale,
        max=tally.maximum * scale,
        abs_max=max(abs(tally.minimum), abs(tally.maximum)) * scale,
        l1=_representable(tally.l1 * scale),
        l2=_representable(math.sqrt(moments.m2 + moments.count * moments.mean**2) * scale),
        skew=_skew(moments),
        kurtosis=_kurtosis(moments),
        **_distribution(tally, moments.mean, std, scale),
        **_units(ref, np.sqrt(tally.units) * scale),
    )


def _representable(value: float) -> float | None:
    """None for a sum beyond the range of float64."""
    return value if math.isfinite(value) else None


def _distribution(tally: Tally, mean: float, std: float, scale: float) -> dict[str, Any]:
    """Quantiles, the share of outliers, and a histogram over six standard deviations either way."""
    histogram = _histogram(tally)
    low, high = max(tally.minimum, mean - OUTLIER * std), min(tally.maximum, mean + OUTLIER * std)
    found = quantiles.quantiles(histogram, tally.minimum, tally.maximum)
    return {
        "quantiles": {name: value * scale for name, value in found.items()},
        "outliers": quantiles.share_outside(histogram, mean - OUTLIER * std, mean + OUTLIER * std),
        "histogram": quantiles.coarse(histogram, low, high, BINS),
        "histogram_range": (low * scale, high * scale),
    }


def _histogram(tally: Tally) -> Histogram:
    known = codes.codes_of(tally.coded)
    if tally.bins is None:
        return quantiles.of_values(np.concatenate(tally.kept))
    return (
        quantiles.of_codes(tally.bins, known.values) if known else quantiles.of_bins(tally.bins, tally.zeros)
    )


def _constant(moments: Moments) -> bool:
    """True when the spread is no more than rounding: shape measures would be noise."""
    return moments.m2 <= moments.count * (abs(moments.mean) * 1e-15) ** 2


def _skew(moments: Moments) -> float | None:
    """Third standardised moment (population); None for a constant."""
    if moments.count < 2 or _constant(moments):
        return None
    return moments.m3 / moments.count / math.pow(moments.m2 / moments.count, 1.5)


def _kurtosis(moments: Moments) -> float | None:
    """Excess kurtosis (population), 0 for a Gaussian; None for a constant."""
    if moments.count < 2 or _constant(moments):
        return None
    return moments.m4 * moments.count / moments.m2**2 - 3.0


# --- output units ------------------------------------------------------------------------------------


def _units(ref: TensorRef, norms: FloatArray) -> dict[str, Any]:
    if not len(norms):
        return {}
    ordered = np.sort(norms)
    middle = len(ordered) // 2
    median = float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)
    dead = int(np.searchsorted(ordered, _least_alive(median)))
    return {
        "unit_norm_min": float(ordered[0]),
        "unit_norm_median": median,
        "unit_norm_max": float(ordered[-1]),
        "unit_norms": norms,
        "dead_units": dead,
        "duplicate_units": _duplicates(ref, norms) if _repeats(ref, ordered[dead:]) else 0,
    }


def _least_alive(median: float) -> float:
    """Norm below which a unit is dead: zero, or next to nothing beside the median unit's."""
    return max(DEAD_NORM * median, 5e-324)


def _repeats(ref: TensorRef, alive: FloatArray) -> bool:
    """True where two units' norms agree to the last digits, so that the units may be equal."""
    if len(alive) < 2 or ref.count // units_of(ref).count < _SHORTEST_UNIT:
        return False
    return bool(np.any(_like_the_one_before(alive, _SAME_SQUARES)))


def _duplicates(ref: TensorRef, norms: FloatArray) -> int:
    """Live units that are equal to an earlier one.

    Reads the tensor again and compares the projections on a random vector, too: units that differ
    are not to be expected to agree in both.
    """
    projections = _projections(ref, units_of(ref))
    alive = norms >= _least_alive(float(np.median(norms)))
    sizes, directions = norms[alive], projections[alive] / norms[alive]
    order = np.lexsort((directions, sizes))
    near = np.abs(np.diff(directions[order], prepend=np.inf)) < _SAME_PROJECTION
    return int(np.sum(near & _like_the_one_before(sizes[order], _SAME_SQUARES)))


def _like_the_one_before(ordered: FloatArray, tolerance: float) -> NDArray[np.bool_]:
    return np.asarray(np.diff(ordered, prepend=-np.inf) <= tolerance * ordered)


def _projections(ref: TensorRef, units: Units) -> FloatArray:
    """Each unit's product with one random vector; NaN and Inf count as zero."""
    inputs = element_count(ref.shape) // units.count
    direction = np.random.default_rng(0).standard_normal(inputs)
    sums, position = np.zeros(units.count), 0
    for block in ref.blocks(BLOCK):
        place = np.arange(position, position + len(block))
        weight = direction[place % inputs if units.length else place // units.count]
        values = real(block)
        add_by_unit(sums, np.where(np.isfinite(values), values, 0.0) * weight, position, units)
        position += len(block)
    return sums
