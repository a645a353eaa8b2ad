"""What was given, on this machine: where it lies, how it is shown, how long it stays."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from analyzer.model import Problem

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(slots=True)
class Copies:
    """What was given, on this machine: ``paths`` for discovery, and what could not be brought here."""

    paths: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    names: list[tuple[str, str]] = field(default_factory=list)  # temporary prefix, prefix as given
    folder: Folder | None = None

    def shown(self, value: T) -> T:
        """The same value with every temporary path in it as the user knows it."""
        if not self.folder:
            return value
        above_all = (self.folder.path.as_posix(), "")  # what speaks of files from several places
        renamed: T = _renamed(value, [*self.names, above_all])
        return renamed

    def kept(self, value: T) -> T:
        """The same value, whose tensors stay readable: the last of them takes the folder along."""
        return _keeping(value, self.folder) if self.folder else value


class Folder:
    """A temporary folder that goes when it is closed, no longer referred to, or Python ends."""

    def __init__(self) -> None:
        import shutil  # with every compression there is: local files need none
        import tempfile

        self.path = Path(tempfile.mkdtemp(prefix="analyze-"))
        self.close = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _renamed(value: Any, names: Sequence[tuple[str, str]]) -> Any:
    if isinstance(value, str):
        for temporary, name in names:
            if temporary in value:
                bare = re.sub("(?<![:/])/$", "", name) or "."
                value = value.replace(f"{temporary}/", name).replace(temporary, bare)
        return value
    return _rebuilt(value, partial(_renamed, names=names))


def _keeping(value: Any, folder: Folder) -> Any:
    from analyzer.model import TensorRef  # local files need none

    if isinstance(value, TensorRef):
        return replace(value, blocks=partial(_blocks, value.blocks, folder))
    return _rebuilt(value, partial(_keeping, folder=folder))


def _blocks(
    blocks: Callable[[int], Iterator[NDArray[generic]]], folder: Folder, limit: int
) -> Iterator[NDArray[generic]]:
    """The tensor's blocks; that ``folder`` is an argument is what keeps the file there."""
    yield from blocks(limit)


def _rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value of the model with ``change`` made to each of its parts."""
    if isinstance(value, tuple | list):
        return type(value)(change(part) for part in value)
    if isinstance(value, Mapping):
        return {key: change(part) for key, part in value.items()}
    if is_dataclass(value) and not callable(value):  # a reader of blocks is told where the file really is
        return replace(value, **{f.name: change(getattr(value, f.name)) for f in fields(value) if f.init})
    return value
