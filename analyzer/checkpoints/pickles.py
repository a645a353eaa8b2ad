"""A pickle interpreter that imports nothing and calls nothing of the file's choosing.

A pickle is a program for a stack machine whose GLOBAL opcode imports any name and whose REDUCE
opcode calls it. Here GLOBAL yields an inert :class:`Reference` and every call yields an inert
:class:`Record`, except for a closed list of pure data (``pickle_data.py``, and what a container
adds) that is rebuilt by code of our own. The opcodes are those of protocols 0 to 5 as documented
in the standard library's ``pickletools``.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from analyzer.errors import IngestError

MAX_BYTES = 1 << 29  # of one pickle held in memory
MAX_OPCODES = 10_000_000
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


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """``value``, what the pickle would have imported and called, and the bytes it took."""

    value: object
    references: tuple[Use, ...]
    consumed: int


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
    stack: list[object] = field(default_factory=list)
    marks: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    uses: dict[tuple[Reference, str], int] = field(default_factory=dict)
    containers: int = 0
    copied: int = 0
    result: object = None
    done: bool = False


def load(
    data: bytes,
    *,
    persistent: Persistent | None = None,
    builds: Mapping[Reference, Build] | None = None,
    path: str = "",
) -> Loaded:
    """Interpret the pickle at the start of ``data``.

    ``persistent`` gets each persistent id and returns what stands for it (default: a Record).
    ``builds`` adds reconstructions of pure data to the built-in ones.
    Raises IngestError of kind damaged, truncated, unsafe or too-large, with the byte offset.
    """
    from analyzer.checkpoints.pickle_data import BUILDS, FINISHES

    machine = Machine(data, {**BUILDS, **(builds or {})}, FINISHES, persistent)
    try:
        _run(machine)
        _check_depth(machine.result)
    except Stop as stop:
        raise IngestError(path, f"pickle: {stop.message}", stop.kind, machine.position) from None
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError, struct.error) as error:
        message = f"pickle: invalid at byte {machine.position} ({error})"
        raise IngestError(path, message, "damaged", machine.position) from None
    uses = tuple(Use(reference, code, at) for (reference, code), at in machine.uses.items())
    return Loaded(machine.result, uses, machine.position)


def read_pickle(data: bytes | BinaryIO, path: str) -> object:
    """The value of a pickle as plain containers, numbers, strings, numpy arrays and Records.

    Raises IngestError of kind unsafe when a normal load would have run something dangerous.
    """
    content = data if isinstance(data, bytes) else data.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise IngestError(path, f"pickle larger than {MAX_BYTES} bytes", "too-large")
    loaded = load(content, path=path)
    harmful = dangerous(loaded.references)
    if harmful:
        raise IngestError(path, describe_dangerous(harmful), "unsafe", harmful[0].offset)
    return loaded.value


DANGEROUS_MODULES = frozenset(
    [
        "os",
        "posix",
        "nt",
        "subprocess",
        "sys",
        "runpy",
        "pty",
        "socket",
        "shutil",
        "importlib",
        "ctypes",
        "code",
        "codeop",
        "commands",
        "webbrowser",
        "multiprocessing",
        "asyncio",
        "signal",
        "threading",
        "_thread",
        "imp",
        "pip",
        "pickle",
        "_pickle",
        "dill",
        "cloudpickle",
        "marshal",
        "tempfile",
        "urllib",
        "http",
        "ftplib",
        "requests",
        "smtplib",
        "pdb",
        "bdb",
        "timeit",
        "cProfile",
        "profile",
        "trace",
        "doctest",
        "_posixsubprocess",
        "pkgutil",
        "zipimport",
        "site",
        "ensurepip",
        "venv",
    ]
)
DANGEROUS_BUILTINS = frozenset(
    ["eval", "exec", "execfile", "compile", "open", "input", "breakpoint", "__import__", "apply", "file"]
)
# calls of otherwise harmless packages that load or run code
DANGEROUS_CALLS = frozenset(
    {
        Reference("torch", "load"),
        Reference("torch.hub", "load"),
        Reference("torch.serialization", "load"),
        Reference("numpy", "load"),
        Reference("numpy.testing._private.utils", "runstring"),
        Reference("joblib", "load"),
        Reference("operator", "methodcaller"),
        Reference("types", "CodeType"),
        Reference("types", "FunctionType"),
        Reference("functools", "reduce"),
    }
)


def dangerous(uses: Iterable[Use]) -> list[Use]:
    """Those uses that a normal load would have let run commands or code, or load other files."""
    return [use for use in uses if _is_dangerous(use.reference)]


def _is_dangerous(reference: Reference) -> bool:
    if reference.module == "builtins":
        return reference.name.split(".")[0] in DANGEROUS_BUILTINS
    return reference.module.split(".")[0] in DANGEROUS_MODULES or reference in DANGEROUS_CALLS


def describe_dangerous(uses: list[Use]) -> str:
    """One line for the user: what would have run."""
    names = list(dict.fromkeys(str(use.reference)[:80] for use in uses))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"unpickling this file normally would import {', '.join(names[:3])}{more} "
        f"(byte {uses[0].offset}); nothing was run. Do not load it with pickle or torch.load"
    )


def _run(machine: Machine) -> None:
    data, handlers, length = machine.data, HANDLERS, len(machine.data)
    for _ in range(MAX_OPCODES):
        if machine.position >= length:
            raise Stop("ends before its STOP opcode", "truncated")
        code = data[machine.position]
        handler = handlers[code]
        if handler is None:
            raise Stop(f"unknown opcode 0x{code:02x} at byte {machine.position}")
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


# --- what the opcodes are made of ------------------------------------------------------------

Handler = Callable[[Machine], None]
HANDLERS: list[Handler | None] = [None] * 256


def _opcode(code: bytes) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS[code[0]] = handler
        return handler

    return register


def _take(machine: Machine, size: int) -> bytes:
    end = machine.position + size
    if end > len(machine.data):
        raise Stop(f"needs {size} bytes where {len(machine.data) - machine.position} are left", "truncated")
    chunk = machine.data[machine.position : end]
    machine.position = end
    return chunk


def _take_int(machine: Machine, size: int) -> int:
    start = machine.position
    end = start + size
    if end > len(machine.data):
        _take(machine, size)  # raises
    machine.position = end
    return int.from_bytes(machine.data[start:end], "little")


def _take_line(machine: Machine, limit: int = MAX_LINE) -> bytes:
    """The text up to the next newline."""
    end = machine.data.find(b"\n", machine.position, machine.position + limit + 1)
    if end < 0:
        if machine.position + limit < len(machine.data):
            raise Stop(f"text argument longer than {limit} bytes", "too-large")
        raise Stop("text argument without an end", "truncated")
    line = machine.data[machine.position : end]
    machine.position = end + 1
    return line


def _pop_to_mark(machine: Machine) -> list[object]:
    if not machine.marks:
        raise Stop("no mark on the stack")
    items = machine.stack
    machine.stack = machine.marks.pop()
    return items


def _key(value: object) -> object:
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
            _key(part)
        elif len(part) + len(waiting) + nodes <= MAX_KEY_NODES:
            waiting.extend(part)
        else:
            break
    raise Stop("tuple too large to be a key", "unsafe")


def _note(machine: Machine, reference: object, opcode: str) -> None:
    if isinstance(reference, Reference) and len(machine.uses) < 10_000:
        machine.uses.setdefault((reference, opcode), machine.position - 1)


def _call(machine: Machine, reference: object, args: object, opcode: str) -> object:
    """The value of a call on the list of pure data, otherwise an inert Record."""
    arguments = args if isinstance(args, tuple) else (args,)
    _note(machine, reference, opcode)
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


def checked_key(value: object) -> object:
    """``value`` if it is safe to hash. Raises Stop."""
    return _key(value)


# --- opcodes: constants ------------------------------------------------------------------------


def _push_constant(code: bytes, value: object) -> None:
    def push(machine: Machine) -> None:
        machine.stack.append(value)

    HANDLERS[code[0]] = push


for _code, _value in ((b"N", None), (b"\x88", True), (b"\x89", False)):
    _push_constant(_code, _value)


@_opcode(b"I")
def _int(machine: Machine) -> None:
    line = _take_line(machine, MAX_LONG_BYTES)
    machine.stack.append(line == b"01" if line in (b"00", b"01") else int(line))


@_opcode(b"L")
def _long(machine: Machine) -> None:
    machine.stack.append(int(_take_line(machine, MAX_LONG_BYTES).rstrip(b"L")))


@_opcode(b"J")
def _binint(machine: Machine) -> None:
    machine.stack.append(struct.unpack("<i", _take(machine, 4))[0])


@_opcode(b"K")
def _binint1(machine: Machine) -> None:
    machine.stack.append(_take_int(machine, 1))


@_opcode(b"M")
def _binint2(machine: Machine) -> None:
    machine.stack.append(_take_int(machine, 2))


@_opcode(b"\x8a")
def _long1(machine: Machine) -> None:
    _push_long(machine, _take_int(machine, 1))


@_opcode(b"\x8b")
def _long4(machine: Machine) -> None:
    _push_long(machine, _take_int(machine, 4))


def _push_long(machine: Machine, size: int) -> None:
    if size > MAX_LONG_BYTES:
        raise Stop(f"integer of {size} bytes", "too-large")
    machine.stack.append(int.from_bytes(_take(machine, size), "little", signed=True))


@_opcode(b"F")
def _float(machine: Machine) -> None:
    machine.stack.append(float(_take_line(machine)))


@_opcode(b"G")
def _binfloat(machine: Machine) -> None:
    machine.stack.append(struct.unpack(">d", _take(machine, 8))[0])


# --- opcodes: strings ----------------------------------------------------------------------------


def _python2_string(raw: bytes) -> str | bytes:
    """A Python 2 ``str``: text where it is UTF-8, otherwise its bytes."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


