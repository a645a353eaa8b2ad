"""Finds the parameters, buffers, optimizer state and scalars in whatever was pickled.

Training scripts save a bare state dict, a dict of state dicts beside counters, a whole module, or
a framework's own nesting of these. What is what is told by structure first (an optimizer has
``state`` and ``param_groups``, a module ``_parameters``), and by the key it lies under second.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.pickles import Loaded, Record, Reference, dangerous, describe_dangerous
from analyzer.checkpoints.regions import DTYPES, ArrayBlocks, element_count
from analyzer.checkpoints.torch_objects import StoredTensor, tensor_blocks, tensor_fault
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem, Scalar, TensorRef

Blocks = Callable[[int], Iterator[NDArray[np.generic]]]

MAX_TENSORS = 1_000_000
MAX_VISITS = 3_000_000  # containers and values looked at
_MAX_STEPS_READ = 512
_MAX_SCALARS = 2_000
_MAX_TEXT = 500

_WRAPPERS = frozenset(
    [
        "state_dict",
        "model",
        "model_state_dict",
        "model_state",
        "model_dict",
        "net",
        "network",
        "net_state_dict",
        "params",
        "parameters",
        "module",
        "weights",
        "ema",
        "model_ema",
        "ema_state_dict",
        "ema_model",
        "shadow",
        "shadow_params",
        "averaged_model",
    ]
)
_EMA = re.compile(r"(^|[_.])(ema|swa|shadow|averaged)([_.]|$)|^(ema|swa|shadow)", re.IGNORECASE)
_EMA_PREFIX = re.compile(r"(model_ema|ema_model|ema|averaged_model)\.")
_OTHER = re.compile(
    r"rng|random|scheduler|scaler|callback|loop|replay|sampler|precision|^amp$", re.IGNORECASE
)
_HYPERPARAMETERS = frozenset(
    [
        "hyper_parameters",
        "hyperparameters",
        "hparams",
        "hyper_params",
        "args",
        "config",
        "cfg",
        "conf",
        "opt",
        "train_args",
        "training_args",
        "options",
        "model_args",
        "model_kwargs",
        "model_config",
        "configs",
        "settings",
        "kwargs",
    ]
)
_EPOCH_KEYS = ("epoch", "epochs", "current_epoch", "epoch_idx", "start_epoch")
_STEP_KEYS = ("global_step", "step", "iteration", "iter", "iterations", "steps", "n_iter", "iter_num",
              "global_iter", "total_steps", "num_timesteps", "num_updates")  # fmt: skip
_BUFFER_NAMES = frozenset(
    [
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "position_ids",
        "masked_bias",
        "inv_freq",
        "moving_mean",
        "moving_variance",
    ]
)
_UNDECAYED = re.compile(r"bias|norm|\bln", re.IGNORECASE)
_PREFIXES = ("module.", "_orig_mod.", "model.")


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A tensor found. ``path`` is the full path of keys to it; ``root`` the top-level key."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Blocks
    group: str
    slot: str = ""
    path: str = ""
    root: str = ""
    parameter: bool | None = None  # None: not known whether it is trained


@dataclass(slots=True, eq=False)
class Found:
    """What the walk gathers."""

    path: str
    entries: list[Entry] = field(default_factory=list)
    optimizers: list[tuple[str, Mapping[object, object]]] = field(default_factory=list)
    metadata: dict[str, Scalar] = field(default_factory=dict)
    hyperparameters: dict[str, Scalar] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    faults: int = 0

    @property
    def empty(self) -> bool:
        facts = self.metadata.keys() - {"pickle_calls", "pickle_dangerous"}
        return not (self.entries or self.optimizers or facts)


def checkpoint_of(loaded: Loaded, path: str, format: str) -> Checkpoint:
    """The Checkpoint in an interpreted pickle.

    Raises IngestError of kind unsafe when nothing but dangerous calls is in it, and damaged or
    unsupported when it has neither tensors nor values.
    """
    found = gather(loaded, path)
    if found.empty:
        _refuse_empty(found)
    return assemble(
        path, format, found.entries, found.optimizers, found.metadata, found.hyperparameters, found.problems
    )


def gather(loaded: Loaded, path: str) -> Found:
    """Everything of use in an interpreted pickle."""
    found = Found(path)
    _walk(loaded.value, found)
    _scalars(loaded.value, found)
    harmful = dangerous(loaded.references)
    if harmful:
        problem = Problem(path, "unsafe", describe_dangerous(harmful), harmful[0].offset)
        found.problems.insert(0, problem)
        found.metadata["pickle_dangerous"] = _imports(str(use.reference) for use in harmful)
    unusual = [str(u.reference) for u in loaded.references if u.opcode != "GLOBAL" and _unusual(u.reference)]
    if unusual:
        found.metadata["pickle_calls"] = _imports(unusual)
    return found


def _refuse_empty(found: Found) -> None:
    if found.problems:
        problem = found.problems[0]
        raise IngestError(found.path, problem.message, problem.kind, problem.offset)
    if not found.hyperparameters:
        raise IngestError(found.path, "holds no tensors and no values", "unsupported")


def _imports(names: Iterable[str]) -> str:
    return ", ".join(list(dict.fromkeys(name[:80] for name in names))[:20])


def _unusual(reference: Reference) -> bool:
    return reference.module.split(".")[0] not in {
        "torch",
        "collections",
        "numpy",
        "builtins",
        "_codecs",
        "copyreg",
    }


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


def _below(visit: _Visit, found: Found) -> Iterator[_Visit]:
    value = visit.value
    if isinstance(value, Record):
        value = _attributes(value)
    if not isinstance(value, Mapping):
        for index, item in enumerate(value if isinstance(value, (list, tuple)) else ()):
            if isinstance(item, (dict, list, tuple, Record, StoredTensor, np.ndarray)):
                yield _child(visit, str(index), item)
        return
    if is_optimizer(value):
        found.optimizers.append((visit.path, value))
        return
    if is_module(value):
        yield from _module_parts(visit, value)
        return
    _note_scaler(value, found)
    for key, item in value.items():
        if isinstance(item, (dict, list, tuple, Record, StoredTensor, np.ndarray)):
            yield _child(visit, key if isinstance(key, str) else str(key)[:80], item)


def _attributes(record: Record) -> object:
    """The dict of an object's attributes; a list for a class that appends."""
    state = record.state
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0] or state[1], dict):
        state = {**(state[0] or {}), **(state[1] if isinstance(state[1], dict) else {})}
    if isinstance(state, dict):
        return state
    pairs = [item for item in record.items if isinstance(item, tuple) and len(item) == 2]
    if pairs and len(pairs) == len(record.items):
        return {str(key): value for key, value in pairs}
    return [*record.args, *record.items]


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
    return _Visit(item, group, name, path, visit.root or key)


