"""Checkpoint containers: one module each, found by scanning this package."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from analyzer.errors import IngestError
from analyzer.model import Checkpoint

HEAD = 4096


class Container(Protocol):
    """What a module of this package offers to be one."""

    NAME: str
    SUMMARY: str
    ORDER: int

    def claims(self, path: Path, head: bytes) -> bool: ...

    def open(self, path: Path) -> Checkpoint: ...


@cache
def containers() -> tuple[Container, ...]:
    """The containers' modules, the one to be asked first in front."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    found = [cast(Container, m) for m in modules if hasattr(m, "claims") and hasattr(m, "open")]
    return tuple(sorted(found, key=lambda container: container.ORDER))


def container_for(path: Path, head: bytes) -> Container | None:
    """The container that claims a file by its name and first 4 KiB."""
    return next((container for container in containers() if container.claims(path, head)), None)


def open_checkpoint(path: Path) -> Checkpoint:
    """Index of the checkpoint at ``path``; no tensor is read. Raises IngestError."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        container = container_for(path, head)
        if container is None:
            raise IngestError(str(path), "not a checkpoint of a known format", "unsupported")
        return container.open(path)
    except OSError as error:
        raise IngestError(str(path), f"cannot be read: {error.strerror or error}", "unreadable") from None
