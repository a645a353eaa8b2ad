"""Tensor statistics against an oracle that holds everything in memory, in double precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from analyzer.checkpoints import statistics
from analyzer.checkpoints.regions import ArrayBlocks
from analyzer.checkpoints.statistics import Moments, block_moments, layer_stats, merge, tensor_stats
from analyzer.model import Checkpoint, LayerStats, TensorRef


def ref_of(array: np.ndarray, name: str = "w", blocks: object = None) -> TensorRef:
    reader = blocks or ArrayBlocks(array)
    return TensorRef(name, array.shape, array.dtype.name, array.nbytes, "model", reader)  # type: ignore[arg-type]


def check(array: np.ndarray, tolerance: float = 1e-10) -> LayerStats:
    """Compares every field with numpy on the whole array at once."""
    got = tensor_stats(ref_of(array))
    x = np.abs(array.astype(np.complex128)) if array.dtype.kind == "c" else array.astype(np.float64)
    finite = x[np.isfinite(x)]
    assert got.count == array.size
    assert got.nan == np.isnan(x).sum()
    assert got.inf == np.isinf(x).sum()
    assert got.zeros == (finite == 0).sum()
    if not finite.size:
        assert (got.mean, got.std, got.min, got.max, got.l1, got.l2, got.skew) == (None,) * 7
        assert got.quantiles == {}
        return got
    scale = np.abs(finite).max()
    assert got.min == finite.min()
    assert got.max == finite.max()
    assert got.abs_max == scale
    unit = finite / scale if scale else finite  # keeps the oracle's own squares in range
    assert got.mean == pytest.approx(unit.mean() * scale, rel=tolerance, abs=tolerance * scale)
    assert got.std == pytest.approx(unit.std() * scale, rel=1e-8, abs=tolerance * scale)
    for value, relative in ((got.l1, np.abs(unit).sum()), (got.l2, np.sqrt((unit**2).sum()))):
        expected = float(relative) * float(scale)
        assert value == (pytest.approx(expected, rel=tolerance) if math.isfinite(expected) else None)
    for name, q in statistics.QUANTILES.items():
        assert got.quantiles[name] == pytest.approx(
            np.quantile(unit, q) * scale, rel=1e-10, abs=1e-12 * scale + 1e-323
        )
    return got


@given(
    npst.arrays(
        st.sampled_from([np.float64, np.float32, np.float16]),
        npst.array_shapes(max_dims=3, max_side=40),
        elements=st.floats(allow_nan=True, allow_infinity=True, width=16),
    )
)
@settings(max_examples=200, deadline=None)
def test_any_array_agrees_with_the_oracle(array: np.ndarray) -> None:
    check(array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), np.float32),
        np.array(2.5, np.float32),
        np.full((3, 3), np.nan),
        np.full(5, np.inf),
        np.array([np.nan, -np.inf, np.inf, 1.0, 0.0, -0.0]),
        np.array([1e-45, -1e-45, 3e-45], np.float32),  # subnormal in single
        np.array([5e-324, 1e-320, 0.0]),  # subnormal in double: squares underflow
        np.array([1e300, -1e300, 1e299]),  # squares overflow
        np.array([1.7e308, 1.7e308, -1.7e308]),
        np.array([3e38, -3e38], np.float32),
        np.arange(-5, 6, dtype=np.int8),
        np.array([2**62, -(2**62)], np.int64),
        np.array([True, False, True]),
        np.array([3 + 4j, 0, -1j], np.complex64),
    ],
    ids=str,
)
def test_special_values(array: np.ndarray) -> None:
    check(array)


@pytest.mark.parametrize("mean", [0.0, 1.0, 1e6])
def test_shape_measures_over_many_blocks_and_a_large_mean(
    mean: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "BLOCK", 4_000)
    x = np.random.default_rng(0).gamma(2.0, size=(30, 1_001)) + mean
    got = check(x)
    assert got.skew == pytest.approx(scipy.stats.skew(x, axis=None), rel=1e-6)
    assert got.kurtosis == pytest.approx(scipy.stats.kurtosis(x, axis=None), rel=1e-5)


@given(st.lists(npst.arrays(np.float64, st.integers(0, 20), elements=st.floats(-1e3, 1e3)), max_size=6))
@settings(max_examples=200, deadline=None)
def test_merging_moments_equals_taking_them_together(parts: list[np.ndarray]) -> None:
    merged = Moments()
    for part in parts:
        merged = merge(merged, block_moments(part))
    x = np.concatenate(parts) if parts else np.zeros(0)
    assert merged.count == len(x)
    if len(x):
        d = x - x.mean()
        assert merged.mean == pytest.approx(x.mean(), abs=1e-9)
        for power, value in ((2, merged.m2), (3, merged.m3), (4, merged.m4)):
            assert value == pytest.approx((d**power).sum(), rel=1e-9, abs=1e-12 * 1e3**power * len(x))


def test_a_constant_has_no_shape() -> None:
    got = check(np.full(1_000, 0.1, np.float32))
    assert got.skew is None
    assert got.kurtosis is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("law", ["normal", "heavy", "half zero", "tiny"])
def test_binned_quantiles_keep_their_error_bound(
    dtype: type, law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "EXACT_QUANTILES", 1_000)
    rng = np.random.default_rng(1)
    x = {
        "normal": rng.normal(1, 2, 50_000),
        "heavy": rng.standard_cauchy(50_000),
        "half zero": np.maximum(0, rng.normal(size=50_000)),
        "tiny": rng.normal(size=50_000) * 1e-3,
    }[law].astype(dtype)
    got = tensor_stats(ref_of(x))
    finite = np.sort(x[np.isfinite(x)].astype(np.float64))
    for name, q in statistics.QUANTILES.items():
        rank = q * (len(finite) - 1)
        low, high = finite[math.floor(rank)], finite[math.ceil(rank)]
        slack = 2**-7 * max(abs(low), abs(high)) + 1e-12
        assert low - slack <= got.quantiles[name] <= high + slack, name


def row_norms(x: np.ndarray) -> np.ndarray:
    flat = x.astype(np.float64).reshape(len(x), -1)
    return np.sqrt((np.where(np.isfinite(flat), flat, 0) ** 2).sum(axis=1))


@given(st.integers(1, 12), st.integers(1, 50), st.integers(8, 400), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_unit_norms_whatever_the_cut_into_blocks(rows: int, columns: int, block: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    x[0] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "BLOCK", block)
        got = tensor_stats(ref_of(x))
    norms = row_norms(x)
    assert got.unit_norm_min == pytest.approx(norms.min(), abs=1e-12)
    assert got.unit_norm_median == pytest.approx(np.median(norms), rel=1e-10)
    assert got.dead_units == 1


def test_a_row_far_below_the_median_is_dead_but_a_small_one_is_not() -> None:
    x = np.ones((10, 4))
    x[0] *= 1e-9
    x[1] *= 1e-7
    assert tensor_stats(ref_of(x)).dead_units == 1


def test_units_of_a_keras_kernel_are_its_last_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BLOCK", 100)
    x = np.random.default_rng(0).normal(size=(7, 5))
    x[:, :2] = 0
    got = tensor_stats(ref_of(x, "dense/kernel"))
    assert got.dead_units == 2
    assert got.unit_norm_median == pytest.approx(np.median(row_norms(x.T)))
    assert tensor_stats(ref_of(x, "dense.weight")).dead_units == 0


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("conv.weight", (8, 3, 5, 5), 75),
        ("fc.weight", (10, 20), 20),
        ("dense/kernel", (20, 10), 20),
        ("conv2d/kernel:0", (5, 5, 3, 8), 75),
        ("bias", (7,), None),
        ("embed_tokens.weight", (100, 16), None),
        ("scale", (), None),
    ],
)
def test_fan_in(name: str, shape: tuple[int, ...], expected: int | None) -> None:
    assert tensor_stats(ref_of(np.ones(shape), name)).fan_in == expected


class Counting:
    """Blocks that count how often they are read, and compare by what they read."""

    def __init__(self, array: np.ndarray):
        self.array, self.reads = array, 0

    def __call__(self, limit: int) -> Iterator[np.ndarray]:
        self.reads += 1
        yield from ArrayBlocks(self.array)(limit)


def test_an_alias_is_read_once_and_reported_under_both_names() -> None:
    array = np.arange(6.0).reshape(2, 3)
    blocks = Counting(array)
    tensors = (ref_of(array, "embed.weight", blocks), ref_of(array, "head.weight", blocks))
    first, second = layer_stats(Checkpoint("c.pt", "test", tensors))
    assert blocks.reads == 1
    assert (first.name, first.fan_in, second.name, second.fan_in) == ("embed.weight", None, "head.weight", 3)
    assert first.mean == second.mean == 2.5
    assert first.checkpoint == "c.pt"


def test_memory_does_not_grow_with_the_tensor(tmp_path: Path) -> None:
    import tracemalloc

    from analyzer.checkpoints.regions import Region, StoredBlocks

    rows = 4_096
    path = tmp_path / "raw"
    np.random.default_rng(0).normal(size=(rows, 2_048)).astype(np.float32).tofile(path)
    size = path.stat().st_size
    blocks = StoredBlocks(Region(str(path), 0, size, size), "float32", (rows, 2_048), (2_048, 1))
    tracemalloc.start()
    got = tensor_stats(TensorRef("w", (rows, 2_048), "float32", size, "model", blocks))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.std == pytest.approx(1, abs=0.01)
    assert peak < size / 4
