"""What of a store or an archive may come here: which files, under which names, how many bytes."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from analyzer.checkpoints import container_for
from analyzer.discover import NO_LOG, OTHER_SUFFIXES, read_head
from analyzer.ingest import ingestor_for
from analyzer.model import Problem

CHECKPOINT_BYTES = 2 << 30  # of one checkpoint that is fetched or unpacked
CHECKPOINTS_BYTES = 4 << 30  # of all of them, for one path given
ARCHIVE_BYTES = 8 << 30  # of an archive that is fetched, and of what is kept of one
MAX_MEMBERS = 50_000  # files below a URL, or members of an archive
MAX_DEPTH = 32
MAX_NAME = 1024  # characters of a name with its folders; 255 bytes is what file systems allow a part
TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)


class Refused(Exception):
    """What is given must not be read on; the reason and the kind of problem it is."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind, self.message = kind, message


@dataclass(slots=True)
class Budget:
    """Bytes that may still be kept."""

    checkpoints: int
    unpacked: int = 0  # of an archive, whatever it is

    def refuses(self, size: int) -> str:
        """Why a checkpoint of this size is not brought; "" where it is, and then it is counted."""
        if size > min(CHECKPOINT_BYTES, self.checkpoints):
            whole = f"of {size / 2**30:.1f} GiB" if size >= 2**29 else f"of {size / 2**20:.1f} MiB"
            return f"a checkpoint {whole} was not brought here; copy it, and use `analyze checkpoint` on it"
        self.checkpoints -= size
        return ""


def is_other(path: Path) -> bool:
    """Whether discovery will not even open it."""
    return path.suffix.lower() in OTHER_SUFFIXES or NO_LOG.fullmatch(path.as_posix()) is not None


def sort_of(path: Path, head: bytes) -> str:
    """log, checkpoint or other, as discovery will see it."""
    if ingestor_for(path, head):
        return "log"
    return "checkpoint" if container_for(path, head) else "other"


def unsafe(name: str) -> str:
    """Why no file may be made under this name; "" where it may."""
    parts = name.split("/")
    if "\\" in name:
        return "a backslash in the name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "an absolute path"
    if ".." in parts:
        return "a path that leads out of its folder"
    if "\0" in name or not name or (os.name == "nt" and ":" in name):
        return "a name that no file can have"
    if len(name) > MAX_NAME or any(len(os.fsencode(_encodable(part))) > 255 for part in parts):
        return "an overlong name"
    return "folders too deep" if len(parts) > MAX_DEPTH else ""


def _encodable(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


class Left:
    """Names of what was left behind, by the kind of problem and the reason."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, kind: str, reason: str, name: str) -> None:
        self.names[kind, reason].append(name)

    def problems(self, path: Path) -> Iterator[Problem]:
        """One problem for each reason, however many names there are."""
        for (kind, reason), names in self.names.items():
            some = ", ".join(repr(name[:80]) for name in names[:3]) + (", …" if len(names) > 3 else "")
            yield Problem(str(path), kind, f"{reason}: {len(names)} left unread ({some})")


def reason_of(error: BaseException) -> str:
    """An error in one line, without signatures and passwords."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    text = re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\"]*", r"\1", " ".join(text.split()))
    return re.sub(r"://[^\s/@]*:[^\s/@]*@", "://", text)[:300]


def archive_kind(path: Path) -> str | None:
    """zip or tar for an archive of logs; None for anything else, such as a checkpoint that is a zip."""
    if not is_archive_name(path) or not path.is_file():
        return None
    try:
        head = read_head(path)
    except OSError:
        return None  # discovery says why
    if not head or sort_of(path, head) != "other":
        return None
    return "zip" if path.suffix.lower() == ".zip" else "tar"


def is_archive_name(path: Path) -> bool:
    return path.suffix.lower() == ".zip" or TAR.search(path.name) is not None
