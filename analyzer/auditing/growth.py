"""Event files that are still written: what was read of them is kept, and the next audit reads on from there.

Only for files so long that reading them takes longer than judging them, and so fresh that they may grow;
only where they hold nothing but scalars and hyperparameters, since of those nothing later depends on what
came before. A file whose part already read is not what it was is read whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.auditing.tasks import Tail
from analyzer.errors import IngestError
from analyzer.ingest import Ingestor
from analyzer.model import FloatArray, Problem, Reading, Series

LONG = 4 << 20  # bytes: a shorter file is read whole in less time than it takes to judge the run
FRESH = 2 * 86400.0  # seconds since its last change
CHECKED = 1 << 16  # bytes at the end of what was read, and at the file's beginning
COLUMNS = ("steps", "values", "wall_times")
OVERHEAD = 16  # bytes of a record around its payload
VERSION = b"brain.Event:"  # in the first record of an event file


@dataclass(slots=True)
class Growing:
    """An ingestor that reads on where ``tails`` says that reading ended, and notes in ``kept`` where it does."""

    ingestor: Ingestor
    tails: Mapping[str, Tail]
    kept: list[Tail] = field(default_factory=list)

    @property
    def NAME(self) -> str:
        return self.ingestor.NAME

    def read(self, path: Path) -> Reading:
        before = path.stat()
        tail = self.tails.get(str(path))
        reading = tail and continued(path, tail, self.ingestor)
        reading = reading or self.ingestor.read(path)
        fresh = before.st_size >= LONG and time.time() - before.st_mtime < FRESH
        if fresh and path.stat().st_size == before.st_size and not (reading.histograms or reading.texts):
            self.kept.append(tail_of(path, reading, before.st_size))
        return reading


def tail_of(path: Path, reading: Reading, size: int) -> Tail:
    """What was read of a file of ``size`` bytes, up to its last whole record."""
    cut = next((p.offset for p in reading.problems if p.kind == "truncated"), None)
    offset = size if cut is None else cut
    lasting = [asdict(p) for p in reading.problems if p.kind != "truncated"]
    state = {
        "tags": [s.tag for s in reading.series],
        "hyperparameters": dict(reading.hyperparameters),
        "problems": lasting,
    }
    arrays = {f"{k}.{c}": getattr(s, c) for k, s in enumerate(reading.series) for c in COLUMNS}
    data = io.BytesIO()
    np.savez_compressed(data, **{k: v for k, v in arrays.items() if v is not None})
    return Tail(str(path), offset, _digest(path, offset), json.dumps(state), data.getvalue())


def _digest(path: Path, offset: int) -> str:
    """Of the beginning of a file and of what lies before an offset."""
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        found.update(file.read(min(CHECKED, offset)))
        file.seek(max(0, offset - CHECKED))
        found.update(file.read(min(CHECKED, offset)))
    return found.hexdigest()


def continued(path: Path, tail: Tail, ingestor: Ingestor) -> Reading | None:
    """The file's reading from what was read and what came behind it; None where it must be read whole."""
    if path.stat().st_size < tail.offset or _digest(path, tail.offset) != tail.digest:
        return None
    state = json.loads(tail.state)
    old = _series(path, tail, state["tags"])
    problems = tuple(Problem(**problem) for problem in state["problems"])
    if path.stat().st_size == tail.offset:
        return Reading(old, hyperparameters=state["hyperparameters"], problems=problems)
    try:
        new = _behind(path, tail.offset, ingestor)
    except IngestError:
        return None
    if new.histograms or new.texts:
        return None
    return Reading(
        tuple(_joined(old, new.series)),
        hyperparameters={**state["hyperparameters"], **new.hyperparameters},
        problems=(*problems, *new.problems),
    )


def _series(path: Path, tail: Tail, tags: Sequence[str]) -> tuple[Series, ...]:
    with np.load(io.BytesIO(tail.columns), allow_pickle=False) as arrays:
        columns: list[dict[str, Any]] = [
            {c: arrays[f"{k}.{c}"] for c in COLUMNS if f"{k}.{c}" in arrays} for k in range(len(tags))
        ]
    return tuple(Series(tag, **own, source=str(path)) for tag, own in zip(tags, columns, strict=True))


def _behind(path: Path, offset: int, ingestor: Ingestor) -> Reading:
    """What the file holds from an offset on, its problems at their places in the whole file.

    Read as a file of its own, begun by the first record of the whole one. Raises IngestError.
    """
    with path.open("rb") as file, tempfile.TemporaryDirectory(prefix="analyze-") as folder:
        length = int.from_bytes(file.read(8), "little") + OVERHEAD
        file.seek(0)
        first = file.read(length) if length < CHECKED else b""
        if VERSION not in first:
            raise IngestError(str(path), "does not begin as event files do")
        file.seek(offset)
        part = Path(folder, path.name)
        part.write_bytes(first + file.read())
        reading = ingestor.read(part)
    moved = offset - length
    problems = (
        replace(p, path=str(path), offset=None if p.offset is None else p.offset + moved)
        for p in reading.problems
        if p.kind != "empty"
    )
    series = tuple(replace(s, source=str(path)) for s in reading.series)
    return replace(reading, series=series, problems=tuple(problems))


def _joined(old: Iterable[Series], new: Iterable[Series]) -> Iterable[Series]:
    later = {s.tag: s for s in new}
    for series in old:
        more = later.pop(series.tag, None)
        yield series if more is None else _longer(series, more)
    yield from later.values()


def _longer(series: Series, more: Series) -> Series:
    return replace(
        series,
        steps=np.concatenate([series.steps, more.steps]),
        values=np.concatenate([series.values, more.values]),
        wall_times=_both(series.wall_times, more.wall_times),
    )


def _both(old: FloatArray | None, new: FloatArray | None) -> FloatArray | None:
    return None if old is None or new is None else np.concatenate([old, new])
