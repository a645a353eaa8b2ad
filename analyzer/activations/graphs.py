"""Files that carry their own graph: TorchScript and ``torch.export`` programs.

Running one executes what the file says, so this is for files one trusts, and only on request.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from analyzer.activations.inputs import Inputs
from analyzer.activations.modules import arrays, as_tensor
from analyzer.activations.recording import Recording
from analyzer.errors import AnalyzerError
from analyzer.model import ActivationStats

MOVES = frozenset(
    {"flatten", "view", "reshape", "permute", "transpose", "contiguous", "t", "unsqueeze", "squeeze"}
)


def run_graph(path: Path, inputs: Inputs | None) -> tuple[ActivationStats, ...]:
    """Every operation that computes, under its layer's name; raises AnalyzerError."""
    try:
        names = zipfile.ZipFile(path).namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise AnalyzerError(f"{path}: no graph to run in it: {error}") from None
    script = any(name.endswith("constants.pkl") for name in names)
    if not script and any(name.endswith("/data.pkl") for name in names):
        raise AnalyzerError(f"{path}: no graph to run in it, only weights; name your model with --model")
    recording = Recording()
    try:
        with torch.no_grad():
            (_run_script if script else _run_exported)(path, inputs, recording)
    except AnalyzerError:
        raise
    except Exception as error:  # whatever the graph raises
        raise AnalyzerError(f"{path}: its graph failed: {type(error).__name__}: {error}") from error
    return recording.stats()


def _run_exported(path: Path, inputs: Inputs | None, recording: Recording) -> None:
    program = torch.export.load(path)
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    runner = _Runner(module, recording)
    if inputs is not None:
        positional = tuple(map(as_tensor, inputs.positional))
        runner.run(*positional, *(as_tensor(inputs.named[k]) for k in inputs.named))
    elif program.example_inputs:
        arguments, named = program.example_inputs
        runner.run(*arguments, *named.values())
    else:
        raise AnalyzerError(f"{path}: keeps no example; name inputs with --inputs")


class _Runner(fx.Interpreter):
    """Runs the graph node by node and shows each result to the recording."""

    def __init__(self, module: fx.GraphModule, recording: Recording) -> None:
        super().__init__(module)
        self._recording = recording

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_function":
            owner = list(n.meta.get("nn_module_stack", {}).values())
            kind = getattr(n.target, "__name__", str(n.target)).split(".")[0]
            if kind not in MOVES:
                came_in = [self.env.get(node) for node in n.all_input_nodes]
                self._recording.see(
                    (owner[-1][0] if owner else "") or n.name, kind, arrays(came_in), arrays(result)
                )
        return result


def _run_script(path: Path, inputs: Inputs | None, recording: Recording) -> None:
    if inputs is None:
        raise AnalyzerError(f"{path}: TorchScript keeps no example; name inputs with --inputs")
    module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    graph = module.inlined_graph.copy()
    watched = []
    for node in graph.nodes():
        for value in node.outputs():
            if isinstance(value.type(), torch.TensorType) and node.kind().startswith("aten::"):
                graph.registerOutput(value)
                watched.append(_name_of(node, value))
    graph.makeMultiOutputIntoTuple()
    function = torch._C._create_function_from_graph("forward", graph)
    own = len(list(module.inlined_graph.outputs()))
    for batch in inputs.batches():
        given = (*batch.positional, *batch.named.values())
        results = function(module._c, *map(as_tensor, given))[own:]
        before: Tensor | None = None
        for (name, kind), result in zip(watched, results, strict=True):
            if kind not in MOVES:
                recording.see(name, kind, arrays(before), arrays(result))
            before = result


def _name_of(node: Any, value: Any) -> tuple[str, str]:
    """The layer whose parameters an operation uses, or its scope as traced; else the value's own name."""
    kind = node.kind().removeprefix("aten::").strip("_")
    owners = [owner for given in node.inputs() if (owner := _owner(given.node()))]
    scope = node.scopeName().rpartition("/")[2].removeprefix("__module.")
    return (owners[0] if owners else scope) or f"{kind}_{value.debugName()}", kind


def _owner(node: Any) -> str:
    """``encoder.0`` for the node that reads its weight; "" for any other."""
    path: list[str] = []
    while node.kind() == "prim::GetAttr":
        path.insert(0, node.s("name"))
        node = next(node.inputs()).node()
    return ".".join(path[:-1])