@_opcode(b"S")
def _string(machine: Machine) -> None:
    line = _take_line(machine, MAX_TEXT).strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise Stop("STRING argument without quotes")
    machine.stack.append(_python2_string(codecs.escape_decode(line[1:-1])[0]))


@_opcode(b"V")
def _unicode(machine: Machine) -> None:
    machine.stack.append(_take_line(machine, MAX_TEXT).decode("raw-unicode-escape"))


def _sized(code: bytes, width: int, decode: Callable[[bytes], object]) -> None:
    """A string whose length comes first, in ``width`` bytes."""

    def push(machine: Machine) -> None:
        machine.stack.append(decode(_take(machine, _take_int(machine, width))))

    HANDLERS[code[0]] = push


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


_sized(b"U", 1, _python2_string)  # SHORT_BINSTRING
_sized(b"T", 4, _python2_string)  # BINSTRING
_sized(b"\x8c", 1, _text)  # SHORT_BINUNICODE
_sized(b"X", 4, _text)  # BINUNICODE
_sized(b"\x8d", 8, _text)  # BINUNICODE8
_sized(b"C", 1, bytes)  # SHORT_BINBYTES
_sized(b"B", 4, bytes)  # BINBYTES
_sized(b"\x8e", 8, bytes)  # BINBYTES8
_sized(b"\x96", 8, bytes)  # BYTEARRAY8: never changed here, so bytes will do


