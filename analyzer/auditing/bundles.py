"""The files that are read together, in plain text: what goes to other processes and into the ledger."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from analyzer.auditing.growth import Growing
from analyzer.auditing.tasks import Bundle, Log
from analyzer.discover import Group, LogFile
from analyzer.ingest import Ingestor, ingestors
from analyzer.reading import run_name


def bundle(group: Group, roots: Sequence[Path]) -> Bundle:
    """A group of discovered files, with the state they are in now."""
    logs, configs = _logs(group.logs), _logs(group.configs)
    checkpoints = tuple(str(path) for path in group.checkpoints)
    files = [*(log[0] for log in (*logs, *configs)), *checkpoints, *map(str, group.parts)]
    told = repr((run_name(group.path, roots), logs, configs))  # the name, and what becomes of the tags
    return Bundle(str(group.path), logs, checkpoints, configs, "", *state(files, told))


def archive_bundle(path: Path) -> Bundle:
    """An archive, which is unpacked to be read: all of its runs are one bundle."""
    return Bundle(str(path), (), (), (), str(path), *state([str(path)], "archive"))


def _logs(logs: Iterable[LogFile]) -> tuple[Log, ...]:
    return tuple((str(log.path), log.ingestor.NAME, log.prefix, log.suffix) for log in logs)


def state(files: Sequence[str], told: str) -> tuple[str, int, float]:
    """Fingerprint, bytes and time of the newest change of files; a file that is gone counts as empty.

    ``told`` is what the fingerprint depends on besides.
    """
    found = hashlib.blake2b(told.encode("utf-8", "backslashreplace"), digest_size=16)
    size, newest = 0, 0.0
    for file in sorted(files):
        try:
            stat = os.stat(file)  # noqa: PTH116, ten thousand times as text
            at, length = stat.st_mtime_ns, stat.st_size
        except OSError:
            at, length = 0, -1
        found.update(f"{file}\0{length}\0{at}\0".encode("utf-8", "surrogatepass"))
        size += max(length, 0)
        newest = max(newest, at / 1e9)
    return found.hexdigest(), size, newest


def group_of(bundle: Bundle, growing: Growing | None = None) -> Group:
    """The group again, for assembly; event files are read by ``growing`` where it is given."""
    logs = [_log(log) for log in bundle.logs]
    if growing:
        own = cast(Ingestor, growing)
        logs = [replace(log, ingestor=own) if log.ingestor is growing.ingestor else log for log in logs]
    return Group(
        Path(bundle.path),
        logs,
        [Path(path) for path in bundle.checkpoints],
        [_log(log) for log in bundle.configs],
    )


def _log(log: Log) -> LogFile:
    path, name, prefix, suffix = log
    ingestor = next(i for i in ingestors() if name == i.NAME)
    return LogFile(Path(path), ingestor, prefix, suffix)


def in_shard(path: str, shard: tuple[int, int]) -> bool:
    """Whether a run is of shard i of n: by its path alone, the same on every machine."""
    number, count = shard
    return zlib.crc32(path.encode("utf-8", "surrogatepass")) % count == number - 1
