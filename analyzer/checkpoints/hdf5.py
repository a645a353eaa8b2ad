"""Keras weights and models: HDF5 files, and ``.keras`` archives that hold one. Needs h5py."""

from __future__ import annotations

import importlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.regions import element_count
from analyzer.checkpoints.state import Entry, assemble, flatten, natural
from analyzer.checkpoints.zips import MAX_RATIO, read_directory, read_member
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem, Scalar

NAME = "hdf5"
SUMMARY = "Keras models and weights (.h5, .weights.h5, .keras): needs `pip install h5py`"
ORDER = 18
_SUFFIXES = frozenset({".h5", ".hdf5", ".keras"})
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_DATASETS = 100_000
_MAX_ARCHIVED = 1 << 29  # bytes of the HDF5 file within a .keras archive, which is held in memory
_MAX_CONFIG = 1 << 24
_MAX_CHUNK = 1 << 28  # bytes unpacked at once when a single element of it is read


def claims(path: Path, head: bytes) -> bool:
    keras = path.suffix.lower() == ".keras" and head.startswith(b"PK\x03\x04")
    return keras or (path.suffix.lower() in _SUFFIXES and head.startswith(_SIGNATURE))


def open(path: Path) -> Checkpoint:
    """Index of the file's datasets; none is read. Raises IngestError."""
    content, settings = _archived(path) if path.suffix.lower() == ".keras" else (None, {})
    source = _Source(str(path), content)
    problems: list[Problem] = []
    with source.opened() as file:
        entries = list(_entries(source, file, problems))
        facts = _attributes(file)
    if not entries:
        reason = problems[0].message if problems else "holds no numeric datasets"
        raise IngestError(str(path), reason, problems[0].kind if problems else "unsupported")
    return assemble(str(path), NAME, entries, metadata=facts, hyperparameters=settings, problems=problems)


def _archived(path: Path) -> tuple[bytes | None, dict[str, Scalar]]:
    """The weights and the training settings of a ``.keras`` archive."""
    members = read_directory(path)
    weights = members.get("model.weights.h5")
    if weights is None:
        raise IngestError(str(path), "Keras archive without model.weights.h5", "damaged")
    settings: dict[str, Scalar] = {}
    if "config.json" in members:
        try:
            config = json.loads(read_member(path, members["config.json"], _MAX_CONFIG))
        except (ValueError, RecursionError, IngestError):
            config = None  # the weights can do without
        if isinstance(config, dict) and isinstance(config.get("compile_config"), dict):
            flatten(config["compile_config"], "", settings, most=100)
    return read_member(path, weights, _MAX_ARCHIVED), settings


@dataclass(frozen=True, slots=True)
class _Source:
    """The HDF5 file on disk, or its bytes out of an archive."""

    path: str
    content: bytes | None

    @contextmanager
    def opened(self) -> Iterator[Any]:
        h5py = _h5py(self.path)
        try:
            with h5py.File(self.path if self.content is None else io.BytesIO(self.content), "r") as file:
                yield file
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            message = f"HDF5: {str(error)[:120]}"
            raise IngestError(self.path, message, "damaged") from None


def _h5py(path: str) -> ModuleType:
    try:
        return importlib.import_module("h5py")
    except ImportError:
        raise IngestError(path, "HDF5 file: reading it needs `pip install h5py`", "unsupported") from None


def _entries(source: _Source, file: Any, problems: list[Problem]) -> Iterator[Entry]:
    """Numeric datasets in the order of the layers where the file keeps it, else natural order.

    Links to other files are never followed, and soft links, which may lead in circles, neither.
    """
    h5py = _h5py(source.path)
    stack: list[tuple[str, Any]] = [("", file)]
    seen: set[Any] = set()
    count = 0
    while stack and count < _MAX_DATASETS:
        name, node = stack.pop()
        if isinstance(node, h5py.Dataset):
            count += 1
            yield from _entry(source, name, node, problems)
            continue
        if node.id in seen:
            continue
        seen.add(node.id)
        below = []
        for key in _keys(node):
            if not isinstance(node.get(key, getlink=True), h5py.HardLink):
                message = f"link {name}/{key} leads elsewhere and was not followed"
                problems.append(Problem(source.path, "unsafe", message[:200]))
            else:
                below.append((f"{name}/{key}" if name else key, node[key]))
        stack.extend(reversed(below))


