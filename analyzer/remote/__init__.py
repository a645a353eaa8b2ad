"""URLs and archives -> local files to read, and the way back to the names that were given.

Everything downstream works on local paths. What is given as ``s3://bucket/runs`` or as ``runs.zip``
is brought into a temporary folder first: logs whole, checkpoints up to a cap, of all else no more
than discovery looks at. Names in what comes out are those that were given:
``s3://bucket/runs/exp1/metrics.csv``, ``runs.zip/exp1/metrics.csv``.

fsspec is imported only for a URL; archives need the standard library alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from analyzer.errors import IngestError
from analyzer.model import Problem
from analyzer.remote.copies import Copies, Folder
from analyzer.remote.limits import Refused, archive_kind, reason_of

if TYPE_CHECKING:
    from analyzer.remote.urls import Progress

__all__ = ["Copies", "local_copies", "local_file", "masked", "source"]

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def masked(url: str) -> str:
    """The URL without what may be secret in it."""
    from analyzer.remote import urls

    return urls.masked(url)


def is_url(text: str) -> bool:
    return URL.match(text) is not None


def source(given: str | os.PathLike[str]) -> str | Path:
    """A URL as it is, anything else as a path (which would make ``s3:/x`` of ``s3://x``)."""
    text = os.fspath(given)
    if not is_url(text):
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme.lower() not in ("file", "local"):
        return text
    path = (
        unquote(parts.path) if parts.netloc in ("", "localhost") else f"//{parts.netloc}{unquote(parts.path)}"
    )
    return Path(path[1:] if re.match(r"/[A-Za-z]:", path) else path)


@contextmanager
def local_copies(
    given: Sequence[str | Path], progress: Progress | None = None, keep: bool = False
) -> Iterator[Copies]:
    """Brings URLs and archives here for as long as the context lasts, or with ``keep`` as long as
    anything refers to the folder (see :meth:`Copies.kept`). Local paths are left as they are.
    """
    copies = Copies()
    try:
        for item in map(source, given):
            if isinstance(item, str):
                from analyzer.remote.urls import fetch  # local files need none of what it loads

                _guarded(copies, item, fetch, progress)
            elif archive := archive_kind(item):
                from analyzer.remote.archives import open_archive

                _guarded(copies, item, open_archive, archive)
            else:
                copies.paths.append(item)
        yield copies
    finally:
        if copies.folder and not keep:
            copies.folder.close()


@contextmanager
def local_file(given: str | os.PathLike[str], keep: bool = False) -> Iterator[tuple[Path, Copies]]:
    """One file, fetched where it is at a URL. IngestErrors raised within speak of it as it was given."""
    place = source(given)
    if isinstance(place, Path):
        yield place, Copies()
        return
    with local_copies([place], keep=keep) as copies:
        for problem in copies.shown(copies.problems[:1]):
            raise IngestError(problem.path, problem.message, problem.kind)
        try:
            yield copies.paths[0], copies
        except IngestError as error:
            shown = copies.shown(error.path), copies.shown(error.message)
            raise IngestError(*shown, error.kind, error.offset) from None


def _guarded(copies: Copies, item: str | Path, bring: Callable[..., None], argument: Any) -> None:
    """One thing given that cannot be brought is a problem, and the others are read."""
    copies.folder = copies.folder or Folder()
    room = copies.folder.path / f"{len(copies.names):06}"  # of one width: none begins another
    name = masked(item) if isinstance(item, str) else item.as_posix()
    try:
        bring(copies, item, room, argument)
    except Refused as refused:
        copies.problems.append(Problem(name, refused.kind, refused.message))
    except OSError as error:
        copies.problems.append(Problem(name, "unreadable", reason_of(error)))
