"""Layers' gradients, weights and activations from logged histograms, as a framework's writer makes them."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.features import compute
from analyzer.features.histograms import layer_series
from analyzer.model import Histograms, Measurement, Missing, Run

RNG = np.random.default_rng(0)


def exponential_edges():
    """Bucket limits of TensorBoard's default histogram: 1e-12 times powers of 1.1, both signs, and 0."""
    positive = 1e-12 * 1.1 ** np.arange(775)
    return np.concatenate([-positive[::-1], [0.0], positive])


def histogram(tag, role, frames, edges=None, subject="layer"):
    """The frames' values in buckets."""
    edges = exponential_edges() if edges is None else edges
    counts = [np.histogram(frame, edges)[0].astype(float) for frame in frames]
    n, buckets = len(frames), len(edges) - 1
    steps = np.arange(n, dtype=float)
    column = [np.array([f(frame) for frame in frames]) for f in (np.min, np.max, np.size, np.sum)]
    return Histograms(
        tag, steps, steps, *column, np.array([np.sum(np.square(f)) for f in frames]),
        np.arange(n + 1) * buckets, np.tile(edges[:-1], n), np.tile(edges[1:], n), np.concatenate(counts),
        role=role, subject=subject,
    )  # fmt: skip


def measured(name, *histograms):
    return compute(Run("r", "r", histograms=histograms))[name]


def test_gradient_norms_of_layers_come_from_histograms():
    scales = {f"layers.{i}": 10.0 ** (i - 5) for i in range(6)}
    frames = {name: [scale * RNG.standard_normal(500) for _ in range(4)] for name, scale in scales.items()}
    logged = [histogram(f"grad/{n}", "grad_hist", f, subject=n) for n, f in frames.items()]
    series = layer_series(Run("r", "r", histograms=tuple(logged)), "grad_norm_layer")
    for one, given in zip(series, frames.values(), strict=True):
        assert one.values == pytest.approx([np.linalg.norm(f) for f in given])
    assert measured("grad.layer_ratio", *logged).value == pytest.approx(1e-4, rel=0.2)
    total = np.sqrt(sum(np.square([np.linalg.norm(f) for f in given]) for given in frames.values()))
    assert measured("grad.median", *logged).value == pytest.approx(np.median(total))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.97, 1.0])
def test_the_share_of_zeros_is_read_from_the_bucket_that_holds_nothing_else(share):
    values = np.abs(RNG.standard_normal(1000)) + 1e-3
    values[: int(share * 1000)] = 0
    found = measured("act.zero_fraction", histogram("act/relu1", "activation_hist", [values] * 3))
    assert found.value == pytest.approx(share)


def test_wide_buckets_do_not_tell_how_many_are_zero():
    values = np.maximum(0, RNG.standard_normal(1000))
    wide = histogram("act/relu1", "activation_hist", [values] * 3, np.linspace(-0.1, 5, 30))
    assert isinstance(measured("act.zero_fraction", wide), Missing)
    dead = histogram("act/relu1", "activation_hist", [np.zeros(1000)] * 3, np.linspace(-0.1, 5, 30))
    assert measured("act.zero_fraction", dead).value == 1


@pytest.mark.parametrize("spread", [0.3, 30.0])
def test_saturation_of_tanh_and_sigmoid(spread):
    before = spread * RNG.standard_normal(4000)
    tanh, sigmoid = np.tanh(before), 1 / (1 + np.exp(-before))
    expected = np.mean(np.abs(tanh) >= 0.95)
    found = measured("act.saturation", histogram("act/tanh", "activation_hist", [tanh] * 3))
    assert isinstance(found, Missing) if spread < 1 else found.value == pytest.approx(expected, abs=0.03)
    found = measured("act.saturation", histogram("act/gate", "activation_hist", [sigmoid] * 3))
    expected = np.mean((sigmoid <= 0.03) | (sigmoid >= 0.97))
    assert isinstance(found, Missing) if spread < 1 else found.value == pytest.approx(expected, abs=0.03)


def test_a_rectified_unit_that_stays_below_one_is_not_saturated():
    relu = np.clip(0.3 * RNG.standard_normal(4000), 0, 0.9)
    assert isinstance(measured("act.saturation", histogram("act", "activation_hist", [relu] * 3)), Missing)


def test_growth_of_weights_is_read_from_their_histograms():
    base = RNG.standard_normal(300)
    grown = histogram("w/fc1", "weight_hist", [base, 4 * base, 20 * base], subject="fc1.weight")
    bias = histogram("w/fc1b", "weight_hist", [1e-9 * base, base, base], subject="fc1.bias")
    found = measured("weights.norm_growth", grown, bias)
    assert isinstance(found, Measurement)
    assert found.value == pytest.approx(20) and found.where == "fc1.weight"
