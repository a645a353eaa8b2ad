"""Spectra against a full SVD in double precision, and what a trained or a fresh network looks like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from analyzer.checkpoints import open_checkpoint, spectral
from analyzer.checkpoints.regions import ArrayBlocks
from analyzer.checkpoints.spectral import (
    largest_and_stable_rank,
    largest_singular_value,
    spectrum,
    tail_exponent,
    with_spectra,
)
from analyzer.checkpoints.statistics import layer_stats
from analyzer.cli import cli
from analyzer.features import compute
from analyzer.model import Checkpoint, Measurement, Missing, Run, TensorRef


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only lose by threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ref_of(array: np.ndarray, name: str = "fc.weight") -> TensorRef:
    return TensorRef(name, array.shape, array.dtype.name, array.nbytes, "model", ArrayBlocks(array))


def with_values(values: np.ndarray, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """A matrix of random directions with these singular values."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.normal(size=(rows, len(values))))[0]
    right = np.linalg.qr(rng.normal(size=(columns, len(values))))[0]
    return (left * values) @ right.T


def oracle(matrix: np.ndarray) -> tuple[float, float, float]:
    """Largest singular value, stable rank, effective rank."""
    s = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    p = s / s.sum()
    p = p[p > 1e-14]
    return s[0], (s**2).sum() / s[0] ** 2, np.exp(-(p * np.log(p)).sum())


SPECTRA = {
    "gaussian": np.random.default_rng(1).normal(size=(120, 300)),
    "tall": np.random.default_rng(2).normal(size=(400, 90)),
    "decaying": with_values(np.exp(-np.arange(100) / 5), 150, 100),
    "one direction": with_values(np.array([3.0]), 60, 80),
    "all equal": with_values(np.full(100, 0.5), 100, 200),
    "far apart": with_values(np.array([1e6, 1.0, 1e-3]), 50, 50),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_ranks_agree_with_a_full_svd(name: str) -> None:
    matrix = SPECTRA[name]
    found = spectrum(ref_of(matrix))
    assert found is not None
    largest, stable, effective = oracle(matrix)
    assert found.largest == pytest.approx(largest, rel=1e-9)
    assert found.stable_rank == pytest.approx(stable, rel=1e-9)
    # the Gram matrix's rounding leaves noise of 1e-8 of the largest in the zero singular values
    assert found.effective_rank == pytest.approx(effective, rel=1e-4)
    assert (found.rows, found.columns, found.exact) == (*matrix.shape, True)


@pytest.mark.parametrize("shape", [(40, 3, 5, 5), (24, 70), (70, 24)], ids=str)
@pytest.mark.parametrize("name", ["conv.weight", "conv/kernel"])
def test_kernels_are_matrices_of_units_times_inputs(
    name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectral, "BLOCK", 1_000)
    kernel = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    last = name.endswith("kernel")
    matrix = kernel.reshape(-1, shape[-1]) if last else kernel.reshape(shape[0], -1)
    found = spectrum(ref_of(kernel, name))
    assert found is not None
    assert (found.rows, found.columns) == matrix.shape
    assert found.largest == pytest.approx(oracle(matrix)[0], rel=1e-9)


FLAT = {
    "all equal": np.full(300, 2.0),
    "one barely above the rest": np.concatenate([[1.001], np.ones(299)]),
    "one just above the rest": np.concatenate([[1.01], np.ones(299)]),
    "a slope without a gap": np.linspace(1, 0.5, 300),
    "two equal on top": np.concatenate([[5.0, 5.0], np.linspace(4.9, 1, 298)]),
    "a pair a millionth apart": np.concatenate([[3.000003, 3.0], np.ones(298)]),
    "a single direction": np.concatenate([[7.0], np.zeros(299)]),
}


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("seed", range(3))
def test_flat_spectra_do_not_fool_the_iteration(name: str, seed: int) -> None:
    matrix = with_values(FLAT[name], 400, 300, seed).astype(np.float32)
    expected = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[0]
    assert largest_singular_value(matrix) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(900, 600), (300, 1200), (700, 700)], ids=str)
