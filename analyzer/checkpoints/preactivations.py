"""What the weights alone tell of activations: no data, no model, no forward pass.

A batch norm fixes its channels' mean and spread; biases against weights bound what bounded inputs
can do; query and key weights give the size of attention logits for inputs of unit variance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.entries import is_buffer
from analyzer.checkpoints.onepass.layout import BLOCK
from analyzer.checkpoints.onepass.tally import add_by_row
from analyzer.checkpoints.regions import element_count
from analyzer.checkpoints.statistics import units_last
from analyzer.model import Checkpoint, FloatArray, TensorRef

EPSILON = 1e-5  # of batch norm, by default; the file does not tell it
PINNED = 4.0  # pre-activation at which a sigmoid is 0.982 and a tanh 0.9993
_MAX_VECTOR = 1 << 20
_FEWEST_INPUTS = 8  # weights of one sign are common by chance among fewer
_MOST_ELEMENTS = 1 << 23  # of the weights that certificates are looked for in, altogether
_FEW = 1 << 16  # bytes at a time: larger arrays would be fetched from the system and given back each time
_PROBES = 64
_SEED = 0


# --- batch norm --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class ChannelActivity:
    """P(output > 0) of each channel of a batch norm: for Gaussian inputs, and at most for any.

    The bound is Cantelli's: a variable of mean β < 0 and standard deviation γ is positive with a
    probability of at most γ² / (γ² + β²), whatever its distribution.
    """

    layer: str
    active: FloatArray
    bound: FloatArray


def channel_activity(checkpoint: Checkpoint) -> tuple[ChannelActivity, ...]:
    """Every batch norm with running statistics and an affine part; those switched off (γ = 0) or broken left out."""
    vectors = {ref.name: ref for ref in checkpoint.tensors if ref.group == "model" and len(ref.shape) == 1}
    rows = []
    for name, variance in vectors.items():
        layer, dot, last = name.rpartition(".")
        scale, shift = vectors.get(f"{layer}{dot}weight"), vectors.get(f"{layer}{dot}bias")
        if last == "running_var" and scale is not None and shift is not None:
            gamma, beta, var = vector(scale), vector(shift), vector(variance)
            if len(gamma) == len(beta) == len(var) and np.isfinite([gamma, beta, var]).all() and gamma.any():
                rows.append(_activity(layer or name, np.abs(gamma), beta, np.maximum(var, 0)))
    return tuple(rows)


def _activity(layer: str, gamma: FloatArray, beta: FloatArray, var: FloatArray) -> ChannelActivity:
    with np.errstate(all="ignore"):
        spread = gamma * np.sqrt(var / (var + EPSILON))  # a channel of hardly any variance is shrunk
        score = np.where(spread > 0, beta / spread, np.where(beta > 0, np.inf, -np.inf))
        tail = np.where(np.isfinite(score), 1 / (1 + score * score), 0.0)
    return ChannelActivity(layer, normal_cdf(score), np.where(score < 0, tail, 1.0))


def normal_cdf(score: FloatArray) -> FloatArray:
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in score.tolist()])


def vector(ref: TensorRef) -> FloatArray:
    """A short vector's values; empty when it is long."""
    if not 0 < ref.count <= _MAX_VECTOR:
        return np.zeros(0)
    return np.concatenate([block.astype(np.float64) for block in ref.blocks(BLOCK)])


