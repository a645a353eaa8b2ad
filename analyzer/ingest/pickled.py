"""Pickled histories: the dict of lists that Keras users save, and lists of records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from analyzer.errors import IngestError
from analyzer.ingest import tables
from analyzer.model import Axis, Reading, Scalar

NAME = "pickle"
SUMMARY = "pickled Keras histories, dicts of lists and lists of dicts (nothing in them is run)"
ORDER = 45

SUFFIXES = frozenset([".pkl", ".pickle", ".p"])
MAX_BYTES = 1 << 28
MAX_DEPTH = 4
_HISTORY = re.compile(r"histor(y|ies)|logs?|metrics?|losses|results?|records?|stats|evals?|curves?", re.I)


def claims(path: Path, head: bytes) -> bool:
    """By suffix, where the file's name or the strings in its head speak of a curve and no tensors."""
    if path.suffix.lower() not in SUFFIXES or not re.match(rb"\x80[\x02-\x05]|[(\]}]|c\w", head):
        return False
    if re.search(rb"_rebuild_tensor|torch\.storage|sklearn", head):
        return False
    words = re.split(r"[^a-z]+", path.stem.lower())
    return (
        any(_HISTORY.fullmatch(w) for w in words)
        or re.search(rb"(?<![a-z])(val_)?loss(?![a-z])", head) is not None
    )


def read(path: Path) -> Reading:
    """A series per list of numbers; ``IngestError`` for any other content."""
    from analyzer.checkpoints.pickles import read_pickle

    size = path.stat().st_size
    if size == 0:
        raise IngestError(str(path), "the file is empty", "empty")
    if size > MAX_BYTES:
        raise IngestError(str(path), f"a pickle of {size >> 20} MiB is no history of losses", "too-large")
    value = history_of(read_pickle(path.read_bytes(), str(path)))
    lists, settings = gathered(value, tables.stem_of(str(path)))
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        table = tables.from_records([flat(item) for item in value])
    else:
        table = tables.from_mapping(lists)
    axis: Axis = "epoch" if per_epoch(lists) else "row"
    series = tables.to_series(table, str(path), axis) if table.length > 1 else ()
    if not series:
        raise IngestError(str(path), "a pickle without lists of numbers to follow", "unsupported")
    return Reading(series=series, hyperparameters=settings)


def history_of(value: object) -> object:
    """The data inside of what was saved: a callback's ``history``, an object's fields."""
    state = getattr(value, "state", None)
    if isinstance(state, Mapping):
        value = state
    if isinstance(value, Mapping) and isinstance(value.get("history"), Mapping | list) and value["history"]:
        return value["history"]
    return value


def gathered(value: object, stem: str) -> tuple[dict[str, list[object]], dict[str, Scalar]]:
    """The lists of numbers in nested dicts by path, and the scalars beside them."""
    lists: dict[str, list[object]] = {}
    settings: dict[str, Scalar] = {}
    for name, leaf in walk(value, "", 0):
        if isinstance(leaf, list):
            lists[name or stem] = leaf
        elif name and (leaf is None or isinstance(leaf, str | int | float | bool)):
            settings[name.replace("/", ".")] = leaf
    return lists, settings


def walk(value: object, name: str, depth: int) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        for key, inner in value.items():
            if isinstance(key, str | int):
                yield from walk(inner, f"{name}/{key}" if name else str(key), depth + 1)
    elif isinstance(value, np.ndarray):
        if value.ndim == 1 and value.dtype.kind in "biuf":
            yield name, value.tolist()
    elif isinstance(value, tuple | list):
        yield name, list(value)
    else:
        yield name, value


def flat(record: Mapping[object, object]) -> dict[str, object]:
    return dict(walk(record, "", 0))


def per_epoch(lists: Mapping[str, list[object]]) -> bool:
    """A Keras history: each metric has a ``val_`` twin of the same length."""
    return any(len(lists.get(f"val_{name}", ())) == len(cells) > 0 for name, cells in lists.items())
