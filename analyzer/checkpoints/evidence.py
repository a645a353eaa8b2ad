"""What the numbers of a checkpoint say about its training: tables of layers in depth order.

Depth order is the order of the state dict. Everything here measures; whether it is a fault is for
the rules. Functions that take ``stats`` want those of ``layer_stats``; those that also take the
checkpoint read a few tensors again, a block at a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.checkpoints.changes import aligned
from analyzer.checkpoints.entries import is_buffer
from analyzer.checkpoints.onepass.layout import BLOCK
from analyzer.checkpoints.onepass.moments import product_sum
from analyzer.checkpoints.regions import real
from analyzer.checkpoints.statistics import lookup_table, units_last
from analyzer.model import Checkpoint, FloatArray, LayerStats, Scalar, TensorRef

RARELY_ACTIVE = -3.0902  # standard score below which a Gaussian is positive with P < 1e-3
STILL = 1e-6  # of the median unit's second moment: a unit that got (almost) no gradient for long
SMALLEST_MEDIAN = 1e-30  # of a second moment: below, float32 squares underflow and say nothing
_MAX_VECTOR = 1 << 20
_LEAST_PATTERN = 16  # elements: fewer are alike by chance
SAMPLED = 1 << 18  # elements of a tensor from which its root mean square is taken well enough


# --- weight scale ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WeightScale:
    """``ratio`` is std · √fan_in: 0.58 for PyTorch's default, 1 for LeCun's, 1.41 for He's scheme."""

    layer: str
    std: float
    fan_in: int
    ratio: float


def weight_scale(stats: Iterable[LayerStats]) -> tuple[WeightScale, ...]:
    """Spread of each weight matrix or kernel against what its fan-in calls for.

    Vectors (biases, norm layers), lookup tables, buffers, masks and constants are left out.
    """
    return tuple(
        WeightScale(s.name, s.std, s.fan_in, s.std * math.sqrt(s.fan_in))
        for s in stats
        if s.group == "model" and s.fan_in and s.std and not is_buffer(s.name, s.dtype) and not is_pattern(s)
    )


def is_pattern(stats: LayerStats) -> bool:
    """True for a matrix of zeros and of elements of one size: a mask, an identity, zeros to start from.

    Neither a random initialisation nor training gives one. Infinite elements are those of a mask
    where all others are zero.
    """
    if len(stats.shape) < 2 or stats.count < _LEAST_PATTERN or stats.nan:
        return False
    used = stats.count - stats.zeros - stats.inf
    if stats.inf:
        return used == 0 and stats.zeros > 0
    same = (stats.abs_max or 0.0) * used
    return used == 0 or (stats.l1 is not None and abs(stats.l1 - same) <= 1e-9 * same)


# --- gradients from optimizer state ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GradientRms:
    """Root mean square gradient of one parameter over the optimizer's memory.

    ``slot`` is what it was taken from. ``axes`` is the parameter's number of axes: compare like
    with like (matrices among each other). ``zero``: not one element ever received a gradient.
    """

    layer: str
    rms: float
    zero: bool
    slot: str
    axes: int


def gradient_rms(checkpoint: Checkpoint, stats: Iterable[LayerStats]) -> tuple[GradientRms, ...]:
    """Gradient scale per parameter from Adam's, RMSprop's, Adagrad's or SGD's state.

    Adam: √(mean(v) / (1 − β₂ᵗ)), Kingma & Ba 2015, section 3. Averages reach back about
    1/(1 − β₂) steps, so this speaks of the end of training, not of its start. Momentum buffers
    average signed gradients: with (1 − momentum) they bound the rms from below.
    """
    table = list(stats)
    steps = {s.name: s.mean for s in table if s.slot == "step" and s.mean is not None}
    rows = []
    for entry in table:
        square = _mean_square(entry, checkpoint.optimizer, steps.get(entry.name))
        if square is not None:
            rows.append(
                GradientRms(entry.name, math.sqrt(square), entry.abs_max == 0, entry.slot, len(entry.shape))
            )
    return tuple(rows)


def _mean_square(entry: LayerStats, settings: Mapping[str, Scalar], step: float | None) -> float | None:
    """Mean squared gradient behind one slot, or None for slots that do not hold it."""
    if entry.group != "optimizer" or entry.mean is None or entry.l2 is None or entry.count == 0:
        return None
    taken = number(settings, "step") if step is None else step
    if entry.slot == "exp_avg_sq":
        return max(0.0, entry.mean) / _bias_correction(number(settings, "beta2"), taken)
    if entry.slot == "square_avg":
        return max(0.0, entry.mean)
    if entry.slot == "sum":
        return max(0.0, entry.mean) / taken if taken else None
    if entry.slot == "momentum_buffer":
        return entry.l2**2 / entry.count * (1 - (number(settings, "momentum") or 0.0)) ** 2
    return None


