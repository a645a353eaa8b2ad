"""The user's model: made by their factory, filled from the checkpoint, run under forward hooks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analyzer.activations.inputs import Array, Inputs, array_of
from analyzer.activations.recording import Recording
from analyzer.errors import AnalyzerError
from analyzer.model import ActivationStats, Checkpoint

NAMED = 5


def make_model(factory: str) -> nn.Module:
    """The module that ``package.module:name`` is, or gives when called without arguments."""
    module_name, _, name = factory.partition(":")
    if not module_name or not name:
        raise AnalyzerError(f"--model {factory}: expected package.module:factory")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module_name), name)
        if not isinstance(made, nn.Module):
            made = made()
    except Exception as error:  # the user's code: whatever it raises, they want to read it
        raise AnalyzerError(f"--model {factory}: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise AnalyzerError(f"--model {factory}: gives a {type(made).__name__}, not a torch.nn.Module")
    return made


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Fill the model; what is missing, left over or of another shape is told, not fatal.

    Raises AnalyzerError where nothing fits.
    """
    wanted = model.state_dict()
    stored = {ref.name: ref for ref in checkpoint.tensors if ref.group == "model"}
    fitting = {
        name: ref for name, ref in stored.items() if name in wanted and ref.shape == wanted[name].shape
    }
    if wanted and not fitting:
        raise AnalyzerError(f"{checkpoint.path}: none of its {len(stored)} tensors is one of the model's")
    with torch.no_grad():
        for name, ref in fitting.items():
            wanted[name].copy_(torch.from_numpy(array_of(ref)))
    told = [
        ("not in the checkpoint", [n for n in wanted if n not in stored]),
        ("not in the model", [n for n in stored if n not in wanted]),
        ("of another shape", [n for n in stored if n in wanted and n not in fitting]),
    ]
    return tuple(f"{len(n)} {what}: {_some(n)}" for what, n in told if n)


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")


def run_model(model: nn.Module, inputs: Inputs) -> tuple[ActivationStats, ...]:
    """Forward passes in evaluation mode, in slices of the batch, every innermost layer watched."""
    recording = Recording()
    hooks = [
        module.register_forward_hook(_watch(recording, name or "model"))
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad():
            model.eval()
            for batch in inputs.batches():
                model(*map(as_tensor, batch.positional), **{k: as_tensor(v) for k, v in batch.named.items()})
    except Exception as error:  # the user's code
        raise AnalyzerError(f"the model failed on these inputs: {type(error).__name__}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return recording.stats()


def _watch(recording: Recording, name: str) -> Callable[[nn.Module, Any, Any], None]:
    def watch(module: nn.Module, came_in: Any, output: Any) -> None:
        recording.see(name, type(module).__name__, arrays(came_in), arrays(output))

    return watch


def arrays(value: object) -> Iterator[Array]:
    """The tensors in what a layer took or gave, however they are packed; halves as float32."""
    if isinstance(value, Tensor):
        yield (value.float() if value.is_floating_point() and value.itemsize < 4 else value).detach().numpy()
    elif isinstance(value, dict):
        yield from arrays(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from arrays(item)


def as_tensor(array: Any) -> Tensor:
    """Floats as float32, what models compute in."""
    found = torch.from_numpy(array)
    return found.float() if found.is_floating_point() else found
