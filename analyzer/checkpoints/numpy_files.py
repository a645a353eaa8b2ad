"""Weights in NumPy's own files: ``.npz`` archives and single ``.npy`` arrays. Nothing is unpickled."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np

from analyzer.checkpoints.entries import Entry, Found, natural
from analyzer.checkpoints.regions import DTYPES, Reader, Region, StoredBlocks, element_count, row_major
from analyzer.checkpoints.state import assemble
from analyzer.checkpoints.zips import member_region, read_or_recover
from analyzer.errors import IngestError
from analyzer.model import Checkpoint

NAME = "numpy"
SUMMARY = "NumPy .npz and .npy files that are named for weights, or whose arrays are"
ORDER = 40
_MAGIC = b"\x93NUMPY"
_WEIGHTS = re.compile(r"weight|param|checkpoint|ckpt|model|network|policy|state_dict|kernel", re.I)
_ARRAYS = re.compile(
    rb"(?:^|[/._])(?:weights?|kernel|bias(?:es)?|gamma|beta|embeddings?|params?|moving_mean|[wWb]\d+)(?:[/._:]\d*)*\.npy"
)
_MAX_HEADER = 1 << 16


def claims(path: Path, head: bytes) -> bool:
    """By the file's name or the first arrays' names: most such files hold data, not weights."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return head.startswith(_MAGIC) and _WEIGHTS.search(path.stem) is not None
    if suffix != ".npz" or not head.startswith(b"PK\x03\x04"):
        return False
    return _WEIGHTS.search(path.stem) is not None or _ARRAYS.search(head) is not None


def reads(path: Path, head: bytes) -> bool:
    """Any, where it is asked for."""
    return head.startswith(_MAGIC) or (path.suffix.lower() == ".npz" and head.startswith(b"PK\x03\x04"))


def open(path: Path) -> Checkpoint:
    """Index of the arrays; none is read. Raises IngestError."""
    return assemble(find(path), NAME)


def find(path: Path) -> Found:
    found = Found(str(path), ordered=False)
    if path.suffix.lower() != ".npz":
        size = path.stat().st_size
        _add(found, path.stem, Region(str(path), 0, size, size))
    else:
        members, cut = read_or_recover(path)
        if cut:
            found.problems.append(cut)
        for name in sorted((n for n in members if n.endswith(".npy")), key=natural):
            try:
                _add(found, name.removesuffix(".npy"), member_region(path, members[name]))
            except IngestError as error:
                found.fault(error.kind, f"array {name[:80]!r} not read: {error.message}", error.offset)
    if not found.entries:
        problem = found.problems[0] if found.problems else None
        message = problem.message if problem else "holds no arrays of numbers"
        raise IngestError(str(path), message, problem.kind if problem else "unsupported")
    return found


def _add(found: Found, name: str, region: Region) -> None:
    try:
        blocks = _blocks(region)
    except ValueError as error:
        found.fault(
            "unsafe" if "objects" in str(error) else "damaged", f"array {name[:80]!r} not read: {error}"
        )
        return
    found.entries.append(Entry(name[:1_000], blocks.dtype, blocks.shape, blocks, "model", path=name[:1_000]))


def _blocks(region: Region) -> StoredBlocks:
    """Raises ValueError where the header does not describe what is there; IngestError on damage."""
    with Reader(region) as reader:
        head = io.BytesIO(reader.read(0, min(region.size, _MAX_HEADER)))
    version = np.lib.format.read_magic(head)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
        version
    )
    if read is None:
        raise ValueError(f"header version {version} is not known")
    try:
        shape, fortran, dtype = read(head)
    except (SyntaxError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(f"header is damaged ({str(error)[:60]})") from None
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects")
    if dtype.name not in DTYPES:
        raise ValueError(f"elements of type {str(dtype)[:40]} are not numbers")
    if not all(isinstance(n, int) and 0 <= n < 1 << 48 for n in shape) or len(shape) > 64:
        raise ValueError("its shape is impossible")
    wanted, there = element_count(shape) * dtype.itemsize, region.size - head.tell()
    if wanted > there:
        raise ValueError(f"its header asks for {wanted} bytes where {there} are")
    strides = tuple(reversed(row_major(tuple(reversed(shape))))) if fortran else row_major(shape)
    return StoredBlocks(region, dtype.name, tuple(shape), strides, head.tell(), dtype.byteorder == ">")
