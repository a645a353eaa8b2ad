"""NumPy archives of histories: Stable-Baselines3 evaluations and saved arrays of losses."""

from __future__ import annotations

import lzma
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import IngestError
from analyzer.ingest import tables
from analyzer.ingest.tables import Column, Table
from analyzer.model import Problem, Reading, Series

NAME = "npz"
SUMMARY = "NumPy .npz and .npy histories, evaluations.npz of Stable-Baselines3"
ORDER = 45

MAX_BYTES = 1 << 29  # of arrays in one file
MAX_MEMBERS = 1000

# Whatever zipfile, its decompressors and the parser of array headers raise on damaged bytes.
BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError, EOFError, OSError,
    NotImplementedError, RuntimeError, ValueError, OverflowError, SyntaxError, TypeError,
)  # fmt: skip

Array = NDArray[np.generic]


def claims(path: Path, head: bytes) -> bool:
    """By suffix, where the file's name or the first arrays' names speak of a curve."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return head.startswith(b"\x93NUMPY") and tables.curve_like(path.stem)
    if suffix != ".npz" or not head.startswith(b"PK"):
        return False
    names = re.findall(rb"([\w./ -]{1,100})\.npy", head)
    return path.stem == "evaluations" or any(tables.curve_like(n.decode("ascii")) for n in names)


def read(path: Path) -> Reading:
    """One series per array of numbers; ``IngestError`` for weights, data and damage."""
    problems: list[Problem] = []
    try:
        arrays = archive(path, problems) if path.suffix.lower() == ".npz" else single(path)
    except BROKEN as error:
        raise IngestError(str(path), f"a broken NumPy file: {error}", "damaged") from None
    series = evaluations(path, arrays) or histories(path, arrays)
    if not series:
        raise IngestError(str(path), "no arrays that look like logged curves", "unsupported")
    return Reading(series=series, problems=tuple(problems))


def single(path: Path) -> dict[str, Array]:
    with path.open("rb") as stream:
        array = load(stream, path.stat().st_size, path)
    return {} if array is None else {path.stem: array}


def archive(path: Path, problems: list[Problem]) -> dict[str, Array]:
    """The small arrays of numbers in an archive. Broken ones are reported and left out."""
    arrays: dict[str, Array] = {}
    room = MAX_BYTES
    with zipfile.ZipFile(path) as opened:
        members = [m for m in opened.infolist() if m.filename.endswith(".npy")]
        for member in members[:MAX_MEMBERS]:
            name = member.filename.removesuffix(".npy")
            try:
                with opened.open(member) as stream:
                    array = load(stream, min(member.file_size, room), path)  # type: ignore[arg-type]
            except BROKEN as error:
                problems.append(Problem(str(path), "damaged", f"array {name!r}: {error}"))
                continue
            if array is not None:
                room -= array.nbytes
                arrays[name] = array
    return arrays


def load(stream: BinaryIO, size: int, path: Path) -> Array | None:
    """An array of numbers with one axis, or few columns; None for any other.

    Nothing is unpickled, and no more is taken than the ``size`` bytes that are there: the shape in
    the header is a claim.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version}")
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(stream)
    if dtype.kind not in "biuf" or not 1 <= len(shape) <= 3 or (len(shape) > 1 and shape[0] < 1):
        return None
    width = int(np.prod(shape[1:], dtype=np.float64)) if len(shape) > 1 else 1
    if width > 1000:
        return None
    wanted = shape[0] * width * dtype.itemsize
    if wanted > size:
        raise ValueError(f"claims {wanted} bytes where {size} are left for it")
    data = stream.read(wanted)
    if len(data) < wanted:
        raise ValueError(f"{len(data)} of {wanted} bytes are there")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def evaluations(path: Path, arrays: Mapping[str, Array]) -> tuple[Series, ...]:
    """Stable-Baselines3: ``results[i, j]`` is the reward of episode j at ``timesteps[i]``."""
    steps = arrays.get("timesteps")
    if steps is None or steps.ndim != 1 or "results" not in arrays:
        return ()
    tags = {
        "results": "eval/mean_reward",
        "ep_lengths": "eval/mean_ep_length",
        "successes": "eval/success_rate",
    }
    return tuple(
        Series(tag, steps.astype(np.float64), per_evaluation(arrays[name]), source=str(path))
        for name, tag in tags.items()
        if name in arrays and arrays[name].ndim > 1 and len(arrays[name]) == len(steps)
    )


def per_evaluation(episodes: Array) -> NDArray[np.float64]:
    values: NDArray[np.float64] = episodes.astype(np.float64).reshape(len(episodes), -1).mean(axis=1)
    return values


def histories(path: Path, arrays: Mapping[str, Array]) -> tuple[Series, ...]:
    """Arrays of one axis; those of equal length share the step column among them."""
    curves = {
        name: array.reshape(-1).astype(np.float64)
        for name, array in arrays.items()
        if array.size >= 2 and array.size == len(array)
    }
    if not any(tables.curve_like(name) for name in curves):
        return ()
    found: list[Series] = []
    for length in dict.fromkeys(len(values) for values in curves.values()):
        columns = tuple(Column(name, values) for name, values in curves.items() if len(values) == length)
        found += tables.to_series(Table(length, columns), str(path))
    return tuple(found)
