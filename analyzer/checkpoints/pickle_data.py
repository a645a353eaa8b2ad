"""The pure data a pickle may ask to rebuild: containers of the standard library and numpy arrays.

Each entry takes the call's arguments and returns the value, or NotImplemented to leave an inert
Record. Nothing here calls anything the file names.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from analyzer.checkpoints.pickle_machine import Build, Finish, Record, Reference, checked_key

_DTYPE = re.compile(r"[<>|=]?(?:[biufc](?:1|2|4|8|16)|[SU]\d{1,4})")
_CODECS = frozenset({"latin1", "latin-1", "iso-8859-1", "ascii", "utf-8", "utf8"})


def _as_dict(args: tuple[object, ...]) -> object:
    if not args:
        return {}
    if isinstance(args[0], dict):
        return dict(args[0])
    if isinstance(args[0], (list, tuple)) and all(
        isinstance(p, (list, tuple)) and len(p) == 2 for p in args[0]
    ):
        return {checked_key(pair[0]): pair[1] for pair in args[0]}
    return NotImplemented


def _as_defaultdict(args: tuple[object, ...]) -> object:
    return _as_dict(args[1:])


def _sequence(make: Callable[[Any], object]) -> Build:
    def build(args: tuple[object, ...]) -> object:
        if not args:
            return make(())
        return make(args[0]) if isinstance(args[0], (list, tuple, set, frozenset)) else NotImplemented

    return build


def _hashed(make: Callable[[Any], object]) -> Build:
    def build(args: tuple[object, ...]) -> object:
        if args and not isinstance(args[0], (list, tuple, set, frozenset)):
            return NotImplemented
        return make(checked_key(item) for item in (args[0] if args else ()))  # type: ignore[attr-defined]

    return build


def _number(make: Callable[[Any], object]) -> Build:
    """int, float or bool of a plain number; of text only what is short."""

    def build(args: tuple[object, ...]) -> object:
        plain = len(args) == 1 and (
            isinstance(args[0], (int, float)) or (isinstance(args[0], str) and len(args[0]) < 400)
        )
        return make(args[0]) if plain else NotImplemented

    return build


def _complex(args: tuple[object, ...]) -> object:
    numbers = [a for a in args if isinstance(a, (int, float))]
    return complex(*numbers) if len(numbers) == len(args) <= 2 else NotImplemented


def _encode(args: tuple[object, ...]) -> object:
    """``_codecs.encode(text, codec)``: how protocols 0 to 2 write bytes."""
    codec = args[1] if len(args) > 1 else "utf-8"
    if isinstance(args[0], str) and isinstance(codec, str) and codec.lower() in _CODECS:
        return args[0].encode(codec)
    return NotImplemented


def _bytes(args: tuple[object, ...]) -> object:
    """bytes and bytearray: of bytes, of text and a codec, of small integers; never of a length."""
    if not args:
        return b""
    if isinstance(args[0], bytes):
        return args[0]
    if isinstance(args[0], (list, tuple)):
        return bytes(args[0])
    return _encode(args) if isinstance(args[0], str) else NotImplemented


def _new_instance(args: tuple[object, ...]) -> object:
    """``copyreg._reconstructor(cls, base, state)`` and ``copyreg.__newobj__(cls, …)``."""
    return Record(args[0], args[1:]) if args else NotImplemented


def _moment(make: Callable[..., Any]) -> Build:
    """A date or time as ISO text, from the packed bytes or the numbers pickled."""

    def build(args: tuple[object, ...]) -> object:
        raw = args[0].encode("latin-1") if args and isinstance(args[0], str) else (args[0] if args else b"")
        if isinstance(raw, bytes) and len(raw) in (4, 6, 10):
            return str(make(raw).isoformat())
        if len(args) <= 7 and all(isinstance(a, int) for a in args):
            return str(make(*args).isoformat())
        return NotImplemented

    return build


def _timedelta(args: tuple[object, ...]) -> object:
    """Seconds."""
    if len(args) <= 3 and all(isinstance(a, (int, float)) for a in args):
        return datetime.timedelta(*args).total_seconds()  # type: ignore[arg-type]
    return NotImplemented


def _path(args: tuple[object, ...]) -> object:
    parts = [part for part in args if isinstance(part, str)]
    return "/".join(parts).replace("//", "/", 1) if len(parts) == len(args) else NotImplemented


# --- numpy ---------------------------------------------------------------------------------------


def _dtype(record: object) -> np.dtype[Any] | None:
    """The dtype a Record of ``numpy.dtype`` describes, if it is plain numbers or text."""
    if isinstance(record, np.dtype):
        return record
    if isinstance(record, Record) and record.reference == Reference("numpy", "dtype"):
        return _dtype_named(record.args, "")
    return None


def _dtype_named(args: tuple[object, ...], order: str) -> np.dtype[Any] | None:
    text = args[0] if args else None
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        return None
    try:
        dtype = np.dtype(text)
    except TypeError:
        return None
    return dtype.newbyteorder(order) if order in ("<", ">") else dtype  # type: ignore[arg-type]


def _finish_dtype(args: tuple[object, ...], state: object) -> object:
    """State: (version, byte order, subdtype, names, fields, item size, alignment, flags)."""
    if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
        return NotImplemented
    dtype = _dtype_named(args, str(state[1]))
    return NotImplemented if dtype is None else dtype


def _array(raw: object, dtype: object, shape: object, fortran: bool) -> object:
    plain = _dtype(dtype)
    if isinstance(raw, str):
        raw = _python2_bytes(raw)
    if plain is None or not isinstance(raw, bytes) or not isinstance(shape, tuple):
        return NotImplemented
    if not all(isinstance(n, int) and n >= 0 for n in shape) or len(shape) > 32 or plain.itemsize == 0:
        return NotImplemented
    flat = np.frombuffer(raw, dtype=plain)
    return flat.reshape(shape, order="F" if fortran else "C")


def _python2_bytes(text: str) -> bytes:
    """Bytes of a Python 2 ``str`` that happened to be UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def _finish_array(args: tuple[object, ...], state: object) -> object:
    """State: (version, shape, dtype, is Fortran order, raw data)."""
    if not isinstance(state, tuple) or len(state) != 5:
        return NotImplemented
    return _array(state[4], state[2], state[1], bool(state[3]))


