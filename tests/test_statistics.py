"""Tensor statistics against an oracle that holds everything in memory, in double precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from test_architecture import loaded_by

from analyzer.checkpoints import statistics
from analyzer.checkpoints.onepass import native, scan
from analyzer.checkpoints.onepass.codes import codes_of
from analyzer.checkpoints.onepass.moments import Moments, block_moments, counted_moments, merge
from analyzer.checkpoints.onepass.quantiles import QUANTILES
from analyzer.checkpoints.regions import (
    DTYPES,
    ArrayBlocks,
    JoinedBlocks,
    Region,
    StoredBlocks,
    row_major,
    widen,
)
from analyzer.checkpoints.statistics import layer_stats, tensor_stats
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, LayerStats, Problem, TensorRef


def ref_of(array: np.ndarray, name: str = "w", blocks: object = None) -> TensorRef:
    reader = blocks or ArrayBlocks(array)
    return TensorRef(name, array.shape, array.dtype.name, array.nbytes, "model", reader)  # type: ignore[arg-type]


COMPILED = pytest.param(native.kernels(), id="compiled")
PASSES = [pytest.param(None, id="numpy"), COMPILED]


def stored(path: Path, raw: np.ndarray, dtype: str, name: str = "w") -> TensorRef:
    """The array's bytes in a file behind a few others, as a tensor of that type."""
    path.write_bytes(b"header.." + raw.tobytes())
    region = Region(str(path), 0, 8 + raw.nbytes, 8 + raw.nbytes)
    blocks = StoredBlocks(region, dtype, raw.shape, row_major(raw.shape), 8)
    return TensorRef(name, raw.shape, dtype, raw.nbytes, "model", blocks)


def check(array: np.ndarray, tolerance: float = 1e-10, exact: bool = True) -> LayerStats:
    """Compares every field with numpy on the whole array at once."""
    got = tensor_stats(ref_of(array))
    return compare(got, array, tolerance, exact)


def compare(got: LayerStats, array: np.ndarray, tolerance: float = 1e-10, exact: bool = True) -> LayerStats:
    """``exact`` quantiles, or such as binning by leading bits allows."""
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
    for name, q in QUANTILES.items():
        if exact:
            expected = pytest.approx(np.quantile(unit, q) * scale, rel=1e-10, abs=1e-12 * scale + 1e-323)
            assert got.quantiles[name] == expected
        else:
            assert_within_a_bin(got.quantiles[name], finite, q)
    return got


def assert_within_a_bin(got: float, finite: np.ndarray, q: float) -> None:
    """Off by no more than 2**-7 of the order statistics on both sides."""
    rank = q * (finite.size - 1)
    low, high = (float(np.sort(finite, axis=None)[k]) for k in (math.floor(rank), math.ceil(rank)))
    slack = 2**-7 * max(abs(low), abs(high)) * 1.0001 + 1e-30
    assert low - slack <= got <= high + slack, (q, low, got, high)


@given(
    npst.arrays(
        st.sampled_from([np.float64, np.float32, np.float16]),
        npst.array_shapes(max_dims=3, max_side=40),
        elements=st.floats(allow_nan=True, allow_infinity=True, width=16),
    )
)
@settings(max_examples=200, deadline=None)
def test_any_array_agrees_with_the_oracle(array: np.ndarray) -> None:
    check(array, exact=array.size <= scan.EXACT_QUANTILES or array.dtype == np.float16)


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
    monkeypatch.setattr(scan, "BLOCK", 4_000)
    x = np.random.default_rng(0).gamma(2.0, size=(30, 1_001)) + mean
    got = check(x, exact=False)
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


LAWS = {
    "normal": lambda rng, n: rng.normal(0.3, 2, n),
    "heavy": lambda rng, n: rng.standard_cauchy(n),
    "half zero": lambda rng, n: np.maximum(0, rng.normal(size=n)),
    "far from zero": lambda rng, n: 1000 + rng.normal(size=n),
    "tiny": lambda rng, n: rng.normal(size=n) * 1e-41,
    "broken": lambda rng, n: np.where(rng.random(n) < 0.01, rng.choice([np.nan, np.inf, -np.inf], n), rng.normal(size=n)),
    "all NaN": lambda rng, n: np.full(n, np.nan),
    "signed zeros": lambda rng, n: rng.choice([0.0, -0.0], n),
}  # fmt: skip