# --- opcodes: containers -------------------------------------------------------------------------


@_opcode(b"(")
def _mark(machine: Machine) -> None:
    if len(machine.marks) >= MAX_MARKS:
        raise Stop(f"more than {MAX_MARKS} containers open at once", "unsafe")
    machine.marks.append(machine.stack)
    machine.stack = []


def _push_container(machine: Machine, value: object) -> None:
    machine.containers += 1
    machine.stack.append(value)


@_opcode(b")")
def _empty_tuple(machine: Machine) -> None:
    machine.stack.append(())


@_opcode(b"]")
def _empty_list(machine: Machine) -> None:
    _push_container(machine, [])


@_opcode(b"}")
def _empty_dict(machine: Machine) -> None:
    _push_container(machine, {})


@_opcode(b"\x8f")
def _empty_set(machine: Machine) -> None:
    _push_container(machine, set())


@_opcode(b"t")
def _tuple(machine: Machine) -> None:
    items = _pop_to_mark(machine)
    _push_container(machine, tuple(items))


@_opcode(b"\x85")
def _tuple1(machine: Machine) -> None:
    _push_container(machine, (machine.stack.pop(),))


@_opcode(b"\x86")
def _tuple2(machine: Machine) -> None:
    second, first = machine.stack.pop(), machine.stack.pop()
    _push_container(machine, (first, second))