@pytest.mark.parametrize("heavy", [False, True])
def test_largest_value_and_stable_rank_to_nine_digits(shape: tuple[int, int], heavy: bool) -> None:
    rng = np.random.default_rng(4)
    scale = rng.pareto(2.5, shape[1]) if heavy else 1.0
    matrix = (rng.normal(size=shape) * scale).astype(np.float32)
    assert largest_and_stable_rank(ref_of(matrix)) == pytest.approx(oracle(matrix)[:2], rel=1e-9)


@pytest.mark.parametrize("name", ["decaying", "gaussian", "far apart"])
def test_no_direction_is_found_twice(name: str) -> None:
    """Once the largest value has converged, an iteration that forgets its vectors finds it again."""
    matrix = SPECTRA[name].astype(np.float32)
    apply = spectral._gram_operator(matrix)
    _, _, basis = spectral._lanczos(apply, matrix.shape[1], 60, 0.0, seed=0)
    assert np.abs(basis @ basis.T - np.eye(len(basis))).max() < 1e-9


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_the_iteration_leaves_what_is_not_finite(bad: float) -> None:
    """Squares of 1e30 are beyond single precision."""
    matrix = np.ones((20, 20), np.float32)
    matrix[3, 4] = bad
    assert largest_and_stable_rank(ref_of(matrix)) is None


def test_matrices_too_large_for_the_gram_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "GRAM", 50)
    for matrix in (SPECTRA["gaussian"], SPECTRA["tall"], SPECTRA["decaying"]):
        found = spectrum(ref_of(matrix.astype(np.float32)))
        assert found is not None
        largest, stable, effective = oracle(matrix.astype(np.float32))
        assert not found.exact
        assert found.tail_exponent is None
        assert found.largest == pytest.approx(largest, rel=1e-7)
        assert found.stable_rank == pytest.approx(stable, rel=1e-6)
        assert found.effective_rank == pytest.approx(effective, rel=0.1)


@pytest.mark.parametrize("exponent", [1.8, 2.5, 4.0])
def test_the_exponent_of_a_power_law_is_found_behind_its_bulk(exponent: float) -> None:
    rng = np.random.default_rng(5)
    tail = (1 - rng.random(1_500)) ** (-1 / (exponent - 1))
    found = tail_exponent(np.sort(np.concatenate([rng.random(1_000), tail])))
    assert found is not None
    value, distance, count = found
    assert value == pytest.approx(exponent, rel=0.08)
    assert distance < 0.05
    assert 300 < count <= 2_000


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    import scipy.stats

    values = np.sort(np.random.default_rng(6).pareto(2.0, 200) + 1)
    found = tail_exponent(values)
    assert found is not None
    exponent, distance, count = found
    tail = values[-count:]
    law = scipy.stats.pareto(exponent - 1, scale=tail[0])
    assert distance == pytest.approx(scipy.stats.kstest(tail, law.cdf).statistic, abs=1e-12)
    assert exponent == pytest.approx(1 + count / np.log(tail / tail[0]).sum())