def _group_of(key: str) -> str:
    """What a top-level container belongs to, by its key."""
    if _OTHER.search(key) or key in _HYPERPARAMETERS:
        return "other"
    return "ema" if _EMA.search(key) else "model"


def is_optimizer(value: Mapping[object, object]) -> bool:
    return isinstance(value.get("state"), (dict, Record)) and isinstance(
        value.get("param_groups"), (list, tuple)
    )


def is_module(value: Mapping[object, object]) -> bool:
    return "_parameters" in value and "_modules" in value


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
                child = _child(visit, str(key), item)
                yield replace(child, name=f"{visit.name}.{key}" if visit.name else str(key), parameter=trained,
                              group=visit.group)  # fmt: skip


def _add_tensor(visit: _Visit, found: Found) -> None:
    tensor = visit.value
    if not isinstance(tensor, StoredTensor):
        return
    name = visit.name or visit.path or "tensor"
    fault = tensor_fault(tensor)
    if fault:
        found.faults += 1
        if found.faults <= 20:
            found.problems.append(Problem(found.path, "damaged", f"tensor {name[:80]!r} not read: {fault}"))
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


# --- scalars ---------------------------------------------------------------------------------------


def _scalars(root: object, found: Found) -> None:
    """Counters and results at the top level to metadata, configurations to hyperparameters."""
    if isinstance(root, Record):
        attributes = _attributes(root)
        if isinstance(attributes, Mapping) and not is_module(attributes):
            flatten(attributes, "", found.hyperparameters)
        return
    if not isinstance(root, Mapping) or is_optimizer(root):
        return
    for key, value in root.items():
        if key in _HYPERPARAMETERS and not (isinstance(value, Mapping) and is_optimizer(value)):
            flatten(value, "", found.hyperparameters)
        elif isinstance(key, str) and len(found.metadata) < _MAX_SCALARS:
            scalar = scalar_of(value)
            if scalar is not None:
                found.metadata[key[:200]] = scalar
            elif "scheduler" in key.lower() or "_step_count" in root:
                flatten(value, key, found.metadata, most=len(found.metadata) + 40)


