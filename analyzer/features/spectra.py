"""How many directions the last checkpoint's weight matrices use, from their singular values."""

from __future__ import annotations

from analyzer.features import Context, Value, feature
from analyzer.features.curves import Unavailable
from analyzer.model import LayerStats, Measurement, Spectrum

LEAST_SIDE = 8  # narrower layers have too few directions to lose
COLLAPSED = 0.2


def _measured(context: Context) -> list[tuple[LayerStats, Spectrum]]:
    """Layers with a spectrum; lookup tables and other parameters, whose rows are no units, left out."""
    found = [
        (layer, layer.spectrum)
        for layer in context.layers
        if layer.spectrum and layer.fan_in and _is_layer(layer.name)
    ]
    wide = [(layer, s) for layer, s in found if min(s.rows, s.columns) >= LEAST_SIDE]
    if not wide:
        raise Unavailable("no weight matrix's singular values were measured", ("spectrum",))
    return wide


def _is_layer(name: str) -> bool:
    """True for what layers multiply their inputs with; other tables may be of low rank from the start."""
    last = name.lower().replace("/", ".").split(".")[-1]
    return ("weight" in last or "kernel" in last) and "position" not in name.lower()


@feature(
    "weights.effective_rank",
    "ratio",
    "smallest effective rank of a weight matrix over its smaller side (the exponential of the entropy of its "
    "normalised singular values); about 0.8 at initialisation",
    low=0,
    high=1,
    label="effective rank over the smaller side",
)
def effective_rank(context: Context) -> Value:
    layers = _measured(context)
    shares = [s.effective_rank / min(s.rows, s.columns) for _, s in layers]
    lowest = min(range(len(shares)), key=shares.__getitem__)
    collapsed = tuple(
        layer.name for (layer, _), share in zip(layers, shares, strict=True) if share < COLLAPSED
    )
    return Measurement(shares[lowest], where=layers[lowest][0].name, items=collapsed)


@feature(
    "weights.spectral_norm", "value", "largest singular value of a weight matrix: its gain at most", low=0
)
def spectral_norm(context: Context) -> Value:
    layer, spectrum = max(_measured(context), key=lambda pair: pair[1].largest)
    return Measurement(spectrum.largest, where=layer.name)
