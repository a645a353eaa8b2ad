"""What Keras calls things in its files: layers, variables, and the slots of its optimizers.

Weights of Keras 3 number their variables (``layers/dense_1/vars/0``); what they are follows from the
layer's class, which names the group. Older files keep names, such as ``dense/kernel:0``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from analyzer.checkpoints.entries import Entry, Found, is_buffer
from analyzer.model import Problem, Scalar

_VARIABLES = (
    (re.compile(r"(^|/)(dense|conv|separable|depthwise)[^/]*$"), ("kernel", "bias")),
    (re.compile(r"(^|/)embedding[^/]*$"), ("embeddings",)),
    (re.compile(r"(^|/)batch_normalization[^/]*$"), ("gamma", "beta", "moving_mean", "moving_variance")),
    (re.compile(r"(^|/)layer_normalization[^/]*$"), ("gamma", "beta")),
    (re.compile(r"(^|/)(lstm|gru|simple_rnn)_cell[^/]*$|(^|/)cell$"), ("kernel", "recurrent_kernel", "bias")),
    (re.compile(r"(^|/)(query|key|value|output)_dense$"), ("kernel", "bias")),
)
# slots of each optimizer in the order it makes them, under the names other frameworks use
_SLOTS: dict[str, tuple[str, ...]] = {
    "adam": ("exp_avg", "exp_avg_sq"), "adam_w": ("exp_avg", "exp_avg_sq"), "nadam": ("exp_avg", "exp_avg_sq"),
    "adamax": ("exp_avg", "exp_inf"), "sgd": ("momentum_buffer",), "rm_sprop": ("square_avg",),
    "rmsprop": ("square_avg",), "adagrad": ("sum",), "lion": ("exp_avg",),
}  # fmt: skip
_SPOKEN = {"momentum": 0, "m": 0, "velocity": 1, "v": 1, "rms": 0, "accumulator": 0}
_KINDS = {"adam_w": "adam", "nadam": "adam", "rm_sprop": "rmsprop"}
_SETTINGS = {"learning_rate": "lr", "beta_1": "beta1", "beta_2": "beta2", "epsilon": "eps", "momentum": "momentum",
             "weight_decay": "weight_decay"}  # fmt: skip


def shown(name: str, layers: Mapping[str, str]) -> str:
    """A dataset's name for the user: Keras's wrappers gone, layers and variables by their names.

    ``layers`` maps a group that holds ``vars`` to the name its layer was given.
    """
    place, _, number = name.rpartition("/")
    if place.endswith("/vars") and number.isdecimal():
        group = place.removesuffix("/vars")
        variables: Sequence[str] = next((names for pattern, names in _VARIABLES if pattern.search(group)), ())
        variable = variables[int(number)] if int(number) < len(variables) else number
        return f"{layers.get(group) or group.removeprefix('layers/')}/{variable}"
    parts = name.removeprefix("model_weights/").removesuffix(":0").split("/")
    again = max(index for index, part in enumerate(parts[:-1] or parts) if part == parts[0])
    return "/".join(parts[again:])  # the layer's group, the model's name, and the layer again


def layer_names(config: object) -> list[str]:
    """The layers' names in the order a model's configuration has them; at most ten thousand."""
    names: list[str] = []
    stack: list[object] = [config]
    while stack and len(names) < 10_000:
        node = stack.pop()
        if isinstance(node, Mapping):
            own = node.get("config")
            if isinstance(own, Mapping) and isinstance(own.get("name"), str) and "class_name" in node:
                names.append(own["name"])
            stack.extend(value for value in reversed(list(node.values())) if isinstance(value, (dict, list)))
        elif isinstance(node, list):
            stack.extend(item for item in reversed(node) if isinstance(item, (dict, list)))
    return list(dict.fromkeys(names))


def settings(config: object) -> dict[str, Scalar]:
    """The optimizer's settings from the configuration of a compiled model."""
    node = config.get("optimizer") if isinstance(config, Mapping) else None
    if isinstance(node, Mapping) and isinstance(node.get("config"), Mapping):
        node = node["config"]
    if not isinstance(node, Mapping):
        node = config.get("optimizer_config", {}).get("config", {}) if isinstance(config, Mapping) else {}
    found: dict[str, Scalar] = {}
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if key in _SETTINGS and isinstance(value, (int, float)):
            found[_SETTINGS[key]] = value
    return found