def flatten(value: object, prefix: str, into: dict[str, Scalar], most: int = _MAX_SCALARS) -> None:
    """Scalars in nested containers, under dotted names; at most ``most`` and six levels deep."""
    stack: list[tuple[str, object, int]] = [(prefix, value, 0)]
    for _ in range(20 * most):
        if not stack or len(into) >= most:
            return
        name, item, depth = stack.pop()
        scalar = scalar_of(item)
        if scalar is not None and name:
            into.setdefault(name[:200], scalar)
            continue
        below = _attributes(item) if isinstance(item, Record) else item
        if isinstance(below, Mapping) and depth < 6:
            parts = [(str(k), v) for k, v in below.items() if not str(k).startswith("_")]
            stack.extend((f"{name}.{k}" if name else k, v, depth + 1) for k, v in reversed(parts))


def scalar_of(value: object) -> Scalar:
    """A number, text, truth value, name, short list of these, or enum member; otherwise None."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if isinstance(value, Reference):
        return str(value)[:_MAX_TEXT]
    if isinstance(value, (list, tuple)) and 0 < len(value) <= 16:
        parts = [scalar_of(item) for item in value if isinstance(item, (bool, int, float, str))]
        return ", ".join(str(part) for part in parts)[:_MAX_TEXT] if len(parts) == len(value) else None
    if isinstance(value, Record) and value.state is None and not value.items and len(value.args) == 1:
        only = value.args[0]
        return scalar_of(only) if isinstance(only, (str, int, float)) else None
    return None


def _note_scaler(value: Mapping[object, object], found: Found) -> None:
    """The state of ``torch.amp.GradScaler`` or of apex's loss scalers."""
    scale = value.get("scale", value.get("loss_scale"))
    if isinstance(scale, (int, float)) and ("growth_factor" in value or "unskipped" in value):
        found.metadata.setdefault("loss_scale", float(scale))
        tracker = value.get("_growth_tracker", value.get("unskipped"))
        if isinstance(tracker, int):
            found.metadata.setdefault("loss_scale_growth_tracker", tracker)


# --- assembly --------------------------------------------------------------------------------------


def assemble(
    path: str,
    format: str,
    entries: Sequence[Entry],
    optimizers: Sequence[tuple[str, Mapping[object, object]]] = (),
    metadata: Mapping[str, Scalar] | None = None,
    hyperparameters: Mapping[str, Scalar] | None = None,
    problems: Sequence[Problem] = (),
) -> Checkpoint:
    """The Checkpoint of what a container found: names folded, optimizer state named."""
    named = _distinct(fold_prefixes(entries))
    facts: dict[str, Scalar] = dict(metadata or {})
    states, settings, more = _optimizer_states(path, optimizers, named)
    facts.update(more)
    step = _integer(facts, _STEP_KEYS)
    return Checkpoint(
        path=path,
        format=format,
        tensors=tuple(_reference(entry) for entry in (*named, *states)),
        step=_integer(hyperparameters or {}, ("num_timesteps",)) if step is None else step,
        epoch=_integer(facts, _EPOCH_KEYS),
        hyperparameters=dict(hyperparameters or {}),
        optimizer=settings,
        metadata=facts,
        problems=tuple(problems),
    )


