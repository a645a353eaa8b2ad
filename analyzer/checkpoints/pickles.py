"""Pickles read without importing or calling anything of the file's choosing."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from analyzer.checkpoints.pickle_harm import harmful, warning
from analyzer.checkpoints.pickle_machine import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    Build,
    Machine,
    Persistent,
    Record,
    Reference,
    Stop,
    Use,
)
from analyzer.checkpoints.pickle_opcodes import HANDLERS
from analyzer.errors import IngestError

MAX_BYTES = 1 << 29  # of one pickle held in memory
MAX_OPCODES = 10_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """``value``, what the pickle would have imported and called, and the bytes it took."""

    value: object
    references: tuple[Use, ...]
    consumed: int


def load(
    data: bytes,
    *,
    persistent: Persistent | None = None,
    builds: Mapping[Reference, Build] | None = None,
    path: str = "",
    start: int = 0,
) -> Loaded:
    """Interpret the pickle at ``start`` of ``data``.

    ``persistent`` gets each persistent id and returns what stands for it (default: a Record).
    ``builds`` adds reconstructions of pure data to the built-in ones.
    Raises IngestError of kind damaged, truncated, unsafe or too-large, with the byte offset.
    """
    from analyzer.checkpoints.pickle_data import BUILDS, FINISHES

    machine = Machine(data, {**BUILDS, **(builds or {})}, FINISHES, persistent, start)
    try:
        _run(machine)
        _check_depth(machine.result)
    except Stop as stop:
        raise IngestError(path, f"pickle: {stop.message}", stop.kind, machine.position) from None
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError, struct.error) as error:
        message = f"pickle: invalid at byte {machine.position} ({error})"
        raise IngestError(path, message, "damaged", machine.position) from None
    uses = tuple(Use(reference, code, at) for (reference, code), at in machine.uses.items())
    return Loaded(machine.result, uses, machine.position - start)


def read_pickle(data: bytes | BinaryIO, path: str) -> object:
    """The value of a pickle as plain containers, numbers, strings, numpy arrays and Records.

    Raises IngestError of kind unsafe when a normal load would have run something dangerous.
    """
    content = data if isinstance(data, bytes) else data.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise IngestError(path, f"pickle larger than {MAX_BYTES} bytes", "too-large")
    loaded = load(content, path=path)
    harms = harmful(loaded.references)
    if harms:
        raise IngestError(path, warning(harms), "unsafe", harms[0].use.offset)
    return loaded.value


def _run(machine: Machine) -> None:
    data, handlers, length = machine.data, HANDLERS, len(machine.data)
    for _ in range(MAX_OPCODES):
        if machine.position >= length:
            raise Stop("ends before its STOP opcode", "truncated")
        code = data[machine.position]
        handler = handlers[code]
        if handler is None:
            raise Stop(f"unknown opcode 0x{code:02x} at byte {machine.position}")
        machine.at = machine.position
        machine.position += 1
        handler(machine)
        if machine.done:
            return
        if machine.containers > MAX_CONTAINERS:
            raise Stop(f"more than {MAX_CONTAINERS} containers", "too-large")
    raise Stop(f"more than {MAX_OPCODES} opcodes", "too-large")


def _check_depth(value: object) -> None:
    """Refuse results so deeply nested that walking, hashing or printing them would overflow."""
    seen: set[int] = set()
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = _unseen_children(layer, seen)
        if not layer:
            return
    raise Stop(f"containers nested deeper than {MAX_DEPTH}", "unsafe")


def _unseen_children(values: list[object], seen: set[int]) -> list[object]:
    below: list[object] = []
    for value in values:
        for child in children(value):
            if isinstance(child, (list, tuple, dict, set, frozenset, Record)) and id(child) not in seen:
                seen.add(id(child))
                below.append(child)
    return below


def children(value: object) -> Iterable[object]:
    """What a container of the interpreter's making holds; nothing for anything else."""
    if isinstance(value, dict):
        return (part for item in value.items() for part in item)
    if isinstance(value, Record):
        return (*value.args, value.state, *value.items, value.reference)
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    return ()
