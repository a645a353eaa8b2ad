"""What each opcode of a pickle does to the machine; importing and calling are left out.

The opcodes are those of protocols 0 to 5 as documented in the standard library's ``pickletools``.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable

from analyzer.checkpoints.pickle_machine import (
    MAX_LONG_BYTES,
    MAX_MARKS,
    MAX_TEXT,
    Machine,
    Record,
    Reference,
    Stop,
    call,
    checked_key,
    note,
    pop_to_mark,
    take,
    take_int,
    take_line,
)

Handler = Callable[[Machine], None]
HANDLERS: list[Handler | None] = [None] * 256


def _opcode(code: bytes) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS[code[0]] = handler
        return handler

    return register


# --- opcodes: constants ------------------------------------------------------------------------


def _push_constant(code: bytes, value: object) -> None:
    def push(machine: Machine) -> None:
        machine.stack.append(value)

    HANDLERS[code[0]] = push


for _code, _value in ((b"N", None), (b"\x88", True), (b"\x89", False)):
    _push_constant(_code, _value)


@_opcode(b"I")
def _int(machine: Machine) -> None:
    line = take_line(machine, MAX_LONG_BYTES)
    machine.stack.append(line == b"01" if line in (b"00", b"01") else int(line))


@_opcode(b"L")
def _long(machine: Machine) -> None:
    machine.stack.append(int(take_line(machine, MAX_LONG_BYTES).rstrip(b"L")))


@_opcode(b"J")
def _binint(machine: Machine) -> None:
    machine.stack.append(struct.unpack("<i", take(machine, 4))[0])


@_opcode(b"K")
def _binint1(machine: Machine) -> None:
    machine.stack.append(take_int(machine, 1))


@_opcode(b"M")
def _binint2(machine: Machine) -> None:
    machine.stack.append(take_int(machine, 2))


@_opcode(b"\x8a")
def _long1(machine: Machine) -> None:
    _push_long(machine, take_int(machine, 1))


@_opcode(b"\x8b")
def _long4(machine: Machine) -> None:
    _push_long(machine, take_int(machine, 4))


def _push_long(machine: Machine, size: int) -> None:
    if size > MAX_LONG_BYTES:
        raise Stop(f"integer of {size} bytes", "too-large")
    machine.stack.append(int.from_bytes(take(machine, size), "little", signed=True))


@_opcode(b"F")
def _float(machine: Machine) -> None:
    machine.stack.append(float(take_line(machine)))


@_opcode(b"G")
def _binfloat(machine: Machine) -> None:
    machine.stack.append(struct.unpack(">d", take(machine, 8))[0])


# --- opcodes: strings ----------------------------------------------------------------------------


def _python2_string(raw: bytes) -> str | bytes:
    """A Python 2 ``str``: text where it is UTF-8, otherwise its bytes."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


@_opcode(b"S")
def _string(machine: Machine) -> None:
    line = take_line(machine, MAX_TEXT).strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise Stop("STRING argument without quotes")
    machine.stack.append(_python2_string(codecs.escape_decode(line[1:-1])[0]))


@_opcode(b"V")
def _unicode(machine: Machine) -> None:
    machine.stack.append(take_line(machine, MAX_TEXT).decode("raw-unicode-escape"))


def _sized(code: bytes, width: int, decode: Callable[[bytes], object]) -> None:
    """A string whose length comes first, in ``width`` bytes."""

    def push(machine: Machine) -> None:
        machine.stack.append(decode(take(machine, take_int(machine, width))))

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
    items = pop_to_mark(machine)
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
    items = pop_to_mark(machine)
    _push_container(machine, items)


@_opcode(b"d")
def _dict(machine: Machine) -> None:
    items = pop_to_mark(machine)
    target: dict[object, object] = {}
    _set_pairs(target, items)
    _push_container(machine, target)


@_opcode(b"\x91")
def _frozenset(machine: Machine) -> None:
    items = pop_to_mark(machine)
    _push_container(machine, frozenset(checked_key(item) for item in items))


@_opcode(b"a")
def _append(machine: Machine) -> None:
    value = machine.stack.pop()
    _extend(machine.stack[-1], [value])