@_opcode(b"\x87")
def _tuple3(machine: Machine) -> None:
    third, second, first = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    _push_container(machine, (first, second, third))


@_opcode(b"l")
def _list(machine: Machine) -> None:
    items = _pop_to_mark(machine)
    _push_container(machine, items)


@_opcode(b"d")
def _dict(machine: Machine) -> None:
    items = _pop_to_mark(machine)
    target: dict[object, object] = {}
    _set_pairs(target, items)
    _push_container(machine, target)


@_opcode(b"\x91")
def _frozenset(machine: Machine) -> None:
    items = _pop_to_mark(machine)
    _push_container(machine, frozenset(_key(item) for item in items))


@_opcode(b"a")
def _append(machine: Machine) -> None:
    value = machine.stack.pop()
    _extend(machine.stack[-1], [value])


@_opcode(b"e")
def _appends(machine: Machine) -> None:
    items = _pop_to_mark(machine)
    _extend(machine.stack[-1], items)


def _extend(target: object, items: list[object]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, Record):
        target.items.extend(items)
    else:
        raise Stop(f"append to {type(target).__name__}")


@_opcode(b"\x90")
def _additems(machine: Machine) -> None:
    items = _pop_to_mark(machine)
    target = machine.stack[-1]
    if isinstance(target, set):
        target.update(_key(item) for item in items)
    else:
        _extend(target, items)


@_opcode(b"s")
def _setitem(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set_pairs(machine.stack[-1], [key, value])


@_opcode(b"u")
def _setitems(machine: Machine) -> None:
    items = _pop_to_mark(machine)
    _set_pairs(machine.stack[-1], items)


def _set_pairs(target: object, items: list[object]) -> None:
    if len(items) % 2:
        raise Stop("a key without a value")
    pairs = zip(items[::2], items[1::2], strict=True)
    if isinstance(target, dict):
        for key, value in pairs:
            target[_key(key)] = value
    elif isinstance(target, Record):
        target.items.extend(pairs)
    else:
        raise Stop(f"item set on {type(target).__name__}")


# --- opcodes: stack, memo, framing ---------------------------------------------------------------


@_opcode(b"0")
def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        _pop_to_mark(machine)


@_opcode(b"1")
def _pop_mark(machine: Machine) -> None:
    _pop_to_mark(machine)


@_opcode(b"2")
def _dup(machine: Machine) -> None:
    machine.stack.append(machine.stack[-1])


def _put(machine: Machine, index: int) -> None:
    """The memo is a dict, so a huge index takes no more room than a small one."""
    value = machine.stack[-1]
    machine.memo[index] = value
    if type(value) is Record:
        value.memo = index


def _get(machine: Machine, index: int) -> None:
    if index not in machine.memo:
        raise Stop(f"memo entry {index} was never stored")
    machine.stack.append(machine.memo[index])


@_opcode(b"p")
def _put_text(machine: Machine) -> None:
    _put(machine, _index(_take_line(machine)))


@_opcode(b"q")
def _binput(machine: Machine) -> None:
    _put(machine, _take_int(machine, 1))


@_opcode(b"r")
def _long_binput(machine: Machine) -> None:
    _put(machine, _take_int(machine, 4))


@_opcode(b"\x94")
def _memoize(machine: Machine) -> None:
    _put(machine, len(machine.memo))


@_opcode(b"g")
def _get_text(machine: Machine) -> None:
    _get(machine, _index(_take_line(machine)))


@_opcode(b"h")
def _binget(machine: Machine) -> None:
    _get(machine, _take_int(machine, 1))


@_opcode(b"j")
def _long_binget(machine: Machine) -> None:
    _get(machine, _take_int(machine, 4))


def _index(line: bytes) -> int:
    if not line.isdigit() or len(line) > 18:
        raise Stop(f"bad memo index {line[:20]!r}")
    return int(line)


@_opcode(b"\x80")
def _proto(machine: Machine) -> None:
    version = _take_int(machine, 1)
    if version > 5:
        raise Stop(f"protocol {version} is not known", "unsupported")


@_opcode(b"\x95")
def _frame(machine: Machine) -> None:
    """A frame only helps buffered reading; one longer than the file means a cut file."""
    size = _take_int(machine, 8)
    left = len(machine.data) - machine.position
    if size > left:
        raise Stop(f"frame of {size} bytes where {left} are left", "truncated")


@_opcode(b".")
def _stop(machine: Machine) -> None:
    machine.result = machine.stack.pop()
    machine.done = True


# --- opcodes: what a normal load would import and call ---------------------------------------------

_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "cPickle": "pickle", "exceptions": "builtins"}


