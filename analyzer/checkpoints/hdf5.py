"""Keras weights and models: HDF5 files, and ``.keras`` archives that hold one. Needs h5py."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.entries import Entry, Found, natural
from analyzer.checkpoints.keras_names import layer_names, name_states, settings, shown
from analyzer.checkpoints.regions import element_count
from analyzer.checkpoints.scalars import flatten
from analyzer.checkpoints.state import assemble
from analyzer.checkpoints.zips import MAX_RATIO, read_directory, read_member
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem, Scalar

NAME = "hdf5"
SUMMARY = "Keras models and weights (.h5, .weights.h5, .keras): needs `pip install h5py`"
ORDER = 18
_SUFFIXES = frozenset({".h5", ".hdf5", ".keras"})
_RANKS = {name: rank for rank, name in enumerate(
    ("kernel", "recurrent_kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
)}  # fmt: skip
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
    content, config = _archived(path) if path.suffix.lower() == ".keras" else (None, {})
    source = _Source(str(path), content)
    found = Found(str(path), ordered=False)
    with source.opened() as file:
        config = config or _configured(file)
        layers: dict[str, str] = {}
        datasets = list(_datasets(source, file, found, layers))
        found.metadata.update(_facts(file))
        optimizer, counters = _optimizer(file)
    _arrange(found, datasets, layers, layer_names(config.get("config")), optimizer)
    training = config.get("compile_config") or config.get("training_config")
    flatten(training, "", found.hyperparameters, most=100)
    found.settings.update(settings(training) | counters)
    if not found.entries:
        problem = (
            found.problems[0] if found.problems else Problem("", "unsupported", "holds no numeric datasets")
        )
        raise IngestError(str(path), problem.message, problem.kind)
    return assemble(found, NAME)


def _arrange(
    found: Found, datasets: list[Entry], layers: Mapping[str, str], order: list[str], optimizer: str
) -> None:
    """The model's tensors in the order of its layers where that is known, then the optimizer's."""
    places = {name: index for index, name in enumerate(order)}
    unique = {group: name for group, name in layers.items() if list(layers.values()).count(name) == 1}
    model = [
        entry.renamed(shown(entry.path, unique), "model") for entry in datasets if entry.group == "model"
    ]
    if places and layers:
        model.sort(key=lambda e: places.get(layers.get(e.path.partition("/vars/")[0], ""), len(places)))
    found.entries = model
    states = [entry for entry in datasets if entry.group == "optimizer"]
    name_states(found, states, optimizer, bool(places))


def _archived(path: Path) -> tuple[bytes | None, dict[str, object]]:
    """The weights and the configuration of a ``.keras`` archive."""
    members = read_directory(path)
    weights = members.get("model.weights.h5")
    if weights is None:
        raise IngestError(str(path), "Keras archive without model.weights.h5", "damaged")
    config: object = None
    if "config.json" in members:
        try:
            config = json.loads(read_member(path, members["config.json"], _MAX_CONFIG))
        except (ValueError, RecursionError, IngestError):
            config = None  # the weights can do without
    return read_member(path, weights, _MAX_ARCHIVED), config if isinstance(config, dict) else {}


def _configured(file: Any) -> dict[str, object]:
    """The configurations that older files keep as attributes."""
    found: dict[str, object] = {}
    for key, name in (("model_config", "config"), ("training_config", "training_config")):
        value = file.attrs.get(key)
        try:
            found[name] = json.loads(value) if isinstance(value, (str, bytes)) else None
        except (ValueError, RecursionError):
            found[name] = None
    return found


def _optimizer(file: Any) -> tuple[str, dict[str, Scalar]]:
    """The optimizer's name, and its counter of steps."""
    h5py = _h5py(file.filename)
    group = _within(file, "optimizer/vars")
    if isinstance(group, h5py.Group):
        name, counter = group.attrs.get("name", ""), _within(group, "0")
    else:
        group = _within(file, "optimizer_weights")
        keys = list(group)[:_MAX_DATASETS] if isinstance(group, h5py.Group) else []
        name = next((key for key in keys if isinstance(_within(group, key), h5py.Group)), "")
        counter = _within(group, f"{name}/iteration") if name else None
    plain = isinstance(counter, h5py.Dataset) and counter.shape == () and counter.dtype.kind in "iu"
    if not plain or _fault(counter):
        return _plain(name).lower(), {}
    return _plain(name).lower(), {"step": int(counter[()])}