def _bias_correction(beta: float | None, step: float | None) -> float:
    """1 − βᵗ; 1 where either is not known, which is right for long training."""
    if beta is None or not 0 <= beta < 1 or not step or step < 1:
        return 1.0
    return -math.expm1(step * math.log(beta)) if beta > 0 else 1.0


def number(values: Mapping[str, Scalar], key: str) -> float | None:
    """A setting as a number, None where it is none."""
    value = values.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def first_last_ratio(rows: Sequence[GradientRms]) -> float | None:
    """Gradient scale of the first third of the weight matrices over that of the last third.

    Geometric means over matrices and kernels with a gradient. None for fewer than four of them.
    """
    scales = [row.rms for row in rows if row.axes > 1 and row.rms > 0]
    if len(scales) < 4:
        return None
    third = max(1, len(scales) // 3)
    logs = np.log(np.array(scales))
    return float(np.exp(logs[:third].mean() - logs[-third:].mean()))


def without_state(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Parameters for which the optimizer holds nothing: frozen, not given to it, or never reached.

    Empty where the optimizer's parameters could not be named or it keeps no state.
    """
    known = checkpoint.metadata.get("optimizer_names_known") is True
    stepped = {ref.name for ref in checkpoint.tensors if ref.group == "optimizer"}
    if not known or not stepped:
        return ()
    parameters = [
        ref for ref in checkpoint.tensors if ref.group == "model" and not is_buffer(ref.name, ref.dtype)
    ]
    tied = {ref.blocks for ref in parameters if ref.name in stepped}
    return tuple(ref.name for ref in parameters if ref.name not in stepped and ref.blocks not in tied)


@dataclass(frozen=True, slots=True)
class UpdateRatio:
    """Size of the next optimizer step against the weights: about 1e-3 is usual, 1e-1 is wild."""

    layer: str
    ratio: float
    axes: int


def update_ratio(checkpoint: Checkpoint) -> tuple[UpdateRatio, ...]:
    """lr · rms(step) / rms(w) per parameter with optimizer state and a known name.

    The step is m̂ / (√v̂ + ε) of Adam, or the momentum buffer of SGD; without weight decay, and
    with the stored learning rate for every parameter. Of a large tensor the first ``SAMPLED``
    elements are looked at.
    """
    settings = checkpoint.optimizer
    rate = number(settings, "lr")
    slots = {(ref.name, ref.slot): ref for ref in checkpoint.tensors if ref.group == "optimizer"}
    weights = {ref.name: ref for ref in checkpoint.tensors if ref.group == "model"}
    rows = []
    for name, weight in weights.items() if rate is not None else ():
        size = _step_size(name, weight, slots, settings)
        scale = _rms(weight)
        if rate is not None and size is not None and math.isfinite(size) and scale > 0:
            rows.append(UpdateRatio(name, rate * size / scale, len(weight.shape)))
    return tuple(rows)


def _step_size(
    name: str, weight: TensorRef, slots: Mapping[tuple[str, str], TensorRef], settings: Mapping[str, Scalar]
) -> float | None:
    """Root mean square of a parameter's step before the learning rate; None where it is not kept."""
    first, second = slots.get((name, "exp_avg")), slots.get((name, "exp_avg_sq"))
    if first is not None and second is not None and first.shape == weight.shape:
        return _adam_step(first, second, settings, _scalar(slots.get((name, "step"))))
    buffer = slots.get((name, "momentum_buffer"))
    return _rms(buffer) if buffer is not None and buffer.shape == weight.shape else None


def _adam_step(
    first: TensorRef, second: TensorRef, settings: Mapping[str, Scalar], step: float | None
) -> float:
    """Root mean square of m̂ / (√v̂ + ε)."""
    taken = number(settings, "step") if step is None else step
    m_correction = _bias_correction(number(settings, "beta1"), taken)
    v_correction = _bias_correction(number(settings, "beta2"), taken)
    epsilon = number(settings, "eps") or 1e-8
    total, count = 0.0, 0
    for m, v in aligned([first, second], BLOCK):
        with np.errstate(all="ignore"):
            update = (m / m_correction) / (np.sqrt(v / v_correction) + epsilon)
        total, count = total + product_sum(update, update), count + len(update)
        if count >= SAMPLED:
            break
    return math.sqrt(total / count) if count else math.nan


def _rms(ref: TensorRef) -> float:
    total, count = 0.0, 0
    for block in ref.blocks(BLOCK):
        values = real(block)
        total, count = total + product_sum(values, values), count + len(values)
        if count >= SAMPLED:
            break
    return math.sqrt(total / count) if count else 0.0


def _scalar(ref: TensorRef | None) -> float | None:
    if ref is None or ref.count != 1:
        return None
    return next((float(block.astype(np.float64)[0]) for block in ref.blocks(64)), None)


# --- dead units ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeadUnits:
    """Output units of one layer that seem to do nothing, and what says so.

    ``basis``: "batchnorm" (the normalised input is positive with P < 1e-3: dead if a ReLU
    follows, which the file does not tell), "optimizer" (no gradient for long), or "weights" (an
    all-zero row).
    """

    layer: str
    units: int
    dead: int
    basis: str

    @property
    def share(self) -> float:
        return self.dead / self.units if self.units else 0.0


def dead_units(checkpoint: Checkpoint, stats: Iterable[LayerStats]) -> tuple[DeadUnits, ...]:
    """Every layer that one of the three signs can be looked for in, dead units or not."""
    stats = list(stats)
    zero_rows = [
        DeadUnits(s.name, s.shape[-1 if units_last(s.name) else 0], s.dead_units, "weights")
        for s in stats
        if s.group == "model"
        and s.dead_units is not None
        and s.fan_in
        and not is_buffer(s.name, s.dtype)
        and not is_pattern(s)
    ]
    return (*_batchnorm(checkpoint), *_still_units(stats), *zero_rows)


def _batchnorm(checkpoint: Checkpoint) -> Iterator[DeadUnits]:
    """P(γ x̂ + β > 0) = Φ(β / |γ|) for x̂ ~ N(0, 1), over the channels of each batch norm.

    Only layers with running statistics: layer norm has no such distribution per channel. What is
    added to a residual stream need not be positive: layers whose γ are all zero (a branch that is
    switched off at the start) are left out, and those that end a branch, as far as names tell.
    """
    vectors = {ref.name: ref for ref in checkpoint.tensors if ref.group == "model" and len(ref.shape) == 1}
    norms = [name.rpartition(".")[0] for name in vectors if name.endswith("running_mean")]
    for name in vectors:
        layer, dot, last = name.rpartition(".")
        if last == "running_mean" and _ends_branch(layer, norms):
            continue
        scale, shift = vectors.get(f"{layer}{dot}weight"), vectors.get(f"{layer}{dot}bias")
        if last != "running_mean" or scale is None or shift is None or scale.shape != shift.shape:
            continue
        gamma, beta = np.abs(_vector(scale)), _vector(shift)
        if len(gamma) and np.any(gamma > 0):
            with np.errstate(all="ignore"):
                score = np.where(gamma > 0, beta / gamma, np.where(beta > 0, np.inf, -np.inf))
            yield DeadUnits(layer or name, len(gamma), int(np.sum(score < RARELY_ACTIVE)), "batchnorm")


def _ends_branch(layer: str, norms: Sequence[str]) -> bool:
    """The last of several batch norms of one block, or that of a shortcut."""
    block = layer.rpartition(".")[0]
    beside = [norm for norm in norms if norm.rpartition(".")[0] == block]
    shortcut = re.search(r"downsample|shortcut|skip|residual|identity", layer, re.IGNORECASE)
    return bool(shortcut) or (bool(block) and len(beside) > 1 and beside[-1] == layer)


def _vector(ref: TensorRef) -> FloatArray:
    if not 0 < ref.count <= _MAX_VECTOR:
        return np.zeros(0)
    return np.concatenate([block.astype(np.float64) for block in ref.blocks(BLOCK)])


def _still_units(stats: Iterable[LayerStats]) -> Iterator[DeadUnits]:
    """Units of a weight whose second moment is nothing beside the median unit's.

    v decays by β₂ a step once gradients stop: with β₂ = 0.999 it takes 14,000 steps to fall to
    1e-6. Lookup tables are left out: rows of rare tokens rest by nature. So are layers whose
    median is zero or underflows: nothing to compare with.
    """
    for s in stats:
        norms = s.unit_norms
        if s.slot not in ("exp_avg_sq", "square_avg") or norms is None or lookup_table(s.name):
            continue
        median = s.unit_norm_median or 0.0
        if len(norms) > 1 and median > SMALLEST_MEDIAN:
            yield DeadUnits(s.name, len(norms), int(np.sum(norms < STILL * median)), "optimizer")
