"""The state of the pickle interpreter, its limits, and the inert things it makes.

A pickle is a program for a stack machine whose GLOBAL opcode imports any name and whose REDUCE
opcode calls it. Here GLOBAL yields an inert :class:`Reference` and every call yields an inert
:class:`Record`, except for a closed list of pure data (``pickle_data.py``, and what a container
adds) that is rebuilt by code of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

MAX_CONTAINERS = 1_000_000  # lists, dicts, sets, tuples and records made
MAX_COPIED = 50_000_000  # elements copied by rebuilding containers from containers
MAX_MARKS = 5_000
MAX_DEPTH = 2_000  # of containers within containers in the result
MAX_LONG_BYTES = 1_024
MAX_LINE = 4_096  # of a text argument that is not a string: a name or a number
MAX_KEY_NODES = 1_000  # of a tuple used as a key: hashing one recurses and repeats shared parts
MAX_TEXT = 1 << 26  # of one name or string argument that ends with a newline


_SIZED = frozenset({list, tuple, dict, set, frozenset, str, bytes})


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of something a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """An object a pickle would make by calling ``reference(*args)``; nothing was called.

    ``state`` is what would go to ``__setstate__`` or ``__dict__``; ``items`` what would be
    appended (list items, or key and value pairs).
    """

    reference: object
    args: tuple[object, ...] = ()
    state: object = None
    items: list[object] = field(default_factory=list)
    memo: int = -1

    def __repr__(self) -> str:
        return f"Record({self.reference})"


@dataclass(frozen=True, slots=True)
class Use:
    """What a pickle would have imported (GLOBAL, INST …) or called (REDUCE …), and where."""

    reference: Reference
    opcode: str
    offset: int

    @property
    def called(self) -> bool:
        return self.opcode not in ("GLOBAL", "STACK_GLOBAL", "EXT")


Build = Callable[[tuple[object, ...]], object]  # arguments -> value, or NotImplemented
Finish = Callable[[tuple[object, ...], object], object]  # arguments, state -> the same
Persistent = Callable[[object], object]


class Stop(Exception):
    """The pickle cannot be read on; ``kind`` is that of a Problem."""

    def __init__(self, message: str, kind: str = "damaged"):
        super().__init__(message)
        self.message = message
        self.kind = kind


@dataclass(slots=True, eq=False)
class Machine:
    """The interpreter's state. ``stack`` holds what came after the last mark."""

    data: bytes
    builds: Mapping[Reference, Build]
    finishes: Mapping[Reference, Finish]
    persistent: Persistent | None
    position: int = 0
    at: int = 0  # where the opcode being run lies
    stack: list[object] = field(default_factory=list)
    marks: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    uses: dict[tuple[Reference, str], int] = field(default_factory=dict)
    containers: int = 0
    copied: int = 0
    result: object = None
    done: bool = False


def take(machine: Machine, size: int) -> bytes:
    end = machine.position + size
    if end > len(machine.data):
        raise Stop(f"needs {size} bytes where {len(machine.data) - machine.position} are left", "truncated")
    chunk = machine.data[machine.position : end]
    machine.position = end
    return chunk


def take_int(machine: Machine, size: int) -> int:
    start = machine.position
    end = start + size
    if end > len(machine.data):
        take(machine, size)  # raises
    machine.position = end
    return int.from_bytes(machine.data[start:end], "little")


def take_line(machine: Machine, limit: int = MAX_LINE) -> bytes:
    """The text up to the next newline."""
    end = machine.data.find(b"\n", machine.position, machine.position + limit + 1)
    if end < 0:
        if machine.position + limit < len(machine.data):
            raise Stop(f"text argument longer than {limit} bytes", "too-large")
        raise Stop("text argument without an end", "truncated")
    line = machine.data[machine.position : end]
    machine.position = end + 1
    return line


def pop_to_mark(machine: Machine) -> list[object]:
    if not machine.marks:
        raise Stop("no mark on the stack")
    items = machine.stack
    machine.stack = machine.marks.pop()
    return items


def checked_key(value: object) -> object:
    """``value`` if it may be hashed: hashing a deep tuple recurses, a huge integer collides."""
    kind = type(value)
    if kind is str or value is None or kind is bytes or kind is float or kind is bool:
        return value
    if kind is int and -(1 << 64) < value < 1 << 64:  # type: ignore[operator]
        return value
    if kind is tuple:
        return _tuple_key(value)  # type: ignore[arg-type]
    if kind in (list, dict, set, bytearray, int, frozenset):
        raise Stop(f"{kind.__name__} used as a key")
    return value  # References and Records, hashed by name or identity


def _tuple_key(value: tuple[object, ...]) -> tuple[object, ...]:
    """A tuple few enough in parts, shared ones counted each time, that hashing it is cheap."""
    waiting: list[object] = list(value)
    for nodes in range(MAX_KEY_NODES):
        if not waiting:
            return value
        part = waiting.pop()
        if type(part) is not tuple:
            checked_key(part)
        elif len(part) + len(waiting) + nodes <= MAX_KEY_NODES:
            waiting.extend(part)
        else:
            break
    raise Stop("tuple too large to be a key", "unsafe")


def note(machine: Machine, reference: object, opcode: str) -> None:
    if isinstance(reference, Reference) and len(machine.uses) < 10_000:
        machine.uses.setdefault((reference, opcode), machine.at)


def call(machine: Machine, reference: object, args: object, opcode: str) -> object:
    """The value of a call on the list of pure data, otherwise an inert Record."""
    arguments = args if isinstance(args, tuple) else (args,)
    note(machine, reference, opcode)
    machine.containers += 1
    if isinstance(reference, Reference) and reference in machine.builds:
        machine.copied += sum(_cost(argument) for argument in arguments)
        if machine.copied > MAX_COPIED:
            raise Stop("containers copied again and again", "too-large")
        value = machine.builds[reference](arguments)
        if value is not NotImplemented:
            return value
    return Record(reference, arguments)


def _cost(argument: object) -> int:
    """Elements, of eight bytes or so, that rebuilding from ``argument`` may copy."""
    kind = type(argument)
    if kind in _SIZED:
        size = len(argument)  # type: ignore[arg-type]
        return size // 8 if kind is str or kind is bytes else size
    return 0