def name_states(found: Found, states: Sequence[Entry], optimizer: str, ordered: bool) -> None:
    """Adds the optimizer's tensors under their parameters' names and slots, where these can be told.

    ``optimizer`` is its name in the file; ``ordered``: the model's entries come as it defines them.
    """
    slots = _SLOTS.get(optimizer, ())
    trained = [
        entry for entry in found.entries if entry.group == "model" and not is_buffer(entry.name, entry.dtype)
    ]
    named = dict(_spoken(states, slots, trained)) or dict(_numbered(states, slots, trained, ordered, found))
    for state in states:
        place = named.get(state.path)
        if place:
            found.entries.append(state.renamed(place[0], "optimizer", place[1]))
        elif state.shape or not named:
            found.entries.append(state.renamed(state.name, "optimizer"))
    if states:
        found.settings["kind"] = _KINDS.get(optimizer, optimizer)
        known = {entry.name for entry in found.entries if entry.slot}
        found.metadata["optimizer_names_known"] = bool(known)


def _spoken(
    states: Sequence[Entry], slots: Sequence[str], trained: Sequence[Entry]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """``adam/sequential_dense_kernel_momentum`` and ``Adam/dense/kernel/m:0``: parameter, then slot."""
    flat = {re.sub(r"\W", "_", name): entry.name for entry in trained for name in _names(entry)}
    for state in states:
        joined = re.sub(r"\W", "_", state.path.removesuffix(":0").partition("/")[2])
        below = joined.partition("_")[2] if "/" in state.path else joined
        stem, _, word = joined.rpartition("_")
        index = _SPOKEN.get(word)
        if index is None:
            continue
        slot = slots[min(index, len(slots) - 1)] if slots else word
        name = next((flat[s] for s in _suffixes(stem) if s in flat), None)
        if name is not None and below:
            yield state.path, (name, slot)


def _names(entry: Entry) -> Iterator[str]:
    """The name shown, and the path in the file without the layer's own group."""
    yield entry.name
    path = entry.path.removeprefix("model_weights/").removesuffix(":0")
    yield path
    yield path.partition("/")[2]


def _suffixes(stem: str) -> Iterator[str]:
    """What is left of a flattened path when its first words are taken away one by one."""
    while stem:
        yield stem
        stem = stem.partition("_")[2]


def _numbered(
    states: Sequence[Entry], slots: Sequence[str], trained: Sequence[Entry], ordered: bool, found: Found
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Keras 3: iteration and learning rate, then each parameter's slots in turn."""
    kept = [state for state in states if state.shape or state.path.rpartition("/")[2] not in ("0", "1")]
    if not slots or len(kept) != len(slots) * len(trained) or not trained:
        return
    turns = [kept[at : at + len(slots)] for at in range(0, len(kept), len(slots))]
    waiting: dict[str, list[Entry]] = {}
    for entry in trained:
        waiting.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    unsure = False
    while turns:
        fits = [layer for layer in waiting.values() if _is_state_of(turns, layer)]
        if not fits:
            return
        unsure = unsure or (not ordered and len(fits) > 1)
        layer = fits[0]
        for entry, turn in zip(layer, turns, strict=False):
            for slot, state in zip(slots, turn, strict=True):
                yield state.path, (entry.name, slot)
        del turns[: len(layer)], waiting[layer[0].path.rpartition("/")[0]]
    if unsure:
        message = (
            "optimizer state was given its names by shape and position: layers of one shape may be swapped"
        )
        found.problems.append(Problem(found.path, "unsure", message))


def _is_state_of(turns: Sequence[Sequence[Entry]], layer: Sequence[Entry]) -> bool:
    """Whether the next turns have the shapes of a layer's parameters."""
    shapes = [entry.shape for entry in layer]
    return len(turns) >= len(layer) and all(
        state.shape == shape for turn, shape in zip(turns, shapes, strict=False) for state in turn
    )