def _within(node: Any, place: str) -> Any:
    """What lies at a path of hard links; None where there is none: other links lead out of the file."""
    h5py = _h5py(node.file.filename)
    for key in place.split("/"):
        if not isinstance(node, h5py.Group) or not isinstance(node.get(key, getlink=True), h5py.HardLink):
            return None
        node = node[key]
    return node


def _plain(value: object) -> str:
    return value.decode("utf-8", "replace")[:100] if isinstance(value, bytes) else str(value)[:100]


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


def _datasets(source: _Source, file: Any, found: Found, layers: dict[str, str]) -> Iterator[Entry]:
    """Numeric datasets in the order of the layers where the file keeps it, else natural order.

    Links to other files are never followed, and soft links, which may lead in circles, neither.
    ``layers`` gets the names that Keras 3 gives its groups.
    """
    h5py = _h5py(source.path)
    stack: list[tuple[str, Any]] = [("", file)]
    seen: set[Any] = set()
    count = 0
    while stack and count < _MAX_DATASETS:
        name, node = stack.pop()
        if isinstance(node, h5py.Dataset):
            count += 1
            yield from _entry(source, name, node, found)
            continue
        if not isinstance(node, h5py.Group) or node.id in seen:
            continue
        seen.add(node.id)
        if name.endswith("/vars") and "name" in node.attrs:
            layers[name.removesuffix("/vars")] = _plain(node.attrs["name"])
        stack.extend(reversed(list(_below(node, name, found))))
    if stack:
        message = f"more than {_MAX_DATASETS} datasets: the others were not looked at"
        found.problems.append(Problem(source.path, "too-large", message))


def _below(node: Any, name: str, found: Found) -> Iterator[tuple[str, Any]]:
    h5py = _h5py(found.path)
    for key in _keys(node):
        place = f"{name}/{key}" if name else key
        if not isinstance(node.get(key, getlink=True), h5py.HardLink):
            found.fault("unsafe", f"link {place[-150:]} leads elsewhere and was not followed")
            continue
        try:
            yield place[-1_000:], node[key]
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            found.fault("damaged", f"{place[-150:]} cannot be opened ({str(error)[:80]})")


def _keys(node: Any) -> list[str]:
    """Member names; the layers' order of old Keras files is in an attribute."""
    keys = sorted(node.keys(), key=lambda key: (_RANKS.get(key.removesuffix(":0"), 0), natural(key)))
    for attribute in ("layer_names", "weight_names"):
        names = node.attrs.get(attribute)
        if names is not None and np.size(names) <= _MAX_DATASETS:
            order = [_plain(name) for name in np.ravel(names)]
            place = {name.split("/")[0]: i for i, name in reversed(list(enumerate(order)))}
            return sorted(keys, key=lambda key: place.get(key, len(place)))
    return keys


def _entry(source: _Source, name: str, dataset: Any, found: Found) -> Iterator[Entry]:
    dtype, shape = dataset.dtype, dataset.shape
    if shape is None or dtype.kind not in "biufc":
        return
    if fault := _fault(dataset):
        found.fault("unsafe", f"dataset {name[:80]} {fault}")
        return
    optimizer = name.split("/")[0] in ("optimizer", "optimizer_weights")
    blocks = DatasetBlocks(source.path, source.content, name)
    group = "optimizer" if optimizer else "model"
    yield Entry(name, dtype.newbyteorder("=").name, tuple(shape), blocks, group, path=name)


def _fault(dataset: Any) -> str:
    """Why a dataset is not read, or ""."""
    if dataset.external or getattr(dataset, "is_virtual", False):
        return "keeps its data in another file: not opened"
    stored = dataset.id.get_storage_size()
    wanted = element_count(dataset.shape) * dataset.dtype.itemsize
    if wanted > (stored + (1 << 16)) * MAX_RATIO:
        return f"claims {wanted} bytes from {stored}"
    chunk = element_count(dataset.chunks or ()) * dataset.dtype.itemsize
    return f"is packed in chunks of {chunk} bytes" if dataset.chunks and chunk > _MAX_CHUNK else ""


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


def _facts(file: Any) -> dict[str, Scalar]:
    facts: dict[str, Scalar] = {}
    for key in ("keras_version", "backend"):
        value = file.attrs.get(key)
        if isinstance(value, (str, bytes)):
            facts[key] = value.decode("utf-8", "replace")[:100] if isinstance(value, bytes) else value[:100]
    return facts
