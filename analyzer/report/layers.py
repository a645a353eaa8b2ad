"""A checkpoint's layers in the order a reader should look at them."""

from __future__ import annotations

from collections.abc import Iterable

from analyzer.model import LayerStats


def final_weights(layers: Iterable[LayerStats]) -> list[LayerStats]:
    """The model's tensors in the last checkpoint; all its tensors where it holds no model."""
    found = list(layers)
    last = [layer for layer in found if layer.checkpoint == found[-1].checkpoint]
    return [layer for layer in last if layer.group in ("model", "ema", "")] or last


def worst_first(layers: Iterable[LayerStats]) -> list[LayerStats]:
    """Broken elements first, then zeros and dead units, then the largest magnitude; statistics of norms last."""
    return sorted(layers, key=_badness)


def label(layer: LayerStats) -> str:
    """The tensor's name, with the optimizer's slot or the group where it is not the model's."""
    parts = [layer.name, layer.slot, "" if layer.group in ("model", "") else f"({layer.group})"]
    return " ".join(filter(None, parts))


def share(part: int, layer: LayerStats) -> float:
    return part / layer.count if layer.count else 0.0


def _badness(layer: LayerStats) -> tuple[float, bool, float, float, float, str]:
    """Zeros count in matrices alone: biases start there, as scales may."""
    dead = (layer.dead_units or 0) / layer.shape[0] if layer.shape and layer.shape[0] else 0.0
    broken = share(layer.nan + layer.inf, layer)
    zeros = share(layer.zeros, layer) if len(layer.shape) > 1 else 0.0
    return (-broken, _kept_count(layer), -zeros, -dead, -(layer.abs_max or 0.0), label(layer))


def _kept_count(layer: LayerStats) -> bool:
    """True for what a layer counts or averages, whose size says nothing."""
    last = layer.name.rpartition(".")[2]
    return last.startswith(("running_", "num_batches")) or layer.dtype.startswith(("int", "uint", "bool"))