def _integer(values: Mapping[str, Scalar], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = values.get(key)
        if (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and value == value // 1
            and value >= 0
        ):
            return int(value)
    return None


def _reference(entry: Entry) -> TensorRef:
    dtype = DTYPES.get(entry.dtype)
    width = dtype.size if dtype else np.dtype(entry.dtype).itemsize
    nbytes = element_count(entry.shape) * width
    return TensorRef(entry.name, entry.shape, entry.dtype, nbytes, entry.group, entry.blocks, entry.slot)


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 2 before layer 10: for containers that do not keep the order of depth."""
    return [(int(part[:18]), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def fold_prefixes(entries: Sequence[Entry]) -> list[Entry]:
    """Without the wrappers' prefixes that all names of a group carry."""
    folded = list(entries)
    for group in ("model", "ema"):
        names = [entry.name for entry in folded if entry.group == group]
        prefix = _common_prefix(names)
        if prefix:
            folded = [
                replace(entry, name=entry.name[len(prefix) :]) if entry.group == group else entry
                for entry in folded
            ]
    return folded


def _common_prefix(names: list[str]) -> str:
    prefix = ""
    while names:
        longer = next((prefix + p for p in _PREFIXES if all(n.startswith(prefix + p) for n in names)), None)
        if longer is None:
            return prefix
        prefix = longer
    return prefix


def _distinct(entries: list[Entry]) -> list[Entry]:
    """Tensors of one name in one group get the full path instead."""
    counts: dict[tuple[str, str], int] = {}
    for entry in entries:
        counts[entry.group, entry.name] = counts.get((entry.group, entry.name), 0) + 1
    return [
        replace(entry, name=entry.path or entry.name) if counts[entry.group, entry.name] > 1 else entry
        for entry in entries
    ]


# --- optimizer -------------------------------------------------------------------------------------


def _optimizer_states(
    path: str, optimizers: Sequence[tuple[str, Mapping[object, object]]], entries: Sequence[Entry]
) -> tuple[list[Entry], dict[str, Scalar], dict[str, Scalar]]:
    """State tensors under their parameters' names, the first optimizer's settings, and facts."""
    states: list[Entry] = []
    settings: dict[str, Scalar] = {}
    facts: dict[str, Scalar] = {}
    for number, (place, optimizer) in enumerate(optimizers):
        slots, scalars = _slots(optimizer)
        order = _parameter_order(optimizer)
        names = _names_for(order, slots, entries)
        prefix = f"optimizer{number}." if number else ""
        for (key, slot), tensor in slots.items():
            name = names.get(key, f"{prefix}{_label(key)}")
            entry = _state_entry(name, slot, tensor, f"{place}.state")
            if entry is not None:
                states.append(entry)
        if number == 0:
            settings = _settings(optimizer, slots, scalars)
            facts = {"optimizer_parameters": sum(map(len, order)), "optimizer_names_known": bool(names)}
    if len(optimizers) > 1:
        facts["optimizers"] = len(optimizers)
    return states, settings, facts


def _label(key: object) -> str:
    return key if isinstance(key, str) else str(key)[:40]


def _slots(
    optimizer: Mapping[object, object],
) -> tuple[dict[tuple[object, str], StoredTensor], dict[str, float]]:
    """Tensors by (parameter, slot), and the largest of each scalar slot such as ``step``."""
    tensors: dict[tuple[object, str], StoredTensor] = {}
    scalars: dict[str, float] = {}
    state = optimizer["state"]
    if isinstance(state, Record):
        state = _attributes(state)
    for key, slots in state.items() if isinstance(state, Mapping) else ():
        for slot, value in slots.items() if isinstance(slots, Mapping) else ():
            if isinstance(value, StoredTensor):
                tensors[key, str(slot)[:80]] = value
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                scalars[str(slot)[:80]] = max(float(value), scalars.get(str(slot)[:80], float("-inf")))
    return tensors, scalars


def _parameter_order(optimizer: Mapping[object, object]) -> list[list[object]]:
    groups = optimizer["param_groups"]
    orders: list[list[object]] = []
    for group in groups if isinstance(groups, (list, tuple)) else ():
        members = group.get("params") if isinstance(group, Mapping) else None
        orders.append(list(members) if isinstance(members, (list, tuple)) else [])
    return orders


def _names_for(
    order: list[list[object]], slots: Mapping[tuple[object, str], StoredTensor], entries: Sequence[Entry]
) -> dict[object, str]:
    """Names of the parameters an optimizer counts, when one order of the model's fits every shape."""
    keys = [key for group in order for key in group]
    by_blocks = {entry.blocks: entry.name for entry in reversed(entries) if entry.group == "model"}
    whole = {key: by_blocks.get(tensor_blocks(key)) for key in keys if isinstance(key, StoredTensor)}
    if whole:
        return {key: name for key, name in whole.items() if name is not None}
    shapes: dict[object, tuple[int, ...]] = {}
    for (key, slot), tensor in slots.items():
        if tensor.shape and slot != "step":
            shapes.setdefault(key, tensor.shape)
    for candidate in _candidate_orders(entries):
        if len(candidate) == len(keys) and all(
            key not in shapes or shapes[key] == entry.shape
            for key, entry in zip(keys, candidate, strict=True)
        ):
            return {key: entry.name for key, entry in zip(keys, candidate, strict=True) if _hashable(key)}
    return {}


def _hashable(key: object) -> bool:
    return isinstance(key, (int, str))


def _candidate_orders(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The orders in which scripts hand a model's parameters to an optimizer.

    As they come; matrices before vectors or after (weight decay for matrices only); biases and
    normalisation apart (Hugging Face). First of the whole model, then of each of its parts.
    """
    everything = trained_parameters(entries)
    roots = dict.fromkeys(entry.root for entry in everything)
    for parameters in (everything, *([e for e in everything if e.root == root] for root in roots)):
        yield parameters
        yield sorted(parameters, key=lambda e: len(e.shape) <= 1)
        yield sorted(parameters, key=lambda e: len(e.shape) > 1)
        yield sorted(parameters, key=lambda e: bool(_UNDECAYED.search(e.name)))


def trained_parameters(entries: Sequence[Entry]) -> list[Entry]:
    """The model's parameters without its buffers, tied ones once: what ``parameters()`` gives."""
    chosen: dict[Blocks, Entry] = {}
    for entry in entries:
        if entry.group != "model" or entry.parameter is False:
            continue
        if is_buffer(entry.name, entry.dtype) and not entry.parameter:
            continue
        chosen.setdefault(entry.blocks, entry)
    return list(chosen.values())


def is_buffer(name: str, dtype: str) -> bool:
    """True for what is state rather than a trained parameter, by its name or element type."""
    return name.rsplit(".", 1)[-1] in _BUFFER_NAMES or not dtype.startswith(("float", "bfloat", "complex"))


def _state_entry(name: str, slot: str, tensor: StoredTensor, path: str) -> Entry | None:
    if tensor_fault(tensor):
        return None
    return Entry(name, tensor.dtype, tensor.shape, tensor_blocks(tensor), "optimizer", slot, path)


def _settings(
    optimizer: Mapping[object, object],
    slots: Mapping[tuple[object, str], StoredTensor],
    scalars: Mapping[str, float],
) -> dict[str, Scalar]:
    """The first parameter group's scalars, ``kind`` as guessed, and the largest ``step``."""
    groups = optimizer["param_groups"]
    first = groups[0] if isinstance(groups, (list, tuple)) and groups else {}
    settings: dict[str, Scalar] = {}
    for key, value in first.items() if isinstance(first, Mapping) else ():
        if key == "betas" and isinstance(value, (list, tuple)):
            numbers = [beta for beta in value if isinstance(beta, (int, float))]
            settings.update({f"beta{i + 1}": float(beta) for i, beta in enumerate(numbers)})
        elif isinstance(key, str) and key != "params":
            scalar = scalar_of(value)
            if scalar is not None:
                settings[key[:80]] = scalar
    kind = _kind({slot for _, slot in slots}, settings)
    if kind:
        settings["kind"] = kind
    step = _largest_step(slots, scalars)
    if step is not None:
        settings["step"] = step
    return settings


def _kind(slots: set[str], settings: Mapping[str, Scalar]) -> str:
    for slot, kind in (("exp_avg_sq", "adam"), ("square_avg", "rmsprop"), ("sum", "adagrad"), ("exp_avg", "lion"),
                       ("momentum_buffer", "sgd")):  # fmt: skip
        if slot in slots:
            return kind
    if "beta1" in settings:
        return "adam"
    return "sgd" if "momentum" in settings else ""


def _largest_step(
    slots: Mapping[tuple[object, str], StoredTensor], scalars: Mapping[str, float]
) -> int | None:
    """Of the numbers, and of the first few hundred zero-dimensional tensors, named ``step``."""
    steps = [scalars["step"]] if "step" in scalars else []
    tensors = [t for (_, slot), t in slots.items() if slot == "step" and element_count(t.shape) == 1]
    for tensor in tensors[:_MAX_STEPS_READ]:
        if not tensor_fault(tensor):
            steps += [float(np.real(block[0])) for block in tensor_blocks(tensor)(64)]
    finite = [step for step in steps if 0 <= step < 1e18]
    return int(max(finite)) if finite else None
