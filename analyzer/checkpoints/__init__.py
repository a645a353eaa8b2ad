"""Checkpoint containers: one module each, found by scanning this package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from analyzer.errors import IngestError

if TYPE_CHECKING:
    from analyzer.model import Checkpoint

HEAD = 4096


class Container(Protocol):
    """What a module of this package offers to be one."""

    NAME: str
    SUMMARY: str
    ORDER: int

    def claims(self, path: Path, head: bytes) -> bool: ...

    def open(self, path: Path) -> Checkpoint: ...

    # optional: other files that are read with this one, which are then no checkpoints of their own
    # def parts(self, path: Path) -> Iterable[Path]: ...
    # optional: whether a file named itself can be read, that is not claimed where it is met
    # def reads(self, path: Path, head: bytes) -> bool: ...
    # optional: what the file holds, for checkpoints that are several files
    # def find(self, path: Path) -> Found: ...


@cache
def containers() -> tuple[Container, ...]:
    """The containers' modules, the one to be asked first in front."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    found = [cast(Container, m) for m in modules if hasattr(m, "claims") and hasattr(m, "open")]
    return tuple(sorted(found, key=lambda container: container.ORDER))


def container_for(path: Path, head: bytes, beyond: int = -1) -> Container | None:
    """The container that claims a file by its name and first 4 KiB; ``beyond``: of those asked later."""
    return next((c for c in containers() if beyond < c.ORDER and c.claims(path, head)), None)


def leading(paths: Iterable[Path]) -> dict[Path, frozenset[Path]]:
    """Of files that containers claim, one for each checkpoint, with its shards and companions."""
    parts = {path: _parts(path) for path in paths}
    along = frozenset().union(*parts.values())
    return {path: own for path, own in parts.items() if path not in along}


def _parts(path: Path) -> frozenset[Path]:
    try:
        with path.open("rb") as file:
            parts = getattr(container_for(path, file.read(HEAD)), "parts", None)
        return frozenset(parts(path)) - {path} if parts else frozenset()
    except (OSError, IngestError):
        return frozenset()  # told when the file is opened


def open_checkpoint(path: Path) -> Checkpoint:
    """Index of the checkpoint at ``path``, a file or a folder; no tensor is read. Raises IngestError."""
    try:
        if path.is_dir():
            path = _in_folder(path)
        elif path.exists() and not path.is_file():
            raise IngestError(str(path), "neither a file nor a folder", "unsupported")
        with path.open("rb") as file:
            head = file.read(HEAD)
        container = container_for(path, head) or _reading(path, head)
        if container is None:
            raise IngestError(str(path), "not a checkpoint of a known format", "unsupported")
        return container.open(path)
    except OSError as error:
        raise IngestError(str(path), f"cannot be read: {error.strerror or error}", "unreadable") from None


def _reading(path: Path, head: bytes) -> Container | None:
    return next((c for c in containers() if (reads := getattr(c, "reads", None)) and reads(path, head)), None)


def _in_folder(folder: Path) -> Path:
    """The file that stands for the one checkpoint in a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = list(leading([path for path in files if _claimed(path)]))
    if len(found) == 1:
        return found[0]
    if not found:
        raise IngestError(str(folder), "holds no checkpoint of a known format", "unsupported")
    names = ", ".join(path.name for path in found[:10])
    raise IngestError(
        str(folder), f"holds {len(found)} checkpoints, name one of them: {names}", "unsupported"
    )


def _claimed(path: Path) -> bool:
    with path.open("rb") as file:
        return container_for(path, file.read(HEAD)) is not None
