"""Finds the parameters, buffers, optimizer state and scalars in whatever was pickled.

Training scripts save a bare state dict, a dict of state dicts beside counters, a whole module, or
a framework's own nesting of these. What is what is told by structure first (an optimizer has
``state`` and ``param_groups``, a module ``_parameters``), and by the key it lies under second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from analyzer.checkpoints.entries import Entry, Found, distinct, fold_prefixes
from analyzer.checkpoints.optimizers import add_states
from analyzer.checkpoints.pickle_harm import harmful, harms_text, ordinary, warning
from analyzer.checkpoints.pickle_machine import Record
from analyzer.checkpoints.pickles import Loaded
from analyzer.checkpoints.quantised import unpacked
from analyzer.checkpoints.regions import DTYPES, QUANTISED, ArrayBlocks, element_count
from analyzer.checkpoints.scalars import (
    attributes,
    gather_scalars,
    is_configuration,
    is_module,
    is_optimizer,
    note_scaler,
)
from analyzer.checkpoints.torch_objects import StoredTensor, tensor_blocks, tensor_fault
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem, Scalar, TensorRef

MAX_TENSORS = 100_000
MAX_VISITS = 3_000_000  # containers and values looked at
_MAX_KEY, _MAX_NAME = 200, 1_000  # characters: names grow with nesting
_WRAPPERS = frozenset(
    ("state_dict", "model", "model_state_dict", "model_state", "model_dict", "net", "network", "net_state_dict",
     "params", "parameters", "module", "weights", "ema", "model_ema", "ema_state_dict", "state_dict_ema",
     "ema_model", "ema_weights", "shadow", "shadow_params", "averaged_model")
)  # fmt: skip
_EMA = re.compile(r"(^|[_.])(ema|swa|shadow|averaged)([_.]|$)|^(ema|swa|shadow)", re.IGNORECASE)
_EMA_PREFIX = re.compile(r"(model_ema|ema_model|ema|averaged_model)\.")
_OTHER = re.compile(
    r"rng|random|scheduler|scaler|callback|loop|replay|sampler|precision|^amp$", re.IGNORECASE
)
_EPOCH_KEYS = ("epoch", "epochs", "current_epoch", "epoch_idx", "start_epoch")
_STEP_KEYS = ("global_step", "step", "iteration", "iter", "iterations", "steps", "n_iter", "iter_num",
              "global_iter", "total_steps", "num_timesteps", "num_updates")  # fmt: skip


def gather(loaded: Loaded, path: str) -> Found:
    """Everything of use in an interpreted pickle."""
    found = Found(path, uses=list(loaded.references))
    _walk(loaded.value, found)
    gather_scalars(loaded.value, found)
    return found


def refuse_empty(found: Found) -> None:
    """Raises IngestError for what holds neither tensors nor values, and would run nothing either."""
    if found.entries or found.optimizers or found.metadata or harmful(found.uses):
        return
    if found.problems:
        problem = found.problems[0]
        raise IngestError(found.path, problem.message, problem.kind, problem.offset)
    if not found.hyperparameters:
        raise IngestError(found.path, "holds no tensors and no values", "unsupported")


def _note_harm(found: Found) -> None:
    """What loading the pickles would have run, as a problem and in the metadata; what is unusual too."""
    if harms := harmful(found.uses):
        problem = Problem(found.path, "unsafe", warning(harms), harms[0].use.offset)
        found.problems.insert(0, problem)
        for level in ("critical", "warning"):
            if text := harms_text(harms, level):
                found.metadata[f"pickle_{level}"] = text
    if found.uses:
        found.metadata["pickle_imports"] = len({use.reference for use in found.uses})
    calls = dict.fromkeys(
        str(use.reference)[:80] for use in found.uses if use.called and not ordinary(use.reference)
    )
    if calls:
        found.metadata["pickle_calls"] = ", ".join(list(calls)[:20])


# --- walking ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Visit:
    value: object
    group: str
    name: str  # dotted, below the wrapper
    path: str  # dotted, from the root
    root: str
    parameter: bool | None = None


def _walk(root: object, found: Found) -> None:
    """Depth first, in the file's order, each container once."""
    stack = [_Visit(root, "model", "", "", "")]
    seen: set[int] = set()
    for _ in range(MAX_VISITS):
        if not stack:
            return
        visit = stack.pop()
        if isinstance(visit.value, StoredTensor):
            _add_tensor(visit, found)
        elif isinstance(visit.value, np.ndarray):
            _add_array(visit, found)
        elif isinstance(visit.value, (dict, list, tuple, Record)) and id(visit.value) not in seen:
            seen.add(id(visit.value))
            stack.extend(reversed(list(_below(visit, found))))
        if len(found.entries) >= MAX_TENSORS:
            break
    found.problems.append(Problem(found.path, "too-large", "only part of what the file holds was looked at"))


_CONTAINERS = (dict, list, tuple, Record, StoredTensor, np.ndarray)


