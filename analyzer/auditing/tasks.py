"""What goes to the processes that examine runs and what comes back, in plain values."""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.model import Problem

Log = tuple[str, str, str, str]  # path, format, what is put before and behind its tags
FIXED = 500_000.0  # bytes of logs that take as long to read as there is to do for any run
JUDGED = 50_000.0  # the same for a run that is judged from its features alone


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of one run (or of several, where a log starts over).

    ``fingerprint`` changes when a file is added, removed, or written to. ``url`` is set instead of
    files for runs that are not simply there: the folder to fetch, or the archive to unpack.
    """

    path: str
    logs: tuple[Log, ...] = ()
    checkpoints: tuple[str, ...] = ()
    configs: tuple[Log, ...] = ()
    url: str = ""
    fingerprint: str = ""
    bytes: int = 0
    modified: float = 0.0  # of the newest file, seconds since 1970


@dataclass(frozen=True, slots=True)
class Settings:
    """What all runs of an audit are examined with."""

    roots: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()  # folders of further rules
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    roles: tuple[tuple[str, str], ...] = ()
    reader: str = ""  # version of what reads and measures
    timeout: float = 300.0  # seconds for one run
    memory: int = 4 << 30  # bytes for one run


@dataclass(frozen=True, slots=True)
class Tail:
    """What was read of a file that may grow, and up to where (bytes); see growth.py."""

    path: str
    offset: int
    digest: str
    state: str
    columns: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What the ledger keeps of one run; the document and the features are compressed."""

    record: str
    document: bytes
    features: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one bundle. ``state`` is done, timed-out, killed, unread (features are lacking) or same."""

    path: str
    state: str = "done"
    runs: tuple[Kept, ...] = ()
    problems: tuple[Problem, ...] = ()  # of files that gave no run
    passed_over: tuple[str, ...] = ()
    cost: float = 0.0  # seconds
    tails: tuple[Tail, ...] = ()  # of files that may grow


@dataclass(frozen=True, slots=True)
class Examine:
    """Read and judge a bundle, reading on in the files whose ``tails`` are known."""

    bundle: Bundle
    tails: tuple[Tail, ...] = ()

    @property
    def path(self) -> str:
        return self.bundle.path

    @property
    def weight(self) -> float:
        """Work, in bytes of logs: each run costs something however small it is."""
        return FIXED + self.bundle.bytes


@dataclass(frozen=True, slots=True)
class Judge:
    """Judge a bundle's runs anew from their stored features."""

    path: str
    runs: tuple[Kept, ...]

    @property
    def weight(self) -> float:
        return JUDGED


Task = Examine | Judge