def _keys(node: Any) -> list[str]:
    """Member names; the layers' order of old Keras files is in an attribute."""
    keys = sorted(node.keys(), key=natural)
    for attribute in ("layer_names", "weight_names"):
        names = node.attrs.get(attribute)
        if names is not None and np.size(names) <= _MAX_DATASETS:
            order = [
                n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in np.ravel(names)
            ]
            place = {name.split("/")[0]: i for i, name in reversed(list(enumerate(order)))}
            return sorted(keys, key=lambda key: place.get(key, len(place)))
    return keys


def _entry(source: _Source, name: str, dataset: Any, problems: list[Problem]) -> Iterator[Entry]:
    dtype, shape = dataset.dtype, dataset.shape
    if shape is None or dtype.kind not in "biufc":
        return
    if dataset.external or getattr(dataset, "is_virtual", False):
        problems.append(Problem(source.path, "unsafe", f"dataset {name[:80]} keeps its data in another file"))
        return
    stored = dataset.id.get_storage_size()
    wanted = element_count(shape) * dtype.itemsize
    if wanted > (stored + (1 << 16)) * 1_100:
        problems.append(
            Problem(source.path, "unsafe", f"dataset {name[:80]} claims {wanted} bytes from {stored}")
        )
        return
    optimizer = name.split("/")[0] in ("optimizer", "optimizer_weights")
    group = "optimizer" if optimizer else "model"
    blocks = DatasetBlocks(source.path, source.content, name)
    yield Entry(_shown(name), dtype.newbyteorder("=").name, tuple(shape), blocks, group, path=name)


def _fault(dataset: Any) -> str:
    """Why a dataset is not read, or ""."""
    if dataset.external or getattr(dataset, "is_virtual", False):
        return "keeps its data in another file"
    stored = dataset.id.get_storage_size()
    wanted = element_count(dataset.shape) * dataset.dtype.itemsize
    if wanted > (stored + (1 << 16)) * MAX_RATIO:
        return f"claims {wanted} bytes from {stored}"
    chunk = element_count(dataset.chunks or ()) * dataset.dtype.itemsize
    return f"is packed in chunks of {chunk} bytes" if chunk > _MAX_CHUNK else ""


# Keras 3 numbers a layer's variables; what they are follows from the layer's class, which names it
_VARIABLES = (
    (re.compile(r"(^|/)(dense|conv|separable|depthwise)[^/]*/vars$"), ("kernel", "bias")),
    (re.compile(r"(^|/)embedding[^/]*/vars$"), ("embeddings",)),
    (re.compile(r"(^|/)batch_normalization[^/]*/vars$"), ("gamma", "beta", "moving_mean", "moving_variance")),
    (re.compile(r"(^|/)layer_normalization[^/]*/vars$"), ("gamma", "beta")),
)


def _shown(name: str) -> str:
    """The name without Keras's own wrappers, and with variables named where that is known."""
    shown = name.removeprefix("model_weights/").removeprefix("layers/")
    place, _, number = shown.rpartition("/")
    for pattern, variables in _VARIABLES:
        if pattern.search(place) and number.isdecimal() and int(number) < len(variables):
            return f"{place.removesuffix('/vars')}/{variables[int(number)]}"
    return shown


@dataclass(frozen=True, slots=True)
class DatasetBlocks:
    """A dataset's elements in row-major order, read row by row or a run of rows at a time."""

    path: str
    content: bytes | None
    name: str

    def __call__(self, limit: int) -> Iterator[NDArray[np.generic]]:
        with _Source(self.path, self.content).opened() as file:
            dataset = file[self.name]
            elements = max(1, limit // dataset.dtype.itemsize)
            for index in _cuts(dataset.shape, elements):
                block = np.asarray(dataset[index]).reshape(-1)
                if block.size:
                    yield block.astype(block.dtype.newbyteorder("="), copy=False)


def _cuts(shape: tuple[int, ...], elements: int) -> Iterator[tuple[int | slice, ...]]:
    """Indices of parts of at most ``elements`` elements that together cover the shape in order."""
    if element_count(shape) <= elements:
        yield ()
        return
    row = element_count(shape[1:])
    if row > elements:
        for first in range(shape[0]):
            yield from ((first, *rest) for rest in _cuts(shape[1:], elements))
        return
    rows = elements // row
    for first in range(0, shape[0], rows):
        yield (slice(first, first + rows),)


def _attributes(file: Any) -> dict[str, Scalar]:
    facts: dict[str, Scalar] = {}
    for key in ("keras_version", "backend"):
        value = file.attrs.get(key)
        if isinstance(value, (str, bytes)):
            facts[key] = value.decode("utf-8", "replace")[:100] if isinstance(value, bytes) else value[:100]
    return facts
