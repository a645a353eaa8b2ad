"""Pickles that try to run, exhaust or crash whoever reads them. ``CANARY`` stands for a path."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

PROTO2 = b"\x80\x02"


class _Calls:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function: object, *args: object):
        self.call = (function, args)

    def __reduce__(self) -> object:
        return self.call


def runs_a_command(canary: Path, protocol: int) -> bytes:
    """os.system through REDUCE, as written by the standard pickler."""
    import os

    return pickle.dumps({"weight": _Calls(os.system, f"touch '{canary}'")}, protocol)


def evaluates_code(canary: Path) -> bytes:
    return pickle.dumps(_Calls(eval, f"open({str(canary)!r}, 'w').close()"), 2)


def runs_by_inst(canary: Path) -> bytes:
    """Protocol 0's INST imports and calls in one opcode."""
    return b"(S'touch " + str(canary).encode() + b"'\nios\nsystem\n."


def runs_by_obj(canary: Path) -> bytes:
    """OBJ calls what lies right after the mark."""
    return b"(cos\nsystem\nS'touch " + str(canary).encode() + b"'\no."


def runs_by_build(canary: Path) -> bytes:
    """BUILD with a dict sets attributes: here of a class whose __setstate__ would be os.system."""
    state = b"(S'__setstate__'\ncos\nsystem\nd"
    return b"cbuiltins\nobject\n)\x81" + state + b"bS'touch " + str(canary).encode() + b"'\nb."


def runs_through_getattr(canary: Path) -> bytes:
    """getattr(os, 'system') hides the name from a filter that looks at GLOBAL alone."""
    command = b"S'touch " + str(canary).encode() + b"'\n"
    return b"cbuiltins\ngetattr\n(cimportlib\nimport_module\n(S'os'\ntRS'system'\ntR(" + command + b"tR."


def runs_through_newobj_ex(canary: Path) -> bytes:
    return b"\x80\x04csubprocess\nPopen\n(S'touch " + str(canary).encode() + b"'\nt}S'shell'\n\x88s\x92."


def nested_lists(depth: int) -> bytes:
    return PROTO2 + b"]" * depth + b"a" * (depth - 1) + b"."


def nested_tuples_as_key(depth: int) -> bytes:
    """Hashing a tuple recurses in C: deep enough, the process dies."""
    return PROTO2 + b"})" + b"\x85" * depth + b"Ns."


def shared_tuples_as_key(doublings: int) -> bytes:
    """t = (t, t), again and again: few bytes, 2**n parts to hash."""
    return PROTO2 + b"})" + b"2\x86" * doublings + b"Ns."


def doubled_lists(doublings: int) -> bytes:
    """l = [l, l]: harmless until someone walks it without remembering where they were."""
    body = b"]"
    for _ in range(doublings):
        body += b"q\x00]h\x00ah\x00a"
    return PROTO2 + body + b"."


def recursive_list() -> bytes:
    return PROTO2 + b"]q\x00h\x00a."


def huge_memo_index() -> bytes:
    """The C pickler's memo is an array: index 2**32 - 2 would take 32 GiB of it."""
    return PROTO2 + b"]r\xfe\xff\xff\xff."


def huge_text_memo_index() -> bytes:
    return b"]p" + b"9" * 17 + b"\n."


def copies_again_and_again(copies: int) -> bytes:
    """list(list(...)) of a large list: each call would copy all of it."""
    start = PROTO2 + b"](" + b"K\x01" * 100_000 + b"eq\x000"
    return start + b"cbuiltins\nlist\nh\x00\x85R0" * copies + b"N."


def huge_long() -> bytes:
    return PROTO2 + b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01" * 64 + b"."


def huge_decimal() -> bytes:
    """Reading n digits takes n² time."""
    return b"L" + b"9" * 2_000_000 + b"L\n."


def huge_length(opcode: bytes, width: int) -> bytes:
    """A string that claims far more bytes than there are."""
    return b"\x80\x05" + opcode + (2 ** (8 * width - 1) - 1).to_bytes(width, "little") + b"abc."


def huge_frame() -> bytes:
    return b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N."


def many_marks(count: int) -> bytes:
    return PROTO2 + b"(" * count + b"N."


def many_containers(count: int) -> bytes:
    return PROTO2 + b"(" + b"}" * count + b"l."


def colliding_keys(count: int) -> bytes:
    """Multiples of 2**61 - 1 all hash to 0: filling a dict with them takes n² time."""
    prime = 2**61 - 1
    keys = b"".join(b"\x8a\x10" + (prime * i).to_bytes(16, "little") + b"N" for i in range(1, count))
    return PROTO2 + b"}(" + keys + b"u."


def bytes_of_length() -> bytes:
    """bytes(2**40) would allocate a tebibyte."""
    return PROTO2 + b"cbuiltins\nbytes\n\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85R."


def array_of_lying_shape() -> bytes:
    """A numpy array of 2**40 elements in 8 bytes."""
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8\x89\x88tR(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85" + dtype + b"\x89C\x0812345678tb"
    return b"\x80\x03" + head + state + b"."


def dtype_of_objects() -> bytes:
    """An array of object pointers taken from the file."""
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tR(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb"
    return b"\x80\x03" + head + b"(K\x01K\x01\x85" + dtype + b"\x89C\x08ABCDEFGHtb."


def unknown_opcode() -> bytes:
    return PROTO2 + b"\xff."


def underflow() -> bytes:
    return PROTO2 + b"a."


def pops_below_a_mark() -> bytes:
    return PROTO2 + b"](a."
