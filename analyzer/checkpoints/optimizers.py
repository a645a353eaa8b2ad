"""Optimizer state: its tensors under their parameters' names, and its settings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate

import numpy as np

from analyzer.checkpoints.entries import Entry, Found, common_prefix, natural, trained_parameters
from analyzer.checkpoints.pickle_machine import Record
from analyzer.checkpoints.regions import element_count
from analyzer.checkpoints.scalars import attributes, scalar_of
from analyzer.checkpoints.torch_objects import StoredTensor, tensor_blocks, tensor_fault
from analyzer.model import Problem, Scalar

_MAX_STEPS_READ = 512
_UNDECAYED = re.compile(r"bias|norm|\bln", re.IGNORECASE)


def add_states(found: Found, entries: Sequence[Entry]) -> tuple[list[Entry], dict[str, Scalar]]:
    """State tensors under their parameters' names, and the first optimizer's settings.

    ``entries`` are the model's, under their final names. Facts go to ``found.metadata``, what cannot
    be read or is unsure to ``found.problems``.
    """
    states: list[Entry] = []
    settings: dict[str, Scalar] = {}
    taken: set[str] = set()
    for number, (place, optimizer) in enumerate(found.optimizers):
        slots, scalars = _slots(optimizer)
        order = _parameter_order(optimizer)
        names, guessed = _names_for(order, _shapes(slots), entries, taken, found)
        taken.update(names.values())
        prefix = f"optimizer{number}." if number else ""
        for (key, slot), tensor in slots.items():
            name = names.get(key, f"{prefix}{_label(key)}")
            if fault := tensor_fault(tensor):
                found.fault("damaged", f"optimizer state {name[:80]!r} {slot!r} not read: {fault}")
                continue
            blocks = tensor_blocks(tensor)
            states.append(
                Entry(name, tensor.dtype, tensor.shape, blocks, "optimizer", slot, f"{place}.state")
            )
        if number == 0:
            settings = _settings(optimizer, slots, scalars)
            found.metadata["optimizer_parameters"] = sum(map(len, order))
            found.metadata["optimizer_names_known"] = bool(names) and not guessed
            if guessed:
                found.metadata["optimizer_names_guessed"] = True
    if len(found.optimizers) > 1:
        found.metadata["optimizers"] = len(found.optimizers)
    return states, settings


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
        state = attributes(state)
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


def _shapes(slots: Mapping[tuple[object, str], StoredTensor]) -> dict[object, tuple[int, ...]]:
    """The shape of each parameter that has state of its own shape."""
    shapes: dict[object, tuple[int, ...]] = {}
    for (key, slot), tensor in slots.items():
        if tensor.shape and slot != "step":
            shapes.setdefault(key, tensor.shape)
    return shapes


def _names_for(
    order: list[list[object]],
    shapes: Mapping[object, tuple[int, ...]],
    entries: Sequence[Entry],
    taken: AbstractSet[str],
    found: Found,
) -> tuple[dict[object, str], bool]:
    """Names of the parameters an optimizer counts, and whether they are guessed.

    Empty where nothing shows which is which.

    By the tensors themselves or the names where those were stored, else by an order of the model's
    parameters that fits every shape; that order is a guess where the container does not keep it, and
    so are shape and position.
    """
    keys = [key for group in order for key in group]
    tensors = [key for key in keys if isinstance(key, StoredTensor) and not tensor_fault(key)]
    if tensors:
        by_blocks = {entry.blocks: entry.name for entry in reversed(entries) if entry.group == "model"}
        whole = {tensor: by_blocks.get(tensor_blocks(tensor)) for tensor in tensors}
        return {key: name for key, name in whole.items() if name is not None}, False
    if not keys or not all(isinstance(key, (int, str)) for key in keys):
        return {}, False
    parameters = trained_parameters(entries)
    if named := _by_name([str(key) for key in keys if isinstance(key, str)], len(keys), parameters):
        return named, False
    if found.ordered:
        return _by_order(order, keys, shapes, parameters, taken), False
    parameters.sort(key=as_defined)
    names = _by_order(order, keys, shapes, parameters, taken) or _by_shape(keys, shapes, parameters)
    _note_unsure(names, shapes, found)
    return names, bool(names)


def _by_name(keys: list[str], count: int, parameters: Sequence[Entry]) -> dict[object, str]:
    """Where the state is kept by name, as FSDP and distributed checkpoints do."""
    if len(keys) < count:
        return {}
    prefix = common_prefix(keys)
    names: dict[object, str] = {key: key.removeprefix(prefix) for key in keys}
    return names if set(names.values()) <= {entry.name for entry in parameters} else {}


def _by_order(
    order: list[list[object]],
    keys: list[object],
    shapes: Mapping[object, tuple[int, ...]],
    parameters: Sequence[Entry],
    taken: AbstractSet[str],
) -> dict[object, str]:
    """The first of the usual orders that fits every shape, best one that no other optimizer took."""
    fits: list[dict[object, str]] = []
    for candidate, cut in _candidate_orders(parameters):
        if len(candidate) != len(keys) or (cut and len(order) > 1 and cut not in _cuts(order)):
            continue
        pairs = list(zip(keys, candidate, strict=True))
        if all(key not in shapes or shapes[key] == entry.shape for key, entry in pairs):
            fits.append({key: entry.name for key, entry in pairs})
    return next((names for names in fits if taken.isdisjoint(names.values())), fits[0] if fits else {})


def _cuts(order: list[list[object]]) -> set[int]:
    return set(accumulate(map(len, order)))


def _candidate_orders(everything: Sequence[Entry]) -> Iterator[tuple[list[Entry], int]]:
    """The orders in which scripts hand a model's parameters to an optimizer, and where a group ends.

    As they come; matrices before vectors or after (weight decay for matrices only); biases and
    normalisation apart (Hugging Face). First of the whole model, then of each of its parts.
    """
    roots = dict.fromkeys(entry.root for entry in everything)
    for parameters in (everything, *([e for e in everything if e.root == root] for root in roots)):
        yield list(parameters), 0
        for late in (
            [len(e.shape) <= 1 for e in parameters],
            [len(e.shape) > 1 for e in parameters],
            [bool(_UNDECAYED.search(e.name)) for e in parameters],
        ):
            first = [e for e, behind in zip(parameters, late, strict=True) if not behind]
            last = [e for e, behind in zip(parameters, late, strict=True) if behind]
            yield first + last, len(first)


def _by_shape(
    keys: list[object], shapes: Mapping[object, tuple[int, ...]], parameters: Sequence[Entry]
) -> dict[object, str]:
    """The n-th state of a shape is the n-th parameter's of it, where there are as many of each."""
    waiting: dict[tuple[int, ...], list[str]] = {}
    for entry in parameters:
        waiting.setdefault(entry.shape, []).append(entry.name)
    asked: dict[tuple[int, ...], list[object]] = {}
    for key in keys:
        if key not in shapes:
            return {}
        asked.setdefault(shapes[key], []).append(key)
    if any(len(waiting.get(shape, ())) != len(group) for shape, group in asked.items()):
        return {}
    return {
        key: name for shape, group in asked.items() for key, name in zip(group, waiting[shape], strict=True)
    }


