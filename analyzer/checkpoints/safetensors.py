"""Safetensors: eight bytes of header length, a JSON header, then the tensors' bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from analyzer.checkpoints.entries import Entry, Found, natural
from analyzer.checkpoints.regions import DTYPES, Region, StoredBlocks, element_count, row_major
from analyzer.checkpoints.state import assemble
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem

NAME = "safetensors"
SUMMARY = "Safetensors (.safetensors)"
ORDER = 10
MAX_HEADER = 100_000_000  # the format's own limit
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def claims(path: Path, head: bytes) -> bool:
    return path.suffix.lower() == ".safetensors" or (head[8:10] == b'{"' and b'"data_offsets"' in head)


def open(path: Path) -> Checkpoint:
    """Index of the file; no tensor is read. Raises IngestError."""
    return assemble(find(path), NAME)


def find(path: Path) -> Found:
    """The tensors, in natural order of their names: the file keeps no other."""
    header, start, size = _header(path)
    metadata = header.pop("__metadata__", None)
    found = Found(str(path), ordered=False)
    taken: list[tuple[int, int, str]] = []
    for name, description in sorted(header.items(), key=lambda item: natural(item[0])):
        try:
            blocks = _blocks(path, description, start, size)
        except (ValueError, EOFError) as error:
            kind = "truncated" if isinstance(error, EOFError) else "damaged"
            found.fault(kind, f"tensor {name[:80]!r}: {error}")
            continue
        taken.append((blocks.offset, blocks.offset + _nbytes(blocks), name))
        found.entries.append(Entry(name, blocks.dtype, blocks.shape, blocks, "model"))
    _check_cover(found, taken, start, size)
    if not found.entries and found.problems:
        raise IngestError(
            str(path), found.problems[0].message, found.problems[0].kind, found.problems[0].offset
        )
    if isinstance(metadata, dict):
        found.metadata.update({str(k)[:200]: str(v)[:500] for k, v in list(metadata.items())[:200]})
    return found


def _header(path: Path) -> tuple[dict[str, object], int, int]:
    """The JSON header, where the data starts, and the file's size."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8:
            raise IngestError(str(path), "shorter than a safetensors header", "truncated", size)
        if length > MAX_HEADER:
            raise IngestError(str(path), f"claims a header of {length} bytes: not safetensors", "damaged", 0)
        if 8 + length > size:
            message = f"header of {length} bytes in a file of {size}: cut off"
            raise IngestError(str(path), message, "truncated", size)
        raw = file.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise IngestError(str(path), f"header is not JSON ({str(error)[:80]})", "damaged", 8) from None
    if not isinstance(header, dict):
        raise IngestError(str(path), "header is not a JSON object", "damaged", 8)
    return header, 8 + length, size


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of the header; a name given twice would hide one of two tensors."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name occurs twice")
    return made


def _blocks(path: Path, description: object, start: int, size: int) -> StoredBlocks:
    """Raises ValueError when the description does not hold, EOFError when the file is too short."""
    if not isinstance(description, Mapping):
        raise ValueError("no description")
    dtype = _DTYPES.get(str(description.get("dtype")))
    if dtype is None:
        raise ValueError(f"element type {str(description.get('dtype'))[:20]} is not supported")
    shape = _integers(description.get("shape"), "shape")
    offsets = _integers(description.get("data_offsets"), "data_offsets")
    if len(offsets) != 2 or not offsets[0] <= offsets[1]:
        raise ValueError("data_offsets are no begin and end")
    needed = element_count(shape) * DTYPES[dtype].size
    if needed != offsets[1] - offsets[0]:
        raise ValueError(f"shape needs {needed} bytes, data_offsets give {offsets[1] - offsets[0]}")
    if start + offsets[1] > size:
        raise EOFError(f"ends {start + offsets[1] - size} bytes behind the end of the file")
    region = Region(str(path), start, size - start, size)
    return StoredBlocks(region, dtype, shape, row_major(shape), offsets[0])


def _integers(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 64:
        raise ValueError(f"{what} is no short list")
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in value):
        raise ValueError(f"{what} has a negative or impossible number")
    return tuple(value)


def _nbytes(blocks: StoredBlocks) -> int:
    return element_count(blocks.shape) * DTYPES[blocks.dtype].size


def _check_cover(found: Found, taken: list[tuple[int, int, str]], start: int, size: int) -> None:
    """Tensors may not share bytes, and no byte may be unused: the format says so."""
    end, overlaps = 0, 0
    for begin, stop, name in sorted(taken):
        if begin < end and begin < stop:
            overlaps += 1
            if overlaps <= 20:
                message = f"tensor {name[:80]!r} overlaps the one before it"
                found.problems.append(Problem(found.path, "damaged", message, start + begin))
        end = max(end, stop)
    if start + end < size and taken and not found.faults:
        message = f"{size - start - end} bytes behind the last tensor belong to none"
        found.problems.append(Problem(found.path, "damaged", message, start + end))
    if found.faults and taken:
        message = f"{len(taken)} of {len(taken) + found.faults} tensors are whole and were read; data ends at byte {size}"
        kind = found.problems[0].kind
        found.problems.insert(0, Problem(found.path, kind, message, size))
