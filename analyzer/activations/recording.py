"""Sums over the outputs of each layer, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from analyzer.model import ActivationStats

Array = NDArray[np.generic]

LIMITS = {  # of bounded activations, by class or operation
    "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "hardtanh": (-1.0, 1.0), "hardsigmoid": (0.0, 1.0),
    "softsign": (-1.0, 1.0), "sigmoid_": (0.0, 1.0), "tanh_": (-1.0, 1.0),
}  # fmt: skip
PINNED = 0.01  # of the range from a limit
UNITS_LAST = (
    "linear",
    "embedding",
    "layernorm",
    "rmsnorm",
    "layer_norm",
    "rms_norm",
    "addmm",
    "matmul",
    "gemm",
)


def units_last(kind: str, before: bool) -> bool:
    """Whether the last axis counts units, as after a linear layer, and not the second, as after a convolution.

    Other layers leave it as it was ``before`` them. ``Conv1D`` of Hugging Face is a linear layer.
    """
    if kind == "Conv1D" or kind.lower().startswith(UNITS_LAST):
        return True
    return before and not kind.lower().startswith("conv")


class Recording:
    """What was seen so far, layer by layer, in the order of the first call."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self._units_last = False

    def see(self, name: str, kind: str, came_in: Iterable[Array], outputs: Iterable[Array]) -> None:
        """Take in one call's output; ``came_in`` tells whether its non-finite values are its own."""
        for found in outputs:
            if found.dtype.kind != "f" or not found.size:
                continue
            self._units_last = units_last(kind, self._units_last)
            layer = self._layers.setdefault(name, _Layer(name, kind))
            layer.add(found, -1 if self._units_last or found.ndim == 2 else 1)
            layer.origin |= bool(layer.nan + layer.inf) and all(map(_finite, came_in))
            return  # the first tensor of several: hidden state rather than attention weights

    def stats(self) -> tuple[ActivationStats, ...]:
        return tuple(layer.stats() for layer in self._layers.values())


class _Layer:
    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.shape: tuple[int, ...] = ()
        self.count = self.zeros = self.nan = self.inf = self.pinned = 0
        self.total = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf
        self.alive: NDArray[np.bool_] | None = None
        self.origin = False

    def add(self, output: Array, axis: int) -> None:
        self.shape = output.shape
        self.count += output.size
        nan, finite = int(np.isnan(output).sum()), np.isfinite(output)
        self.nan += nan
        self.inf += output.size - int(finite.sum()) - nan
        self.zeros += output.size - int(np.count_nonzero(output))
        good = output[finite].astype(np.float64)
        if good.size:
            self.total += float(good.sum())
            self.squares += float((good * good).sum())
            self.low, self.high = min(self.low, float(good.min())), max(self.high, float(good.max()))
        self._see_limits(good)
        self._see_units(output, axis)

    def _see_limits(self, good: NDArray[np.float64]) -> None:
        if limits := LIMITS.get(self.kind.lower()):
            low, high = limits
            near = PINNED * (high - low)
            self.pinned += int(((good <= low + near) | (good >= high - near)).sum())

    def _see_units(self, output: Array, axis: int) -> None:
        if output.ndim < 2:
            return
        fired = (output != 0).any(axis=tuple(k for k in range(output.ndim) if k != axis % output.ndim))
        self.alive = fired if self.alive is None or len(self.alive) != len(fired) else self.alive | fired

    def stats(self) -> ActivationStats:
        finite = self.count - self.nan - self.inf
        mean = self.total / finite if finite else None
        variance = max(self.squares / finite - mean * mean, 0.0) if mean is not None else 0.0
        return ActivationStats(
            self.name,
            self.kind,
            self.shape,
            self.count,
            mean,
            math.sqrt(variance) if finite else None,
            self.low if finite else None,
            self.high if finite else None,
            self.zeros / self.count,
            self.nan,
            self.inf,
            self.pinned / finite if finite and self.kind.lower() in LIMITS else None,
            None if self.alive is None else len(self.alive),
            None if self.alive is None else int((~self.alive).sum()),
            self.origin,
        )


def _finite(value: Array) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())
