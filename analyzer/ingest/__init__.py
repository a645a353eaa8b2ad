"""Log formats: one module each, found by scanning this package and by entry points.

See ``docs/architecture.md`` for what a module offers.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from analyzer.model import Reading

HEAD_BYTES = 4096
ENTRY_POINTS = "analyzer.ingest"


class Ingestor(Protocol):
    """What a format's module offers; ``run_root`` and ``read_all`` are optional."""

    NAME: str
    SUMMARY: str
    ORDER: int

    def claims(self, path: Path, head: bytes) -> bool: ...
    def read(self, path: Path) -> Reading: ...


@cache
def ingestors() -> tuple[Ingestor, ...]:
    """Every known format, most specific first."""
    return tuple(_in_turn())


def ingestor_for(path: Path, head: bytes) -> Ingestor | None:
    """The first format that claims the file, by its name and first 4 KiB."""
    return next((i for i in _in_turn() if i.claims(path, head)), None)


def _in_turn() -> Iterator[Ingestor]:
    """As ``ingestors``, each imported when it is asked for: most folders need only the first few."""
    for _, name, plugin in _order():
        yield plugin or _module(name)


@cache
def _module(name: str) -> Ingestor:
    return cast(Ingestor, importlib.import_module(f"{__name__}.{name}"))


@cache
def _order() -> list[tuple[int, str, Ingestor | None]]:
    """Order and name of each format, ours as a module's name, those of other packages loaded."""
    ours = (file for folder in __path__ for file in Path(folder).glob("*.py"))
    found = [(order, file.stem) for file in ours if (order := _order_of(file)) is not None]
    known: list[tuple[int, str, Ingestor | None]] = [(order, name, None) for order, name in found]
    known += [(plugin.ORDER, plugin.NAME, plugin) for plugin in _plugins()]
    return sorted(known, key=lambda entry: entry[:2])


def _order_of(file: Path) -> int | None:
    """The line ``ORDER = 10`` of a module that reads a format, None for any other module."""
    with file.open("rb") as source:
        line = re.search(rb"^ORDER = (\d+)", source.read(HEAD_BYTES), re.MULTILINE)
    return int(line[1]) if line else None


def _plugins() -> list[Ingestor]:
    """Formats of other packages. To ask the standard library for them takes 50 ms, so it is asked only
    where some package speaks of them."""
    if not any(map(_speaks_of_formats, sys.path)):
        return []
    from importlib.metadata import entry_points

    return [cast(Ingestor, point.load()) for point in entry_points(group=ENTRY_POINTS)]


def _speaks_of_formats(folder: str) -> bool:
    """Whether a package in a folder of ``sys.path`` may offer a format; True for an archive."""
    place = Path(folder or ".")
    if place.is_file():
        return True
    told = (*place.glob("*.dist-info/entry_points.txt"), *place.glob("*.egg-info/entry_points.txt"))
    return any(ENTRY_POINTS.encode() in file.read_bytes() for file in told)