@pytest.mark.parametrize("seed", range(4))
def test_no_start_of_a_tail_fits_better_than_the_one_taken(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.sort(
        [rng.random(300), rng.pareto(2, 300) + 1, np.repeat(rng.random(30), 10), rng.random(60)][seed]
    )
    distances = {}
    for start in range(len(values) - 9):
        tail = values[start:] / values[start]
        if tail[-1] > 1:
            law = 1 - tail ** (-len(tail) / np.log(tail).sum())
            place = np.arange(len(tail) + 1) / len(tail)
            distances[start] = max((law - place[:-1]).max(), (place[1:] - law).max())
    found = tail_exponent(values)
    assert found
    assert found[1] == pytest.approx(min(distances.values()), rel=1e-9)
    assert distances[len(values) - found[2]] == pytest.approx(found[1], rel=1e-9)


def test_what_is_no_power_law_fits_badly() -> None:
    """Singular values of a random matrix end at an edge."""
    found = spectrum(ref_of(np.random.default_rng(7).normal(size=(400, 400))))
    assert found is not None
    assert found.tail_exponent is not None
    assert found.tail_exponent > 6


def test_few_values_have_no_tail() -> None:
    assert tail_exponent(np.arange(1.0, 50.0)) is None
    assert tail_exponent(np.ones(100)) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_and_empty_matrices_have_no_spectrum(bad: float) -> None:
    matrix = np.ones((20, 20))
    matrix[3, 4] = bad
    assert spectrum(ref_of(matrix)) is None
    assert spectrum(ref_of(np.zeros((20, 20)))) is None


def mlp(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )  # fmt: skip


def train(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, decay: float, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=decay)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def effective_rank(model: torch.nn.Module, path: Path, asked: bool = False) -> Measurement | Missing:
    torch.save(model.state_dict(), path)
    checkpoint = open_checkpoint(path)
    layers = list(with_spectra(checkpoint, layer_stats(checkpoint), asked))
    return compute(Run("run", "", checkpoints=(checkpoint,)), layers)["weights.effective_rank"]


def test_fresh_and_soundly_trained_layers_are_far_from_low_rank(tmp_path: Path) -> None:
    model = mlp()
    fresh = effective_rank(model, tmp_path / "fresh.pt")
    x = torch.randn(512, 20)
    train(model, x, (x[:, :10] + 0.3 * x[:, 10:]).argmax(1), decay=0.01, steps=200)
    trained = effective_rank(model, tmp_path / "trained.pt")
    assert isinstance(fresh, Measurement)
    assert isinstance(trained, Measurement)
    assert 0.7 < fresh.value <= 1
    assert 0.3 < trained.value <= 1


def test_a_layer_that_collapsed_in_training_is_low_rank(tmp_path: Path) -> None:
    """Heavy weight decay, and a task of one direction."""
    model = mlp()
    x = torch.randn(512, 20)
    train(model, x, (x[:, 0] > 0).long(), decay=5.0, steps=600)
    found = effective_rank(model, tmp_path / "collapsed.pt")
    assert isinstance(found, Measurement)
    assert found.value < 0.1
    assert "2.weight" in found.items


def test_large_matrices_are_left_until_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "UNASKED_SIDE", 30)
    assert isinstance(effective_rank(mlp()[2], tmp_path / "large.pt"), Missing)
    assert isinstance(effective_rank(mlp()[2], tmp_path / "asked.pt", asked=True), Measurement)


def test_without_being_asked_only_so_much_is_spent() -> None:
    refs = tuple(ref_of(np.random.default_rng(k).normal(size=(300, 300)), f"l{k}.weight") for k in range(20))
    checkpoint = Checkpoint("c", "test", refs)
    found = [layer.spectrum is not None for layer in with_spectra(checkpoint, layer_stats(checkpoint), False)]
    assert found == sorted(found, reverse=True)
    assert 0 < sum(found) < 20


def test_lookup_tables_do_not_count_as_layers() -> None:
    flat = with_values(np.array([1.0]), 100, 40)
    names = ("wpe.weight", "embed.weight", "mamba.A_log")  # the last of rank one by its initialisation
    checkpoint = Checkpoint("c", "test", tuple(ref_of(flat, name) for name in names))
    layers = list(with_spectra(checkpoint, layer_stats(checkpoint), True))
    assert isinstance(compute(Run("run", ""), layers)["weights.effective_rank"], Missing)


def test_the_command_shows_spectra_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(mlp().state_dict(), path)
    wide = {"COLUMNS": "140"}
    plain = CliRunner().invoke(cli, ["checkpoint", str(path)], catch_exceptions=False, env=wide)
    asked = CliRunner().invoke(cli, ["checkpoint", "--spectral", str(path)], catch_exceptions=False, env=wide)
    assert "stable rank" not in plain.stdout
    assert "stable rank" in asked.stdout
    assert "/64" in asked.stdout
    document = CliRunner().invoke(
        cli, ["checkpoint", "--spectral", "--json", str(path)], catch_exceptions=False
    )
    tensors = {tensor["name"]: tensor for tensor in json.loads(document.stdout)["tensors"]}
    expected = oracle(mlp()[2].weight.detach().numpy())
    assert tensors["2.weight"]["spectrum"]["stable_rank"] == pytest.approx(expected[1], rel=1e-6)
    assert tensors["2.bias"]["spectrum"] is None
