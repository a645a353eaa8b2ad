"""Singular values of a checkpoint's weight matrices: how many directions a layer really uses.

Where the smaller side is at most ``GRAM`` the whole spectrum comes from the eigenvalues of the
Gram matrix on that side, in double precision; beyond, the largest singular value from a Lanczos
iteration and the effective rank from a stochastic trace estimate. A full SVD is never taken.
Kernels of convolutions are matrices of output units times inputs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.entries import is_buffer
from analyzer.checkpoints.onepass.layout import BLOCK
from analyzer.checkpoints.regions import element_count
from analyzer.checkpoints.statistics import THREADS, units_last
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, FloatArray, LayerStats, Spectrum, TensorRef

GRAM = 4096  # smaller side up to which the Gram matrix's eigenvalues are affordable
UNASKED = (
    1.5e9  # multiplications spent on a checkpoint's spectra without being asked: about a third of a second
)
UNASKED_SIDE = 512
LEAST_SIDE = 4  # fewer singular values are no spectrum
_MOST_ELEMENTS = 1 << 28  # of a matrix held in memory, a gigabyte in single precision
_BAND = 512  # rows multiplied at a time
_STEPS = 300  # of the Lanczos iteration at most
_RESIDUAL = 3e-6  # of the largest eigenvalue: what single-precision products can reach
_PROBES, _PROBE_STEPS = 8, 64  # of the stochastic estimate
_LEAST_TAIL = 10  # eigenvalues that a power law is fitted to
_LOOKS = 32  # values at which a tail is looked at before all of it is
_LEAST_FOR_TAIL = 50  # eigenvalues below which no law is told from another

Matrix = NDArray[np.floating[Any]]
Apply = Callable[[FloatArray], FloatArray]


def spectral(checkpoint: Checkpoint) -> Iterator[tuple[str, Spectrum]]:
    """Name and spectrum of every weight matrix and kernel of the model, in depth order.

    Those with NaN or Inf are left out. Raises IngestError when a tensor cannot be read.
    """
    for ref in checkpoint.tensors:
        found = spectrum(ref) if _is_weight(ref) else None
        if found:
            yield ref.name, found


def with_spectra(checkpoint: Checkpoint, layers: Iterable[LayerStats], asked: bool) -> Iterator[LayerStats]:
    """The layers with their spectra; unless ``asked`` only of small matrices, until ``UNASKED`` is spent.

    Two matrices are worked on at a time: libraries of linear algebra use two threads badly for one.
    """
    weights = {(ref.name, ref.shape): ref for ref in checkpoint.tensors if _is_weight(ref)}
    waiting: deque[tuple[LayerStats, Future[Spectrum | None] | None]] = deque()
    spent, pool = 0.0, ThreadPoolExecutor(THREADS)
    try:
        for layer in layers:
            ref = weights.get((layer.name, layer.shape)) if layer.group == "model" else None
            cost = _cost(*sides(ref)) if ref else 0.0
            task = None
            if ref and not layer.nan + layer.inf and (asked or _affordable(ref, spent + cost)):
                spent += cost
                task = pool.submit(spectrum, ref)
            waiting.append((layer, task))
            while sum(task is not None for _, task in waiting) > THREADS:
                yield _with_spectrum(*waiting.popleft())
        while waiting:
            yield _with_spectrum(*waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _affordable(ref: TensorRef, spent: float) -> bool:
    return min(sides(ref)) <= UNASKED_SIDE and spent <= UNASKED


def _with_spectrum(layer: LayerStats, task: Future[Spectrum | None] | None) -> LayerStats:
    with suppress(IngestError):  # the statistics have told of it
        return replace(layer, spectrum=task.result()) if task else layer
    return layer


def _is_weight(ref: TensorRef) -> bool:
    if ref.group != "model" or len(ref.shape) < 2 or is_buffer(ref.name, ref.dtype):
        return False
    return min(sides(ref)) >= LEAST_SIDE and not ref.dtype.startswith("complex")


def sides(ref: TensorRef) -> tuple[int, int]:
    """Rows and columns of the matrix that a weight or kernel is."""
    if units_last(ref.name):
        return element_count(ref.shape[:-1]), ref.shape[-1]
    return ref.shape[0], element_count(ref.shape[1:])


def _cost(rows: int, columns: int) -> float:
    """Multiplications of the Gram matrix and of its eigenvalues."""
    small, large = sorted((rows, columns))
    return small * small * (large / 2 + 4 * small)


def spectrum(ref: TensorRef) -> Spectrum | None:
    """Spectrum of one matrix; None where an element is NaN or Inf, all are zero, or it is too large."""
    rows, columns = sides(ref)
    with np.errstate(all="ignore"):
        if min(rows, columns) <= GRAM and (columns <= rows or rows * columns <= _MOST_ELEMENTS):
            values = gram_eigenvalues(ref)
            return from_eigenvalues(rows, columns, values) if np.isfinite(values).all() else None
        if rows * columns > _MOST_ELEMENTS:
            return None
        return _iterated(_matrix(ref))


def _matrix(ref: TensorRef) -> Matrix:
    """All of it, in single precision unless it is kept in double."""
    rows, columns = sides(ref)
    matrix: Matrix = np.empty(rows * columns, np.float64 if ref.dtype == "float64" else np.float32)
    position = 0
    for block in ref.blocks(BLOCK):
        matrix[position : position + len(block)] = block
        position += len(block)
    return matrix.reshape(rows, columns)


def gram_eigenvalues(ref: TensorRef) -> FloatArray:
    """Squared singular values, ascending, as many as the smaller side; NaN where the matrix has any."""
    rows, columns = sides(ref)
    side = min(rows, columns)
    gram = np.zeros((side, side))
    for part in _bands(ref) if columns <= rows else _column_bands(_matrix(ref)):
        gram += part.T @ part
    if not np.isfinite(gram).all():
        return np.full(side, np.nan)
    return np.asarray(np.maximum(np.linalg.eigvalsh(gram), 0.0))


def _bands(ref: TensorRef) -> Iterator[FloatArray]:
    """Bands of rows in double precision, read one after another."""
    rows, columns = sides(ref)
    band, filled = np.empty(min(rows, _BAND) * columns), 0
    for block in ref.blocks(BLOCK):
        while len(block):
            part = block[: len(band) - filled]
            band[filled : filled + len(part)] = part
            filled, block = filled + len(part), block[len(part) :]
            if filled == len(band):
                yield band.reshape(-1, columns)
                filled = 0
    if filled:
        yield band[:filled].reshape(-1, columns)


def _column_bands(matrix: Matrix) -> Iterator[FloatArray]:
    for first in range(0, matrix.shape[1], _BAND):
        yield matrix[:, first : first + _BAND].T.astype(np.float64)


def from_eigenvalues(rows: int, columns: int, values: FloatArray) -> Spectrum | None:
    """The spectrum whose squared singular values, ascending, are ``values``; None when all are zero."""
    largest = float(values[-1])
    if largest <= 0:
        return None
    sizes = np.sqrt(values / largest)
    exponent, distance, tail = tail_exponent(values) or (None, None, None)
    return Spectrum(
        rows=rows,
        columns=columns,
        largest=math.sqrt(largest),
        stable_rank=float(values.sum() / largest),
        effective_rank=float(np.exp(_entropy(sizes / sizes.sum()))),
        tail_exponent=exponent,
        tail_distance=distance,
        tail_count=tail,
    )


def _entropy(shares: FloatArray) -> float:
    positive = shares[shares > 0]
    return float(-np.sum(positive * np.log(positive)))


# --- the tail --------------------------------------------------------------------------------------


def tail_exponent(values: FloatArray) -> tuple[float, float, int] | None:
    """Exponent of a power law fitted to the largest eigenvalues, its distance, and their number.

    ``values`` ascend. Maximum likelihood above every possible start of the tail; that start is
    taken whose Kolmogorov-Smirnov distance from the law is least (Clauset, Shalizi & Newman 2009,
    sections 3.1 and 3.3). The distance is about 0.05 for a good fit, above 0.1 there is no power
    law. None for fewer than fifty positive values.
    """
    positive = values[values > values[-1] * 1e-12]
    if len(positive) < _LEAST_FOR_TAIL:
        return None
    logs = np.log(positive)
    best, least = (math.nan, math.inf, 0), _least_distances(logs)
    for start in np.argsort(least, kind="stable"):
        if least[start] >= best[1]:
            break
        above = logs[start:] - logs[start]
        total, n = float(above.sum()), len(above)
        if total <= 0:
            continue
        law = -np.expm1(above * (-n / total))  # 1 - (x / start) ** (1 - exponent)
        place = np.arange(n + 1) / n
        distance = max(float(np.max(law - place[:-1])), float(np.max(place[1:] - law)))
        if distance < best[1]:
            best = (1 + n / total, distance, n)
    return best if best[2] else None


def _least_distances(logs: FloatArray) -> FloatArray:
    """For every start of a tail what its distance is at least: taken at a few of its values only."""
    start = np.arange(len(logs) - _LEAST_TAIL + 1)
    sizes = len(logs) - start
    totals = np.cumsum(logs[::-1])[::-1][start] - sizes * logs[start]
    place = (np.arange(_LOOKS) * sizes[:, None]) // _LOOKS
    with np.errstate(all="ignore"):
        law = -np.expm1((logs[start, None] - logs[start[:, None] + place]) * (sizes / totals)[:, None])
    distance = np.maximum(law - place / sizes[:, None], (place + 1) / sizes[:, None] - law).max(axis=1)
    return np.where(totals > 0, distance - 1e-9, 0.0)  # sums in another order differ in their last digits


# --- large matrices --------------------------------------------------------------------------------


def _iterated(matrix: Matrix) -> Spectrum | None:
    """Largest singular value by iteration, effective rank by a stochastic estimate; no tail."""
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    found = _largest_and_stable_rank(matrix)
    if found is None:
        return None
    largest, stable_rank = found
    rank = _estimated_rank(matrix, largest)
    rows, columns = matrix.shape
    return Spectrum(rows, columns, largest, stable_rank, rank, exact=False)


def largest_and_stable_rank(ref: TensorRef) -> tuple[float, float] | None:
    """The largest singular value to about ten digits, and Σσ²/σ₁²; None where there is no spectrum."""
    with np.errstate(all="ignore"):
        return _largest_and_stable_rank(_matrix(ref))


def _largest_and_stable_rank(matrix: Matrix) -> tuple[float, float] | None:
    largest, total = _top_and_total(matrix)
    if not (0 < largest < math.inf and 0 < total < math.inf):
        return None
    return math.sqrt(largest), total / largest


def largest_singular_value(matrix: Matrix) -> float:
    """The largest singular value to about ten digits, by Lanczos iteration on the Gram operator."""
    return math.sqrt(_top_and_total(matrix)[0])


def _top_and_total(matrix: Matrix) -> tuple[float, float]:
    """The largest squared singular value, and the sum of all.

    Products are in single precision. The vector found is good to about six digits, and its
    Rayleigh quotient, taken in double precision, to twice as many. The iteration stops by its
    residual and not by the value standing still: on a flat spectrum with one value slightly above
    the others the value stands still long before that one is found.
    """
    alphas, betas, basis = _lanczos(_gram_operator(matrix), matrix.shape[1], _STEPS, _RESIDUAL, seed=0)
    if not all(map(math.isfinite, alphas)):
        return math.nan, math.nan
    weights = np.linalg.eigh(_tridiagonal(alphas, betas))[1][:, -1]
    vector = weights @ basis
    vector /= math.sqrt(float(vector @ vector))
    largest = total = 0.0
    for band in _in_double(matrix):
        image, elements = band @ vector, band.reshape(-1)
        largest += float(image @ image)
        total += float(elements @ elements)
    return largest, total


def _in_double(matrix: Matrix) -> Iterator[FloatArray]:
    """Bands of rows; each is overwritten by the next."""
    height = max(1, (1 << 17) // matrix.shape[1])
    wide = np.empty((min(height, len(matrix)), matrix.shape[1]))
    for first in range(0, len(matrix), height):
        band = matrix[first : first + height]
        wide[: len(band)] = band
        yield wide[: len(band)]


def _gram_operator(matrix: Matrix) -> Apply:
    """x -> Wᵀ(Wx), a band of rows at a time, so that memory is read once."""
    height = max(1, (1 << 18) // matrix.shape[1])

    def apply(x: FloatArray) -> FloatArray:
        single, total = x.astype(np.float32), np.zeros(matrix.shape[1])
        for first in range(0, len(matrix), height):
            band = matrix[first : first + height]
            total += (band @ single) @ band
        return total

    return apply


def _lanczos(
    apply: Apply, size: int, steps: int, residual: float, seed: int
) -> tuple[list[float], list[float], FloatArray]:
    """Diagonal and side diagonal of the tridiagonal matrix, and the basis as rows.

    Every new vector is made orthogonal to the last two, then to all before it, so that no
    eigenvalue is found again. Stops when the largest eigenvalue's residual is below ``residual`` of
    it, when the space is exhausted, as it is at once for a multiple of an orthogonal matrix, or at
    what is not finite.
    """
    basis = np.empty((min(steps, size), size))
    vector = np.random.default_rng(seed).standard_normal(size)
    vector /= math.sqrt(float(vector @ vector))
    alphas: list[float] = []
    betas: list[float] = []
    due = 3 if residual else -1  # the step after which the residual is looked at next
    for step in range(len(basis)):
        basis[step] = vector
        known = basis[: step + 1]
        image = apply(vector)
        alphas.append(float(image @ vector))
        image -= alphas[-1] * vector
        if betas:
            image -= betas[-1] * basis[step - 1]
        image -= (known @ image) @ known
        beta = math.sqrt(float(image @ image))
        if not beta > 1e-7 * max(map(abs, alphas)):
            break
        if step == due:
            left = _residual(alphas, betas, beta) / residual
            if left < 1:
                break
            due += min(8, 1 + int(2 * math.log10(left)))
        betas.append(beta)
        vector = image / beta
    return alphas, betas[: len(alphas) - 1], basis[: len(alphas)]


def _tridiagonal(alphas: list[float], betas: list[float]) -> FloatArray:
    return np.diag(alphas) + np.diag(betas, 1) + np.diag(betas, -1)


def _residual(alphas: list[float], betas: list[float], beta: float) -> float:
    values, vectors = np.linalg.eigh(_tridiagonal(alphas, betas))
    return float(beta * abs(vectors[-1, -1]) / values[-1])


def _estimated_rank(matrix: Matrix, largest: float) -> float:
    """Effective rank by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017), good to a few percent.

    With s = σ/σ₁ the entropy of s/Σs is log Σs − Σ s log s / Σs, and both sums are traces of a
    function of the Gram matrix.
    """
    apply, columns = _gram_operator(matrix), matrix.shape[1]
    sums = np.zeros(2)
    for probe in range(_PROBES):
        alphas, betas, _ = _lanczos(apply, columns, _PROBE_STEPS, 0.0, seed=probe + 1)
        values, vectors = np.linalg.eigh(_tridiagonal(alphas, betas))
        s = np.sqrt(np.clip(values / largest**2, 1e-300, 1.0))
        sums += columns / _PROBES * np.array([vectors[0] ** 2 @ s, vectors[0] ** 2 @ (s * np.log(s))])
    return float(np.exp(np.log(sums[0]) - sums[1] / sums[0]))
