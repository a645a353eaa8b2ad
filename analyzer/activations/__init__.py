"""Activations measured by running the user's own model, or the graph in a file: only where they ask for it.

torch and onnxruntime are imported here and nowhere on the way to a report that does not need them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from analyzer.activations.inputs import load_inputs
from analyzer.errors import AnalyzerError
from analyzer.model import ActivationStats, Checkpoint, Series

__all__ = ["as_series", "of_file", "of_model"]

RECTIFIED = frozenset({"relu", "relu6", "relu_", "threshold"})


def of_model(
    factory: str, checkpoint: Checkpoint, inputs: Path
) -> tuple[tuple[ActivationStats, ...], tuple[str, ...]]:
    """Run the model that ``package.module:factory`` makes, with the checkpoint's weights, on the inputs.

    Returns what its layers gave out, and what of the weights did not fit. Executes the user's code.
    Raises AnalyzerError where the model cannot be made, filled or run.
    """
    with _installed("torch"):
        from analyzer.activations.modules import load_weights, make_model, run_model

    model = make_model(factory)
    unfit = load_weights(model, checkpoint)
    return run_model(model, load_inputs(inputs)), unfit


def of_file(path: Path, inputs: Path | None) -> tuple[ActivationStats, ...]:
    """Run the graph that a TorchScript, ``torch.export`` or ONNX file carries; only for files one trusts.

    Without ``inputs``, the example that an exported program keeps. Raises AnalyzerError.
    """
    batch = load_inputs(inputs) if inputs else None
    if path.suffix.lower() == ".onnx":
        with _installed("onnx"):
            from analyzer.activations.onnx_graphs import run_graph as run_onnx
        return run_onnx(path, batch)
    with _installed("torch"):
        from analyzer.activations.graphs import run_graph
    return run_graph(path, batch)


@contextmanager
def _installed(extra: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        message = f"running it needs {error.name}: pip install 'training-log-analyzer[{extra}]'"
        raise AnalyzerError(message) from None


def as_series(found: Sequence[ActivationStats]) -> tuple[Series, ...]:
    """The measurements as a run would have logged them, so that the rules see them."""
    return tuple(_point(layer, role, value) for layer in found for role, value in _logged(layer))


def _logged(layer: ActivationStats) -> list[tuple[str, float]]:
    logged = [
        ("activation_mean", layer.mean),
        ("activation_std", layer.std),
        ("activation_saturation", layer.saturated),
    ]
    if layer.kind.lower() in RECTIFIED:
        logged += [("activation_zero_fraction", layer.zeros), ("activation_dead_units", _dead(layer))]
    return [(role, value) for role, value in logged if value is not None]


def _dead(layer: ActivationStats) -> float | None:
    """Share of the units that never fired."""
    return layer.dead_units / layer.units if layer.units and layer.dead_units is not None else None


def _point(layer: ActivationStats, role: str, value: float) -> Series:
    import numpy as np

    return Series(
        f"{layer.layer}/{role}",
        np.zeros(1),
        np.array([value]),
        source="measured",
        role=role,
        subject=layer.layer,
    )
