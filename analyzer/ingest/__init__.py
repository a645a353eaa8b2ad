"""Log formats: one module each, found by scanning this package and by entry points.

See ``docs/architecture.md`` for what a module offers.
"""

from __future__ import annotations

import importlib
import pkgutil
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
    from importlib.metadata import entry_points  # 50 ms, and `read` of a known format needs none of it

    modules = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    offered = [m for m in modules if hasattr(m, "claims") and hasattr(m, "read")]
    offered += [point.load() for point in entry_points(group=ENTRY_POINTS)]
    found = cast(list[Ingestor], offered)
    return tuple(sorted(found, key=lambda ingestor: (ingestor.ORDER, ingestor.NAME)))


def ingestor_for(path: Path, head: bytes) -> Ingestor | None:
    """The first format that claims the file, by its name and first 4 KiB."""
    return next((i for i in ingestors() if i.claims(path, head)), None)