@_opcode(b"e")
def _appends(machine: Machine) -> None:
    items = pop_to_mark(machine)
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
    items = pop_to_mark(machine)
    target = machine.stack[-1]
    if isinstance(target, set):
        target.update(checked_key(item) for item in items)
    else:
        _extend(target, items)


@_opcode(b"s")
def _setitem(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set_pairs(machine.stack[-1], [key, value])


@_opcode(b"u")
def _setitems(machine: Machine) -> None:
    items = pop_to_mark(machine)
    _set_pairs(machine.stack[-1], items)


def _set_pairs(target: object, items: list[object]) -> None:
    if len(items) % 2:
        raise Stop("a key without a value")
    pairs = zip(items[::2], items[1::2], strict=True)
    if isinstance(target, dict):
        for key, value in pairs:
            target[checked_key(key)] = value
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
        pop_to_mark(machine)


@_opcode(b"1")
def _pop_mark(machine: Machine) -> None:
    pop_to_mark(machine)


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
    _put(machine, _index(take_line(machine)))


@_opcode(b"q")
def _binput(machine: Machine) -> None:
    _put(machine, take_int(machine, 1))


@_opcode(b"r")
def _long_binput(machine: Machine) -> None:
    _put(machine, take_int(machine, 4))


@_opcode(b"\x94")
def _memoize(machine: Machine) -> None:
    _put(machine, len(machine.memo))


@_opcode(b"g")
def _get_text(machine: Machine) -> None:
    _get(machine, _index(take_line(machine)))


@_opcode(b"h")
def _binget(machine: Machine) -> None:
    _get(machine, take_int(machine, 1))


@_opcode(b"j")
def _long_binget(machine: Machine) -> None:
    _get(machine, take_int(machine, 4))


def _index(line: bytes) -> int:
    if not line.isdigit() or len(line) > 18:
        raise Stop(f"bad memo index {line[:20]!r}")
    return int(line)


@_opcode(b"\x80")
def _proto(machine: Machine) -> None:
    version = take_int(machine, 1)
    if version > 5:
        raise Stop(f"protocol {version} is not known", "unsupported")


@_opcode(b"\x95")
def _frame(machine: Machine) -> None:
    """A frame only helps buffered reading; one longer than the file means a cut file."""
    size = take_int(machine, 8)
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
    note(machine, reference, opcode)
    return reference


@_opcode(b"c")
def _global(machine: Machine) -> None:
    module, name = take_line(machine).decode("utf-8"), take_line(machine).decode("utf-8")
    machine.stack.append(_reference(machine, module, name, "GLOBAL"))


@_opcode(b"\x93")
def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(_reference(machine, module, name, "STACK_GLOBAL"))


@_opcode(b"R")
def _reduce(machine: Machine) -> None:
    args, called = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(call(machine, called, args, "REDUCE"))


@_opcode(b"\x81")
def _newobj(machine: Machine) -> None:
    args, cls = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(call(machine, cls, args, "NEWOBJ"))


@_opcode(b"\x92")
def _newobj_ex(machine: Machine) -> None:
    keywords, args, cls = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    arguments = args if isinstance(args, tuple) else (args,)
    if not keywords:
        machine.stack.append(call(machine, cls, arguments, "NEWOBJ_EX"))
        return
    note(machine, cls, "NEWOBJ_EX")
    machine.containers += 1
    machine.stack.append(Record(cls, (*arguments, keywords)))


@_opcode(b"i")
def _inst(machine: Machine) -> None:
    module, name = take_line(machine).decode("utf-8"), take_line(machine).decode("utf-8")
    cls = _reference(machine, module, name, "INST")
    args = tuple(pop_to_mark(machine))
    machine.stack.append(call(machine, cls, args, "INST"))


@_opcode(b"o")
def _obj(machine: Machine) -> None:
    items = pop_to_mark(machine)
    machine.stack.append(call(machine, items[0], tuple(items[1:]), "OBJ"))


@_opcode(b"b")
def _build(machine: Machine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if not isinstance(target, Record):
        return  # state of a container we rebuilt as plain data, such as a dict subclass
    note(machine, target.reference, "BUILD")
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
    _push_persistent(machine, take_line(machine).decode("utf-8", "replace"))


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
        number = take_int(machine, width)
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