def _below(visit: _Visit, found: Found) -> Iterator[_Visit]:
    value = visit.value
    if isinstance(value, Record):
        value = attributes(value)
    if not isinstance(value, Mapping):
        for index, item in enumerate(value if isinstance(value, (list, tuple)) else ()):
            if isinstance(item, _CONTAINERS):
                yield _child(visit, str(index), item)
        return
    if is_optimizer(value):
        found.optimizers.append((visit.path, value))
        return
    if is_module(value):
        yield from _module_parts(visit, value)
        return
    note_scaler(value, found)
    for key, item in value.items():
        if isinstance(item, _CONTAINERS):
            yield _child(visit, key[:_MAX_KEY] if isinstance(key, str) else str(key)[:80], item)


def _child(visit: _Visit, key: str, item: object) -> _Visit:
    top = visit.path == ""
    group = visit.group
    if group in ("model", "ema") and not isinstance(item, (StoredTensor, np.ndarray)) and top:
        group = _group_of(key)
    elif group == "model" and visit.name == "" and _EMA_PREFIX.match(key):
        group = "ema"
    wrapper = key in _WRAPPERS and visit.name == "" and not isinstance(item, StoredTensor)
    name = "" if wrapper else (f"{visit.name}.{key}" if visit.name else key)
    path = f"{visit.path}.{key}" if visit.path else key
    return _Visit(item, group, name[-_MAX_NAME:], path[-_MAX_NAME:], visit.root or key)


def _group_of(key: str) -> str:
    """What a top-level container belongs to, by its key."""
    if _OTHER.search(key) or is_configuration(key):
        return "other"
    return "ema" if _EMA.search(key) else "model"


def _module_parts(visit: _Visit, module: Mapping[object, object]) -> Iterator[_Visit]:
    """Parameters, persistent buffers and submodules of a whole pickled ``nn.Module``."""
    transient = module.get("_non_persistent_buffers_set")
    skipped = transient if isinstance(transient, (set, frozenset, list, tuple)) else ()
    for part, trained in (("_parameters", True), ("_buffers", False), ("_modules", None)):
        items = module.get(part)
        if not isinstance(items, Mapping):
            continue
        for key, item in items.items():
            if item is not None and not (part == "_buffers" and key in skipped):
                name = str(key)[:_MAX_KEY]
                child = _child(visit, name, item)
                name = f"{visit.name}.{name}"[-_MAX_NAME:] if visit.name else name
                yield replace(child, name=name, parameter=trained, group=visit.group)


def _add_tensor(visit: _Visit, found: Found) -> None:
    tensor = visit.value
    if not isinstance(tensor, StoredTensor):
        return
    name = visit.name or visit.path or "tensor"
    fault = tensor_fault(tensor)
    if fault:
        found.fault("damaged", f"tensor {name[:80]!r} not read: {fault}")
        return
    parameter = visit.parameter if visit.parameter is not None else (tensor.parameter or None)
    entry = Entry(name, tensor.dtype, tensor.shape, tensor_blocks(tensor), visit.group, "", visit.path, visit.root,
                  parameter)  # fmt: skip
    found.entries.append(entry)


def _add_array(visit: _Visit, found: Found) -> None:
    array = visit.value
    if isinstance(array, np.ndarray) and array.dtype.kind in "biufc":
        name = visit.name or visit.path or "array"
        entry = Entry(
            name, array.dtype.name, array.shape, ArrayBlocks(array), visit.group, "", visit.path, visit.root
        )
        found.entries.append(entry)


# --- assembly --------------------------------------------------------------------------------------


def assemble(found: Found, format: str) -> Checkpoint:
    """The Checkpoint of what a container found: names folded, optimizer state named."""
    named = unpacked(distinct(fold_prefixes(found.entries)), found)
    states, settings = add_states(found, named)
    _note_harm(found)
    step = _integer(found.metadata, _STEP_KEYS)
    return Checkpoint(
        path=found.path,
        format=format,
        tensors=tuple(_reference(entry) for entry in (*named, *states)),
        step=_integer(found.hyperparameters, ("num_timesteps",)) if step is None else step,
        epoch=_integer(found.metadata, _EPOCH_KEYS),
        hyperparameters=dict(found.hyperparameters),
        optimizer={**found.settings, **settings},
        metadata=dict(found.metadata),
        problems=tuple(found.problems),
    )


def _integer(values: Mapping[str, Scalar], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = values.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 and value % 1 == 0:
            return int(value)
    return None


def _reference(entry: Entry) -> TensorRef:
    nbytes = entry.nbytes
    if nbytes < 0:
        dtype = DTYPES.get(QUANTISED.get(entry.dtype, entry.dtype))
        nbytes = element_count(entry.shape) * (dtype.size if dtype else np.dtype(entry.dtype).itemsize)
    return TensorRef(entry.name, entry.shape, entry.dtype, nbytes, entry.group, entry.blocks, entry.slot)