def _reference(machine: Machine, module: object, name: object, opcode: str) -> Reference:
    if not isinstance(module, str) or not isinstance(name, str):
        raise Stop(f"{opcode} with a name that is no text")
    reference = Reference(_RENAMED.get(module, module), name)
    _note(machine, reference, opcode)
    return reference


@_opcode(b"c")
def _global(machine: Machine) -> None:
    at = machine.position
    module, name = _take_line(machine).decode("utf-8"), _take_line(machine).decode("utf-8")
    end, machine.position = machine.position, at
    machine.stack.append(_reference(machine, module, name, "GLOBAL"))
    machine.position = end


@_opcode(b"\x93")
def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(_reference(machine, module, name, "STACK_GLOBAL"))


@_opcode(b"R")
def _reduce(machine: Machine) -> None:
    args, called = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(_call(machine, called, args, "REDUCE"))


@_opcode(b"\x81")
def _newobj(machine: Machine) -> None:
    args, cls = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(_call(machine, cls, args, "NEWOBJ"))


@_opcode(b"\x92")
def _newobj_ex(machine: Machine) -> None:
    keywords, args, cls = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    _note(machine, cls, "NEWOBJ_EX")
    machine.containers += 1
    machine.stack.append(Record(cls, (args, keywords)))


@_opcode(b"i")
def _inst(machine: Machine) -> None:
    module, name = _take_line(machine).decode("utf-8"), _take_line(machine).decode("utf-8")
    cls = _reference(machine, module, name, "INST")
    args = tuple(_pop_to_mark(machine))
    machine.stack.append(_call(machine, cls, args, "INST"))


@_opcode(b"o")
def _obj(machine: Machine) -> None:
    items = _pop_to_mark(machine)
    machine.stack.append(_call(machine, items[0], tuple(items[1:]), "OBJ"))


@_opcode(b"b")
def _build(machine: Machine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if not isinstance(target, Record):
        return  # state of a container we rebuilt as plain data, such as a dict subclass
    _note(machine, target.reference, "BUILD")
    finish = machine.finishes.get(target.reference) if isinstance(target.reference, Reference) else None
    value = finish(target.args, state) if finish else NotImplemented
    if value is NotImplemented:
        target.state = state
        return
    machine.stack[-1] = value
    if target.memo in machine.memo and machine.memo[target.memo] is target:
        machine.memo[target.memo] = value


@_opcode(b"P")
def _persid(machine: Machine) -> None:
    _push_persistent(machine, _take_line(machine).decode("utf-8", "replace"))


@_opcode(b"Q")
def _binpersid(machine: Machine) -> None:
    _push_persistent(machine, machine.stack.pop())


def _push_persistent(machine: Machine, identity: object) -> None:
    machine.containers += 1
    if machine.persistent is None:
        machine.stack.append(Record(Reference("persistent", "id"), (identity,)))
    else:
        machine.stack.append(machine.persistent(identity))


def _extension(code: bytes, width: int) -> None:
    def push(machine: Machine) -> None:
        number = _take_int(machine, width)
        machine.stack.append(_reference(machine, "copyreg", f"extension_{number}", "EXT"))

    HANDLERS[code[0]] = push


for _code, _width in ((b"\x82", 1), (b"\x83", 2), (b"\x84", 4)):
    _extension(_code, _width)


@_opcode(b"\x97")
def _next_buffer(machine: Machine) -> None:
    raise Stop("refers to a buffer outside the file", "unsupported")


@_opcode(b"\x98")
def _readonly_buffer(machine: Machine) -> None:
    """Marks the buffer on top of the stack as read-only: ours always is."""