@pytest.mark.parametrize("kernels", PASSES)
@pytest.mark.parametrize("law", LAWS)
def test_single_precision_over_many_blocks(
    law: str, kernels: dict[str, native.Kernel] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "BLOCK", 20_000)
    monkeypatch.setattr(scan, "PIECE", 90_000)
    with np.errstate(over="ignore", under="ignore"):
        x = LAWS[law](np.random.default_rng(1), 41 * 1_201).astype(np.float32).reshape(41, 1_201)
    got = compare(tensor_stats(stored(tmp_path / "x", x, "float32"), kernels), x, 1e-9, exact=False)
    small = np.abs(x[np.isfinite(x)])
    assert got.subnormal == ((small > 0) & (small < np.finfo(np.float32).tiny)).sum()
    finite = x[np.isfinite(x)].astype(np.float64)
    if finite.size and finite.std() > 0:
        assert got.skew == pytest.approx(scipy.stats.skew(finite), rel=1e-6, abs=1e-6)
        assert got.kurtosis == pytest.approx(scipy.stats.kurtosis(finite), rel=1e-6, abs=1e-6)
    if finite.size:
        assert got.unit_norm_median == pytest.approx(np.median(row_norms(x)), rel=1e-9)
        assert sum(got.histogram) == finite.size


CODED = [
    "float16",
    "bfloat16",
    "int8",
    "uint8",
    "int16",
    "bool",
    *(d for d in DTYPES if d.startswith("float8")),
]


