"""A checkpoint's folder of the Hugging Face Trainer or of Accelerate, read as one checkpoint.

Weights lie beside the optimizer's state, the schedule, the loss scaler and the arguments of the
training; the weights' file stands for all of them. Weights alone are read as what they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from analyzer.checkpoints import sharded
from analyzer.checkpoints.entries import Found
from analyzer.checkpoints.sharded import claiming, found_in
from analyzer.checkpoints.state import assemble
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem

NAME = "transformers"
SUMMARY = "folders of the Hugging Face Trainer and Accelerate: weights with optimizer.pt, scheduler.pt, …"
ORDER = 5  # before the containers of the weights
_WEIGHTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "adapter_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "adapter_model.bin",
)
_COMPANION = re.compile(
    r"(optimizer|scheduler|scaler|training_args)\.(pt|bin)|rng_state(_\d+)?\.pth|random_states_\d+\.pkl"
)
_MAX_STATE = 1 << 26


def claims(path: Path, head: bytes) -> bool:
    return path.name in _WEIGHTS


def parts(path: Path) -> Iterable[Path]:
    """The companions, and the shards of an index."""
    if path.name.endswith(sharded.SUFFIXES):
        yield from sharded.parts(path)
    yield from _companions(path)


def open(path: Path) -> Checkpoint:
    """Index of the weights with what lies beside them. Raises IngestError where there are no weights."""
    found, companions = _weights(path), _companions(path)
    if not companions:
        return assemble(found, _format(path))
    for companion in companions:
        try:
            _add(found, companion.name, found_in(companion))
        except (IngestError, OSError) as error:
            reason = error.message if isinstance(error, IngestError) else str(error)
            kind = error.kind if isinstance(error, IngestError) else "unreadable"
            found.problems.append(Problem(str(companion), kind, reason, getattr(error, "offset", None)))
    found.metadata.update(_progress(path))
    return assemble(found, NAME)


def find(path: Path) -> Found:
    """The weights alone."""
    return _weights(path)


def _weights(path: Path) -> Found:
    return found_in(path, ORDER)


def _format(path: Path) -> str:
    container = claiming(path, ORDER)
    return container.NAME if container else NAME


def _companions(path: Path) -> list[Path]:
    found = (p for p in path.parent.iterdir() if _COMPANION.fullmatch(p.name) and p.is_file())
    return sorted(found, key=lambda p: (not p.name.startswith("optimizer"), p.name))


def _add(found: Found, name: str, part: Found) -> None:
    """Its optimizer, settings and schedule; the tensors of random number states are left out."""
    found.optimizers += [
        (f"{name}.{place}" if place else name, optimizer) for place, optimizer in part.optimizers
    ]
    found.uses += part.uses
    found.problems += part.problems
    found.hyperparameters.update(part.hyperparameters)
    kind = name.split(".")[0]
    if kind == "scaler" or kind == "scheduler":
        found.metadata.update({f"{kind}.{key}": value for key, value in part.metadata.items()})
    if "loss_scale" in part.metadata:
        found.metadata["loss_scale"] = part.metadata["loss_scale"]


def _progress(path: Path) -> Iterator[tuple[str, int | float]]:
    """Step and epoch from the Trainer's own record beside the weights."""
    state = path.with_name("trainer_state.json")
    try:
        told = json.loads(state.read_bytes()) if state.stat().st_size <= _MAX_STATE else None
    except (OSError, ValueError, RecursionError):
        return  # not there, or damaged: as a log it is reported on its own
    for key in ("global_step", "epoch"):
        value = told.get(key) if isinstance(told, dict) else None
        if isinstance(value, (int, float)):
            yield key, value