def _frombuffer(args: tuple[object, ...]) -> object:
    """``numpy._core.numeric._frombuffer(buffer, dtype, shape, order)``: protocol 5."""
    return _array(args[0], args[1], args[2], args[3] == "F") if len(args) == 4 else NotImplemented


def _scalar(args: tuple[object, ...]) -> object:
    """A numpy scalar as a Python number or text."""
    dtype = _dtype(args[0]) if len(args) == 2 else None
    raw = _python2_bytes(args[1]) if dtype is not None and isinstance(args[1], str) else args[-1]
    if dtype is None or not isinstance(raw, bytes) or len(raw) != dtype.itemsize:
        return NotImplemented
    return np.frombuffer(raw, dtype=dtype)[0].item()


_CORES = ("numpy.core", "numpy._core")

BUILDS: dict[Reference, Build] = {
    Reference("collections", "OrderedDict"): _as_dict,
    Reference("collections", "Counter"): _as_dict,
    Reference("collections", "defaultdict"): _as_defaultdict,
    Reference("collections", "deque"): _sequence(list),
    Reference("builtins", "dict"): _as_dict,
    Reference("builtins", "list"): _sequence(list),
    Reference("builtins", "tuple"): _sequence(tuple),
    Reference("builtins", "set"): _hashed(set),
    Reference("builtins", "frozenset"): _hashed(frozenset),
    Reference("builtins", "int"): _number(int),
    Reference("builtins", "long"): _number(int),
    Reference("builtins", "float"): _number(float),
    Reference("builtins", "bool"): _number(bool),
    Reference("builtins", "complex"): _complex,
    Reference("builtins", "bytes"): _bytes,
    Reference("builtins", "bytearray"): _bytes,
    Reference("_codecs", "encode"): _encode,
    Reference("copyreg", "_reconstructor"): _new_instance,
    Reference("copyreg", "__newobj__"): _new_instance,
    Reference("datetime", "datetime"): _moment(datetime.datetime),
    Reference("datetime", "date"): _moment(datetime.date),
    Reference("datetime", "timedelta"): _timedelta,
    **{
        Reference("pathlib", f"{kind}Path"): _path
        for kind in ("Posix", "Windows", "PurePosix", "PureWindows")
    },
    **{Reference("pathlib._local", f"{kind}Path"): _path for kind in ("Posix", "Windows")},
    **{Reference(f"{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{Reference(f"{core}.numeric", "_frombuffer"): _frombuffer for core in _CORES},
}

# objects that are complete only once their state is set
FINISHES: dict[Reference, Finish] = {
    Reference("numpy", "dtype"): _finish_dtype,
    **{Reference(f"{core}.multiarray", "_reconstruct"): _finish_array for core in _CORES},
}
