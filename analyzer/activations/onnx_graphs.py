"""ONNX models: their graph run by onnxruntime, every result of a node shown to the recording.

Onnxruntime executes the operators of the ONNX standard and no code from the file. Weights in other
files are read by it from the model's folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from analyzer.activations.inputs import SAMPLES, Array, Inputs
from analyzer.activations.recording import Recording
from analyzer.errors import AnalyzerError
from analyzer.model import ActivationStats

MOST = 1 << 28  # bytes of results at a time, as far as fewer samples help
MOVES = frozenset(
    {"Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape",
     "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)  # fmt: skip
_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


def run_graph(path: Path, inputs: Inputs | None) -> tuple[ActivationStats, ...]:
    """Every node that computes from the inputs, under its layer's name; raises AnalyzerError."""
    if inputs is None:
        raise AnalyzerError(f"{path}: ONNX keeps no example; name inputs with --inputs")
    try:
        model = onnx.load(str(path), load_external_data=False)
        watched = _watched(model.graph)
        session = _session(path, model, watched)
        recording = Recording()
        for batch in inputs.batches(_samples(session, inputs)):
            _see(recording, session, watched, _fed(session, batch))
    except AnalyzerError:
        raise
    except Exception as error:  # whatever the graph or its runtime raises
        raise AnalyzerError(f"{path}: its graph failed: {type(error).__name__}: {error}") from error
    return recording.stats()


def _session(path: Path, model: Any, watched: Sequence[_Watched]) -> Any:
    """The model with all watched results among its outputs, nothing fused or reordered."""
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=one.result) for one in watched if one.result not in known
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
    )
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


# --- the graph -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Watched:
    """A node that computes, its layer's name, and the results that it got, past what only moves elements."""

    node: Any
    layer: str
    came_from: frozenset[str]

    @property
    def result(self) -> str:
        return str(self.node.output[0])


def _watched(graph: Any) -> list[_Watched]:
    """Nodes that compute something from the inputs, in the graph's order."""
    constant = {tensor.name for tensor in graph.initializer} | {""}
    origins: dict[str, frozenset[str]] = {}
    found = []
    for node in graph.node:
        names = [name for name in node.input if name not in constant]
        came_from = frozenset[str]().union(*(origins.get(name, {name}) for name in names))
        if not names:
            constant.update(node.output)
        elif node.op_type in MOVES and not _looks_up(node, constant):
            origins.update(dict.fromkeys(node.output, came_from))
        else:
            found.append((node, came_from))
    layers = _names([node for node, _ in found])
    return [_Watched(node, layer, origin) for (node, origin), layer in zip(found, layers, strict=True)]


def _looks_up(node: Any, constant: set[str]) -> bool:
    """An embedding: rows of a weight."""
    return bool(node.op_type == "Gather" and node.input[0] in constant)


def _names(nodes: Sequence[Any]) -> list[str]:
    """Each node's layer; with the operator, or its result's name, where a layer is several nodes."""
    names = [_layer(node) for node in nodes]
    for more in ([node.op_type for node in nodes], [node.output[0] for node in nodes]):
        names = [
            f"{name}.{extra}" if names.count(name) > 1 else name
            for name, extra in zip(names, more, strict=True)
        ]
    return names


def _layer(node: Any) -> str:
    """``encoder.0`` for what uses its weight, or by the scope that the exporter wrote; else the node's name."""
    for name in node.input[1:]:
        owner, dot, last = name.rpartition(".")
        if dot and last in ("weight", "bias"):
            return str(owner)
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = [scope for scope in re.findall(r"'([^']*)'", entry.value) if scope]
            return str(([*scopes[-2:-1], *scopes[-1:], node.name])[0])
    scope = node.name.strip("/").rpartition("/")[0].replace("/", ".")
    return scope or node.name or str(node.output[0])


# --- running it ------------------------------------------------------------------------------------


def _samples(session: Any, inputs: Inputs) -> int:
    """Of the batch at a time: what the model fixes, or else as many as stay below ``MOST`` bytes of results."""
    first = session.get_inputs()[0].shape if session.get_inputs() else []
    if first and isinstance(first[0], int):
        return max(1, int(first[0]))
    one = next(inputs.batches(1), None)
    if one is None:
        raise AnalyzerError("the inputs hold no sample")
    size: int = sum(
        array.nbytes for array in session.run(None, _fed(session, one)) if hasattr(array, "nbytes")
    )
    return max(1, min(SAMPLES, MOST // max(1, size)))


def _fed(session: Any, batch: Inputs) -> dict[str, Array]:
    """The batch by the model's input names, floats in the precision that it asks for."""
    wanted = session.get_inputs()
    given = dict(zip([w.name for w in wanted], batch.positional, strict=False)) | batch.named
    missing = [w.name for w in wanted if w.name not in given]
    if missing or len(batch.positional) > len(wanted):
        names = ", ".join(w.name for w in wanted)
        raise AnalyzerError(f"the model takes {names}; the inputs have no {', '.join(missing) or 'place'}")
    return {w.name: _as_wanted(given[w.name], w.type) for w in wanted}


def _as_wanted(array: Array, kind: str) -> Array:
    precision = _FLOATS.get(kind)
    return array.astype(precision) if precision and array.dtype.kind == "f" else array


def _see(recording: Recording, session: Any, watched: Sequence[_Watched], fed: dict[str, Array]) -> None:
    names = [one.result for one in watched]
    results = dict(zip(names, session.run(names, fed), strict=True)) | fed
    for one in watched:
        came_in = (results[name] for name in one.came_from if name in results)
        recording.see(one.layer, one.node.op_type, came_in, [results[one.result]])
