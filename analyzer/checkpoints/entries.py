"""Tensors found in a container, and the names they go by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from analyzer.checkpoints.pickle_machine import Use
from analyzer.checkpoints.regions import Blocks
from analyzer.model import Problem, Scalar

_BUFFER_NAMES = frozenset(
    ("running_mean", "running_var", "num_batches_tracked", "position_ids", "masked_bias", "inv_freq",
     "moving_mean", "moving_variance")
)  # fmt: skip
_REAL = ("float", "bfloat", "complex", "q")  # the last one for all kinds of quantised reals
_PREFIXES = ("module.", "_orig_mod.", "model.")
_MOST_FAULTS = 20  # problems told one by one


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
    nbytes: int = -1  # as stored, where that is not elements times width

    def renamed(self, name: str, group: str, slot: str = "") -> Entry:
        return replace(self, name=name, group=group, slot=slot)


@dataclass(slots=True, eq=False)
class Found:
    """What was found in a file, or in the files of one checkpoint.

    ``ordered``: the tensors come as the model defines them, not sorted by name.
    """

    path: str
    entries: list[Entry] = field(default_factory=list)
    optimizers: list[tuple[str, Mapping[object, object]]] = field(default_factory=list)
    metadata: dict[str, Scalar] = field(default_factory=dict)
    hyperparameters: dict[str, Scalar] = field(default_factory=dict)
    settings: dict[str, Scalar] = field(default_factory=dict)  # of the optimizer
    problems: list[Problem] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)  # what its pickles would have imported and called
    ordered: bool = True
    faults: int = 0

    def fault(self, kind: str, message: str, offset: int | None = None) -> None:
        """One more tensor or part that cannot be read; after twenty they are only counted."""
        self.faults += 1
        if self.faults <= _MOST_FAULTS:
            self.problems.append(Problem(self.path, kind, message, offset))


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 2 before layer 10: for containers that do not keep the order of depth."""
    return [(int(part[:18]), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def fold_prefixes(entries: Sequence[Entry]) -> list[Entry]:
    """Without the wrappers' prefixes that all names of a group carry."""
    folded = list(entries)
    for group in ("model", "ema"):
        prefix = common_prefix([entry.name for entry in folded if entry.group == group])
        if prefix:
            folded = [
                replace(entry, name=entry.name[len(prefix) :]) if entry.group == group else entry
                for entry in folded
            ]
    return folded


def common_prefix(names: Sequence[str]) -> str:
    """The wrappers' prefixes, ``module.`` and the like, that every name begins with."""
    prefix = ""
    while names:
        longer = next((prefix + p for p in _PREFIXES if all(n.startswith(prefix + p) for n in names)), None)
        if longer is None:
            return prefix
        prefix = longer
    return prefix


def distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Tensors of one name in one group get the full path instead."""
    counts: dict[tuple[str, str, str], int] = {}
    for entry in entries:
        key = (entry.group, entry.name, entry.slot)
        counts[key] = counts.get(key, 0) + 1
    return [
        replace(entry, name=entry.path or entry.name)
        if counts[entry.group, entry.name, entry.slot] > 1
        else entry
        for entry in entries
    ]


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
    return re.split(r"[./]", name)[-1] in _BUFFER_NAMES or not dtype.startswith(_REAL)
