"""What pickled containers are, and the numbers and text beside the tensors: counters, results, configurations, the loss scale."""

from __future__ import annotations

from collections.abc import Mapping

from analyzer.checkpoints.entries import Found
from analyzer.checkpoints.pickle_machine import Record, Reference
from analyzer.model import Scalar

_MAX_SCALARS = 2_000
_MAX_TEXT = 500
_HYPERPARAMETERS = frozenset(
    ("hyper_parameters", "hyperparameters", "hparams", "hyper_params", "args", "config", "cfg", "conf", "opt",
     "train_args", "training_args", "options", "model_args", "model_kwargs", "model_config", "configs",
     "settings", "kwargs")
)  # fmt: skip


def is_configuration(key: object) -> bool:
    return key in _HYPERPARAMETERS


def gather_scalars(root: object, found: Found) -> None:
    """Counters and results at the top level to metadata, configurations to hyperparameters."""
    if isinstance(root, Record):
        own = attributes(root)
        if isinstance(own, Mapping) and not is_module(own):
            flatten(own, "", found.hyperparameters)
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
        below = attributes(item) if isinstance(item, Record) else item
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


def note_scaler(value: Mapping[object, object], found: Found) -> None:
    """The state of ``torch.amp.GradScaler`` or of apex's loss scalers."""
    scale = value.get("scale", value.get("loss_scale"))
    if isinstance(scale, (int, float)) and ("growth_factor" in value or "unskipped" in value):
        found.metadata.setdefault("loss_scale", float(scale))
        tracker = value.get("_growth_tracker", value.get("unskipped"))
        if isinstance(tracker, int):
            found.metadata.setdefault("loss_scale_growth_tracker", tracker)


def attributes(record: Record) -> object:
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


def is_optimizer(value: Mapping[object, object]) -> bool:
    return isinstance(value.get("state"), (dict, Record)) and isinstance(
        value.get("param_groups"), (list, tuple)
    )


def is_module(value: Mapping[object, object]) -> bool:
    return "_parameters" in value and "_modules" in value