# --- bounded inputs ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """Units of a layer whose pre-activation has one sign, or is far from zero, for all such inputs.

    For inputs between 0 and 1 (images, probabilities, what a sigmoid gives): ``never`` positive, a
    ReLU behind it is dead; ``always`` positive, a ReLU behind it is linear. For inputs between −1
    and 1 (what a tanh gives): ``pinned`` beyond ±4, where sigmoid and tanh are flat. ``shut``:
    not positive for any non-negative input, bounded or not (what a ReLU gives).
    """

    layer: str
    units: int
    never: int
    always: int
    shut: int
    pinned: int


def certificates(checkpoint: Checkpoint) -> tuple[Certificate, ...]:
    """Every weight with a bias of its own and eight inputs or more, in depth order, as far as ``_MOST_ELEMENTS`` go.

    x · w + b over the inputs' box lies between b − Σ max(−w, 0) and b + Σ max(w, 0) (for −1 to 1:
    b ± Σ|w|), and reaches both ends.
    """
    tensors = {ref.name: ref for ref in checkpoint.tensors if ref.group == "model"}
    rows, left = [], _MOST_ELEMENTS
    for name, weight in tensors.items():
        bias = tensors.get(name.removesuffix("weight") + "bias") if name.endswith("weight") else None
        if bias is None or len(weight.shape) < 2 or bias.shape != weight.shape[:1] or units_last(name):
            continue
        left -= weight.count
        if left < 0:
            break
        if weight.count >= _FEWEST_INPUTS * weight.shape[0] > 0 and not weight.dtype.startswith("complex"):
            rows.append(_certificate(name, *_signed_sums(weight), vector(bias)))
    return tuple(rows)


def _signed_sums(weight: TensorRef) -> tuple[FloatArray, FloatArray]:
    """Σ max(w, 0) and Σ max(−w, 0) of each output unit."""
    up, down, position = np.zeros(weight.shape[0]), np.zeros(weight.shape[0]), 0
    length = weight.count // weight.shape[0]
    for block in weight.blocks(_FEW):
        values = block.astype(np.float64)
        add_by_row(up, np.maximum(values, 0), position, length)
        add_by_row(down, np.maximum(-values, 0), position, length)
        position += len(values)
    return up, down


def _certificate(name: str, up: FloatArray, down: FloatArray, bias: FloatArray) -> Certificate:
    used = up + down > 0  # units of zero weights are told by their norm
    return Certificate(
        name,
        len(up),
        never=int(np.sum(used & (bias + up <= 0))),
        always=int(np.sum(used & (bias - down >= 0))),
        shut=int(np.sum(used & (up == 0) & (bias <= 0))),
        pinned=int(np.sum(used & (np.abs(bias) - up - down >= PINNED))),
    )


# --- norm scales -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NormScale:
    """The scales γ of a layer norm: their median size, largest, and how many are next to nothing."""

    layer: str
    channels: int
    median: float
    largest: float
    off: int  # below a thousandth of the median: the channel is switched off


def norm_scales(checkpoint: Checkpoint) -> tuple[NormScale, ...]:
    """Norms without running statistics (layer, group, RMS norm), as their names tell."""
    names = {ref.name for ref in checkpoint.tensors}
    rows = []
    for ref in checkpoint.tensors:
        layer = ref.name.rpartition(".")[0]
        if (
            ref.group != "model"
            or len(ref.shape) != 1
            or not re.search(r"norm|(^|[._])ln", layer, re.IGNORECASE)
        ):
            continue
        if ref.name.endswith("weight") and f"{layer}.running_var" not in names:
            gamma = np.abs(vector(ref))
            if len(gamma):
                median = float(np.median(gamma))
                off = int(np.sum(gamma < 1e-3 * median))
                rows.append(NormScale(layer, len(gamma), median, float(gamma.max()), off))
    return tuple(rows)


# --- attention ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttentionLogits:
    """Root mean square of q·k/√d for independent inputs of zero mean and unit variance.

    ``logits`` is that of the head with the largest. About 1 when initialised by Xavier's scheme;
    at tens, softmax picks one position and passes hardly any gradient. ``assumed``: the number of
    heads is a guess (64 channels each), because the file does not tell it.
    """

    layer: str
    heads: int
    logits: float
    assumed: bool


_HEADS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "nhead",
    "nheads",
    "encoder_attention_heads",
)
_FUSED = re.compile(r"(in_proj_weight|(in_proj|qkv|qkv_proj|wqkv|c_attn)\.weight)$", re.IGNORECASE)
_QUERY = re.compile(
    r"(?P<before>(^|.*[._]))(?P<word>q_proj|query_proj|query|q_lin|to_q|wq|q)(?P<after>\.weight)$",
    re.IGNORECASE,
)


def attention_logits(checkpoint: Checkpoint) -> tuple[AttentionLogits, ...]:
    """Every attention layer whose query and key weights can be told by name, in depth order.

    Estimated from ``_PROBES`` random inputs: good to about a tenth.
    """
    tensors = {ref.name: ref for ref in checkpoint.tensors if ref.group == "model"}
    rows = []
    for name, ref in tensors.items():
        pair = _fused(ref, tensors) or _separate(ref, tensors)
        if pair is not None:
            rows.append(_logits(name, *pair, checkpoint))
    return tuple(rows)


def _fused(ref: TensorRef, tensors: Mapping[str, TensorRef]) -> tuple[FloatArray, FloatArray] | None:
    """Queries and keys of the probes by a weight that holds query, key and value one after another."""
    if not _FUSED.search(ref.name) or len(ref.shape) != 2 or is_buffer(ref.name, ref.dtype):
        return None
    rows, columns = ref.shape
    if rows == 3 * columns:
        image = _image(ref)
    elif columns == 3 * rows:  # GPT-2's Conv1D keeps [in, out]
        image = _image_transposed(ref)
    else:
        return None
    image += _bias(ref, tensors, len(image))[:, None]
    third = len(image) // 3
    return image[:third], image[third : 2 * third]


def _separate(ref: TensorRef, tensors: Mapping[str, TensorRef]) -> tuple[FloatArray, FloatArray] | None:
    found = _QUERY.match(ref.name)
    if not found or len(ref.shape) != 2:
        return None
    word = found["word"]
    other = {"query": "key", "Query": "Key"}.get(word, word.replace("query", "key").replace("q", "k", 1))
    key = tensors.get(f"{found['before']}{other}{found['after']}")
    if key is None or len(key.shape) != 2 or not ref.shape[0] or ref.shape[0] % key.shape[0]:
        return None
    images = [_image(r) + _bias(r, tensors, r.shape[0])[:, None] for r in (ref, key)]
    return images[0], images[1]


def _probes(inputs: int) -> FloatArray:
    return np.random.default_rng(_SEED).standard_normal((inputs, 2 * _PROBES))


def _image(weight: TensorRef) -> FloatArray:
    """W x for every probe x, reading W by bands of rows: ``[out, probes]``."""
    out, inputs = weight.shape
    probes = _probes(inputs).astype(np.float32)
    return (
        np.concatenate([np.float64(band @ probes) for band in _row_bands(weight)])
        if out
        else np.zeros((0, 1))
    )


def _image_transposed(weight: TensorRef) -> FloatArray:
    inputs, out = weight.shape
    probes, total, first = _probes(inputs).astype(np.float32), np.zeros((out, 2 * _PROBES)), 0
    for band in _row_bands(weight):
        total += band.T @ probes[first : first + len(band)]
        first += len(band)
    return total


def _row_bands(weight: TensorRef) -> Iterator[NDArray[Any]]:
    columns, kept = element_count(weight.shape[1:]), np.zeros(0, np.float32)
    for block in weight.blocks(_FEW):
        kept = np.concatenate([kept, block.astype(np.float32)])
        whole = len(kept) // columns * columns
        if whole:
            yield kept[:whole].reshape(-1, columns)
            kept = kept[whole:]


def _bias(weight: TensorRef, tensors: Mapping[str, TensorRef], size: int) -> FloatArray:
    name = weight.name.removesuffix("weight") + "bias"
    bias = tensors.get(name)
    return vector(bias) if bias is not None and bias.shape == (size,) else np.zeros(size)


def _logits(name: str, q: FloatArray, k: FloatArray, checkpoint: Checkpoint) -> AttentionLogits:
    """Queries of one half of the probes against keys of the other, head by head."""
    heads, assumed = _heads(len(q), checkpoint)
    size = len(q) // heads
    shared = max(1, len(q) // len(k))  # query heads that share a key head
    rms = []
    for head in range(heads):
        keys = k[head // shared * size : (head // shared + 1) * size, _PROBES:]
        logits = q[head * size : (head + 1) * size, :_PROBES].T @ keys / math.sqrt(size)
        rms.append(math.sqrt(float(np.mean(logits * logits))))
    return AttentionLogits(name, heads, max(rms), assumed)


def _heads(width: int, checkpoint: Checkpoint) -> tuple[int, bool]:
    known = {key.rpartition(".")[2]: value for key, value in checkpoint.hyperparameters.items()}
    for key in _HEADS:
        heads = known.get(key)
        if isinstance(heads, int) and 0 < heads <= width and width % heads == 0:
            return heads, False
    return (width // 64 if width % 64 == 0 else 1), True