def _note_unsure(names: Mapping[object, str], shapes: Mapping[object, tuple[int, ...]], found: Found) -> None:
    """Of one shape, names that differ in the block's number alone come in order; others may be swapped."""
    kinds: dict[tuple[int, ...], Counter[str]] = {}
    for key, name in names.items():
        if key in shapes:
            kinds.setdefault(shapes[key], Counter())[re.sub(r"\d+", "#", name)] += 1
    unsure = sum(sum(kind.values()) for kind in kinds.values() if len(kind) > 1)
    if unsure:
        message = (
            f"optimizer state of {unsure} parameters was given its names by shape and position: "
            "within a block, those of equal shape may be swapped"
        )
        found.problems.append(Problem(found.path, "unsure", message))


# what Transformers' models usually define before what else, for containers that sort by name
_DEFINED = (
    "shared", "wte", "embed_tokens", "embed_in", "word_embeddings", "cls_token", "wpe", "position_embeddings",
    "embed_positions", "token_type_embeddings", "patch_embeddings", "embeddings", "encoder", "decoder", "ln_1",
    "layers", "layer", "h", "block", "self_attn", "SelfAttention", "attention", "attn", "EncDecAttention", "self", "q_proj", "query", "q_lin",
    "q", "k_proj", "key", "k_lin", "k", "v_proj", "value", "v_lin", "v", "c_attn", "o_proj", "out_proj", "out_lin", "o",
    "relative_attention_bias", "self_attn_layer_norm", "sa_layer_norm", "layernorm_before", "layernorm_after",
    "encoder_attn", "encoder_attn_layer_norm", "ln_2", "intermediate", "mlp", "ffn", "gate_proj", "up_proj",
    "down_proj", "fc1", "fc2", "wi", "wo", "c_fc", "c_proj", "output", "dense", "weight", "bias", "LayerNorm",
    "input_layernorm", "post_attention_layernorm", "output_layer_norm", "layer_norm", "final_layer_norm", "ln_f",
    "norm", "layernorm", "pooler", "pre_classifier", "classifier", "score", "lm_head", "embed_out",
)  # fmt: skip
_RANKS = {name: rank for rank, name in enumerate(_DEFINED)}


def as_defined(entry: Entry) -> list[tuple[int, list[tuple[int, str]]]]:
    """A key that sorts parameters about as a model's class defines them."""
    parts = entry.name.split(".")
    return [(_RANKS.get(part, -1 if part.isdecimal() else len(_RANKS) // 2), natural(part)) for part in parts]


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


_KINDS = {
    "exp_avg_sq": "adam", "exp_avg_sq_row": "adafactor", "square_avg": "rmsprop", "sum": "adagrad",
    "exp_avg": "lion", "momentum_buffer": "sgd",
}  # fmt: skip


def _kind(slots: set[str], settings: Mapping[str, Scalar]) -> str:
    for slot, kind in _KINDS.items():
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