@pytest.mark.parametrize("kernels", PASSES)
@pytest.mark.parametrize("dtype", CODED)
def test_types_of_few_bits_lose_nothing(
    dtype: str, kernels: dict[str, native.Kernel] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every code occurs, NaN, Inf and subnormals among them; quantiles are exact."""
    monkeypatch.setattr(scan, "BLOCK", 7_000)
    monkeypatch.setattr(scan, "EXACT_QUANTILES", 10)
    size = DTYPES[dtype].size
    raw = np.random.default_rng(2).integers(0, 2 if dtype == "bool" else 256**size, 50 * 999).reshape(50, 999)
    raw = raw.astype(f"u{size}")
    widened = widen(raw.view(DTYPES[dtype].raw), DTYPES[dtype]).astype(np.float64)
    got = compare(tensor_stats(stored(tmp_path / "x", raw, dtype), kernels), widened, 1e-9)
    assert got.unit_norm_median == pytest.approx(np.median(row_norms(widened)), rel=1e-9)


def test_subnormal_codes_are_told_from_normal_ones(tmp_path: Path) -> None:
    half = np.array([0.0, 6e-8, 6.1e-5, 6.2e-5, 1.0, -6e-8], np.float16)
    assert tensor_stats(stored(tmp_path / "x", half, "float16")).subnormal == 3
    many = np.tile(half, 2_000)
    assert tensor_stats(stored(tmp_path / "y", many, "float16")).subnormal == 6_000
    eight = np.arange(256, dtype=np.uint8)  # e4m3fn: three bits of mantissa, so 7 subnormals a sign
    assert tensor_stats(stored(tmp_path / "z", eight, "float8_e4m3fn")).subnormal == 14


@pytest.mark.parametrize("kernels", PASSES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
@pytest.mark.parametrize("shape", [(3, 40_000), (9_001, 2), (4, 3, 3, 3), (1, 50_000), (50_000, 1)], ids=str)
@pytest.mark.parametrize("name", ["conv.weight", "conv/kernel"])
def test_units_wherever_blocks_and_pieces_are_cut(
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    kernels: dict[str, native.Kernel] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scan, "BLOCK", 10_000)
    monkeypatch.setattr(scan, "PIECE", 33_000)
    rng, size = np.random.default_rng(3), DTYPES[dtype].size
    if dtype == "float32":
        raw = rng.normal(size=shape).astype(np.float32)
    else:
        raw = rng.integers(0, 1 << 14 if size == 2 else 256, shape).astype(f"u{size}")
    values = widen(raw.view(DTYPES[dtype].raw), DTYPES[dtype]).astype(np.float64)
    norms = row_norms(np.moveaxis(values, -1, 0) if name.endswith("kernel") else values)
    got = tensor_stats(stored(tmp_path / "x", raw, dtype, name), kernels)
    assert got.unit_norm_median == pytest.approx(np.median(norms), rel=1e-9)
    assert got.unit_norm_min == pytest.approx(norms.min(), rel=1e-9)
    assert got.unit_norm_max == pytest.approx(norms.max(), rel=1e-9)


def test_a_tensor_kept_in_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PIECE", 30_000)
    x = np.random.default_rng(4).normal(size=(60, 500)).astype(np.float32)
    parts = [stored(tmp_path / str(k), x[k : k + 20], "float32").blocks for k in (0, 20, 40)]
    ref = TensorRef("w", x.shape, "float32", x.nbytes, "model", JoinedBlocks(tuple(parts)))  # type: ignore[arg-type]
    assert len(scan.pieces(ref)) == 6
    compare(tensor_stats(ref), x, 1e-9, exact=False)


def test_the_numpy_pass_and_the_compiled_one_agree(tmp_path: Path) -> None:
    x = np.random.default_rng(5).normal(1, 3, size=(200, 300)).astype(np.float32)
    ref = stored(tmp_path / "x", x, "float32")
    one, other = asdict(tensor_stats(ref)), asdict(tensor_stats(ref, native.kernels()))
    assert one["quantiles"] == pytest.approx(other["quantiles"], rel=1e-12)
    assert one["histogram"] == other["histogram"]
    for field in ("mean", "std", "l1", "l2", "skew", "kurtosis", "unit_norm_median", "outliers"):
        assert one[field] == pytest.approx(other[field], rel=1e-9)


def test_large_checkpoints_use_the_compiled_pass_and_do_without_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(native, "kernels", lambda build: asked.append(build))
    x = np.random.default_rng(6).normal(size=10_000).astype(np.float32)
    checkpoint = Checkpoint("c", "test", (stored(tmp_path / "x", x, "float32"),))
    (small,) = layer_stats(checkpoint)
    assert not asked
    monkeypatch.setattr(statistics, "COMPILED_FROM", 1)
    (large,) = layer_stats(checkpoint)
    assert asked == [False]
    monkeypatch.setattr(statistics, "BUILT_FROM", 1)
    (larger,) = layer_stats(checkpoint)
    assert asked == [False, True]
    assert small == large == larger


def test_compiled_code_is_kept_where_it_can_be_written_and_built_again_when_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not built unless asked; without a folder there is none, and numpy does the work."""
    built: list[int] = []

    def build(*_: object) -> bytes:
        built.append(1)
        return b"code"

    monkeypatch.setattr("analyzer.checkpoints.onepass.compiled.object_code", build)
    monkeypatch.setattr(native, "_loaded", lambda llvm, machine, code: {"single": code})
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setattr(native, "_folders", lambda: (blocked,))
    assert native.kernels.__wrapped__() is None
    monkeypatch.setattr(native, "_folders", lambda: (blocked, tmp_path / "new"))
    assert native.kernels.__wrapped__(build=False) is None
    assert not built
    for _ in range(2):
        assert native.kernels.__wrapped__() == {"single": b"code"}
    (kept,) = (tmp_path / "new").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    assert native.kernels.__wrapped__() == {"single": b"code"}
    assert len(built) == 2


@pytest.mark.parametrize("kernels", PASSES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_file_that_ends_early_says_so(
    dtype: str, kernels: dict[str, native.Kernel] | None, tmp_path: Path
) -> None:
    raw = np.ones(20_000, f"u{DTYPES[dtype].size}")
    ref = stored(tmp_path / "x", raw, dtype)
    with (tmp_path / "x").open("r+b") as file:
        file.truncate(8 + raw.nbytes // 2)
    with pytest.raises(IngestError, match="file ends") as caught:
        tensor_stats(ref, kernels)
    assert (caught.value.kind, caught.value.offset) == ("truncated", 8 + raw.nbytes // 2)


def test_a_small_checkpoint_loads_neither_numba_nor_torch(tmp_path: Path) -> None:
    import torch

    torch.save({"fc.weight": torch.randn(300, 200)}, tmp_path / "small.pt")
    assert not loaded_by(["checkpoint", "small.pt"], tmp_path) & {"numba", "llvmlite", "torch", "scipy"}


def test_outliers_are_told_from_the_bulk() -> None:
    x = np.random.default_rng(7).normal(size=100_000)
    assert tensor_stats(ref_of(x)).outliers == 0
    x[::1_000] = 40
    assert tensor_stats(ref_of(x)).outliers == pytest.approx(1e-3)


def test_the_histogram_counts_what_lies_where() -> None:
    x = np.concatenate([np.full(700, -1.0), np.full(300, 2.0)])
    got = tensor_stats(ref_of(x))
    assert (got.histogram[0], got.histogram[-1], sum(got.histogram)) == (700, 300, 1_000)
    assert got.histogram_range == (-1.0, 2.0)


@pytest.mark.parametrize("name", ["fc.weight", "fc/kernel"])
def test_equal_units_are_counted_but_not_dead_ones_or_such_of_equal_norm(name: str) -> None:
    x = np.random.default_rng(8).normal(size=(40, 30)).astype(np.float32)
    x[7] = x[3]
    x[20] = x[3]
    x[30:33] = 0
    x[5] = -x[6]  # same norm, another unit
    x[9] = np.roll(x[8], 1)
    got = tensor_stats(ref_of(x if name == "fc.weight" else np.ascontiguousarray(x.T), name))
    assert (got.duplicate_units, got.dead_units) == (2, 3)


def test_one_unreadable_tensor_costs_only_itself(tmp_path: Path) -> None:
    x = np.ones((10, 10), np.float32)
    good, bad = (stored(tmp_path / name, x, "float32", name) for name in ("good", "bad"))
    (tmp_path / "bad").write_bytes(b"too short")
    problems: list[Problem] = []
    found = list(layer_stats(Checkpoint("c", "test", (bad, good)), problems))
    assert [stats.name for stats in found] == ["good"]
    assert [problem.kind for problem in problems] == ["truncated"]
    assert "'bad'" in problems[0].message
    with pytest.raises(IngestError):
        list(layer_stats(Checkpoint("c", "test", (bad, good))))


def test_counted_values_have_the_moments_of_the_values_themselves() -> None:
    values, counts = np.array([-2.0, 0.5, 3.0]), np.array([3, 10, 1])
    got, expected = counted_moments(values, counts), block_moments(np.repeat(values, counts))
    assert (got.count, got.mean) == (expected.count, pytest.approx(expected.mean))
    assert (got.m2, got.m3, got.m4) == pytest.approx((expected.m2, expected.m3, expected.m4))


def test_every_code_of_a_type_has_its_value() -> None:
    known = codes_of("bfloat16")
    assert known is not None
    assert known.values[0x3F80] == 1.0
    assert np.isnan(known.values[0x7FC0])
    assert codes_of("float32") is None


def test_the_median_of_mostly_zeros_is_zero(tmp_path: Path) -> None:
    x = np.random.default_rng(9).normal(size=30_000).astype(np.float32)
    x[::2] = x[1::4] = 0
    for array, dtype in ((x, "float32"), (x.astype(np.float64), "float64")):
        assert tensor_stats(stored(tmp_path / dtype, array, dtype)).quantiles["q50"] == 0


def row_norms(x: np.ndarray) -> np.ndarray:
    flat = x.astype(np.float64).reshape(len(x), -1)
    return np.sqrt((np.where(np.isfinite(flat), flat, 0) ** 2).sum(axis=1))


@given(st.integers(1, 12), st.integers(1, 50), st.integers(8, 400), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_unit_norms_whatever_the_cut_into_blocks(rows: int, columns: int, block: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    x[0] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "BLOCK", block)
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
    monkeypatch.setattr(scan, "BLOCK", 100)
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
        ("transformer.wte.weight", (100, 16), None),
        ("newt.weight", (100, 16), 16),
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
