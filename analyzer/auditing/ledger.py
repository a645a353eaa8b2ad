"""What earlier audits found out, in one SQLite file, so that nothing is read twice.

Readers may look while an audit writes; a lock file beside the ledger keeps a second audit from writing.
What is committed stays if the process is killed; the file may be deleted at any time, and then
everything is read anew. ``docs/audit.md`` describes the tables.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from analyzer.auditing.tasks import Bundle, Kept, Outcome, Tail
from analyzer.errors import AnalyzerError
from analyzer.model import Problem

APPLICATION = 0x41554431  # "AUD1": marks the file as ours
FOLDER, NAME = ".analyzer", "audit.sqlite"
# One script a version of the tables: what a ledger of an earlier version lacks is run in order.
MIGRATIONS = (
    """
    CREATE TABLE bundles(
        id INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL, fingerprint TEXT NOT NULL, reader TEXT NOT NULL,
        rules TEXT NOT NULL, state TEXT NOT NULL, bytes INTEGER NOT NULL, modified REAL NOT NULL,
        cost REAL NOT NULL, problems TEXT NOT NULL, passed_over TEXT NOT NULL
    );
    CREATE TABLE runs(
        bundle INTEGER NOT NULL REFERENCES bundles ON DELETE CASCADE, number INTEGER NOT NULL,
        record TEXT NOT NULL, PRIMARY KEY(bundle, number)
    );
    CREATE TABLE details(
        bundle INTEGER NOT NULL, number INTEGER NOT NULL, document BLOB NOT NULL, features BLOB NOT NULL,
        PRIMARY KEY(bundle, number), FOREIGN KEY(bundle, number) REFERENCES runs ON DELETE CASCADE
    );
    CREATE TABLE tails(
        bundle INTEGER NOT NULL REFERENCES bundles ON DELETE CASCADE, path TEXT NOT NULL,
        "offset" INTEGER NOT NULL, digest TEXT NOT NULL, state TEXT NOT NULL, columns BLOB NOT NULL
    );
    CREATE INDEX tails_of_bundle ON tails(bundle);
    """,
)


class LedgerError(AnalyzerError):
    """A ledger that cannot be used, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger knows of a bundle's state."""

    id: int
    fingerprint: str
    reader: str
    rules: str
    state: str
    cost: float


class Ledger:
    """An open ledger. Use :func:`open_ledger` to write, :func:`read_ledger` to look."""

    def __init__(self, path: Path, connection: sqlite3.Connection):
        self.path = path
        self.connection = connection

    def entries(self) -> dict[str, Entry]:
        rows = self.connection.execute(
            "SELECT path, id, fingerprint, reader, rules, state, cost FROM bundles"
        )
        return {path: Entry(*rest) for path, *rest in rows}

    def put(self, bundle: Bundle, outcome: Outcome, reader: str, rules: str) -> None:
        """Replace all that is known of a bundle; part of the open transaction."""
        self.connection.execute("DELETE FROM bundles WHERE path = ?", (key(bundle.path),))
        problems = json.dumps([asdict(problem) for problem in outcome.problems])
        cursor = self.connection.execute(
            "INSERT INTO bundles(path, fingerprint, reader, rules, state, bytes, modified, cost, problems,"
            " passed_over) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(key(bundle.path), bundle.fingerprint, reader, rules, outcome.state, bundle.bytes),
                *(bundle.modified, outcome.cost, problems, json.dumps(outcome.passed_over)),
            ),
        )
        self._put_runs(cursor.lastrowid, outcome.runs)
        for tail in outcome.tails:
            values = (cursor.lastrowid, key(tail.path), tail.offset, tail.digest, tail.state, tail.columns)
            self.connection.execute("INSERT INTO tails VALUES (?, ?, ?, ?, ?, ?)", values)

    def judged(self, entry: Entry, outcome: Outcome, rules: str) -> None:
        """Replace what the rules said of a bundle that was not read again, unless they say the same."""
        self.connection.execute("UPDATE bundles SET rules = ? WHERE id = ?", (rules, entry.id))
        if outcome.state != "same":
            self.connection.execute("DELETE FROM runs WHERE bundle = ?", (entry.id,))
            self._put_runs(entry.id, outcome.runs)

    def _put_runs(self, bundle: int | None, runs: Sequence[Kept]) -> None:
        for number, run in enumerate(runs):
            self.connection.execute("INSERT INTO runs VALUES (?, ?, ?)", (bundle, number, run.record))
            self.connection.execute(
                "INSERT INTO details VALUES (?, ?, ?, ?)", (bundle, number, run.document, run.features)
            )

    def commit(self) -> None:
        self.connection.commit()

    def runs(self, bundle: int) -> tuple[Kept, ...]:
        rows = self.connection.execute(
            "SELECT record, document, features FROM runs JOIN details USING(bundle, number)"
            " WHERE bundle = ? ORDER BY number",
            (bundle,),
        )
        return tuple(Kept(*row) for row in rows)

    def tails(self, bundle: int) -> tuple[Tail, ...]:
        rows = self.connection.execute(
            'SELECT path, "offset", digest, state, columns FROM tails WHERE bundle = ?', (bundle,)
        )
        return tuple(Tail(*row) for row in rows)

    def records(self, bundles: Iterable[int]) -> Iterator[tuple[int, int, str]]:
        """(bundle, number, record) of the runs of some bundles, by bundle."""
        wanted = set(bundles)
        for row in self.connection.execute("SELECT bundle, number, record FROM runs ORDER BY bundle, number"):
            if row[0] in wanted:
                yield row

    def document(self, bundle: int, number: int) -> bytes:
        row = self.connection.execute(
            "SELECT document FROM details WHERE bundle = ? AND number = ?", (bundle, number)
        ).fetchone()
        found: bytes = row[0]
        return found

    def problems(self, bundles: Iterable[int]) -> tuple[list[Problem], list[Path]]:
        """What gave no run: problems, and files that are neither logs nor checkpoints."""
        wanted = set(bundles)
        problems: list[Problem] = []
        passed_over: list[Path] = []
        rows = self.connection.execute(
            "SELECT id, problems, passed_over FROM bundles WHERE problems != '[]' OR passed_over != '[]'"
            " ORDER BY path"
        )
        for bundle, told, files in rows:
            if bundle in wanted:
                problems += [Problem(**problem) for problem in json.loads(told)]
                passed_over += map(Path, json.loads(files))
        return problems, passed_over

    def forget(self, bundles: Iterable[int]) -> None:
        self.connection.executemany("DELETE FROM bundles WHERE id = ?", [(b,) for b in bundles])
        self.connection.commit()

    def take(self, other: Path) -> None:
        """Add what another ledger knows; of a bundle that both know, what the other says counts."""
        read_ledger(other).close()  # it is one, and of this version
        self.connection.commit()
        self.connection.execute("ATTACH DATABASE ? AS other", (str(other),))
        self.connection.executescript(MERGE)
        self.connection.execute("DETACH DATABASE other")

    def close(self) -> None:
        self.connection.close()


MERGE = """
    BEGIN;
    DELETE FROM bundles WHERE path IN (SELECT path FROM other.bundles);
    CREATE TEMP TABLE shift AS SELECT coalesce(max(id), 0) AS by FROM bundles;
    INSERT INTO bundles SELECT id + by, path, fingerprint, reader, rules, state, bytes, modified, cost,
        problems, passed_over FROM other.bundles, shift;
    INSERT INTO runs SELECT bundle + by, number, record FROM other.runs, shift;
    INSERT INTO details SELECT bundle + by, number, document, features FROM other.details, shift;
    INSERT INTO tails SELECT bundle + by, path, "offset", digest, state, columns FROM other.tails, shift;
    DROP TABLE shift;
    COMMIT;
"""


# --------------------------------------------------------------------------- opening


@contextmanager
def open_ledger(path: Path) -> Iterator[Ledger]:
    """A ledger to write, made if there is none. LedgerError where that cannot be, or another audit writes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(path.with_name(path.name + ".lock"))
    except OSError as error:
        raise LedgerError(
            f"{path}: cannot be written: {error.strerror}; give another place by --ledger"
        ) from None
    try:
        ledger = Ledger(path, _connected(str(path), path))
        try:
            with _told(path):
                _migrate(ledger.connection, path)
            yield ledger
        finally:
            ledger.close()
    finally:
        lock.close()


def read_ledger(path: Path) -> Ledger:
    """A ledger to look at, while another process may be writing it."""
    if not path.is_file():
        raise LedgerError(f"{path}: no such ledger")
    with _told(path):
        connection = _connected(f"{path.resolve().as_uri()}?mode=ro", path)
        found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != len(MIGRATIONS):
        connection.close()
        raise LedgerError(_other_version(path, found))
    return Ledger(path, connection)


def _connected(place: str, path: Path) -> sqlite3.Connection:
    with _told(path):
        connection = sqlite3.connect(
            place, uri=place.startswith("file:"), timeout=60, check_same_thread=False
        )
        connection.execute("PRAGMA foreign_keys = ON")
        if connection.execute("PRAGMA application_id").fetchone()[0] not in (0, APPLICATION):
            raise LedgerError(f"{path}: a database of something else, not an audit's ledger")
        return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to the newest version, each step in a transaction of its own."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if found > len(MIGRATIONS) or (not found and tables):
        raise LedgerError(_other_version(path, found) if found else f"{path}: not an audit's ledger")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    for version, script in enumerate(MIGRATIONS[found:], start=found + 1):
        state = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {version};"
        connection.executescript(f"BEGIN; {script} {state} COMMIT;")


def _other_version(path: Path, found: int) -> str:
    if found > len(MIGRATIONS):
        return f"{path}: written by a later version of this tool (tables of version {found}): give another place by --ledger"
    return f"{path}: written by an earlier version of this tool: run an audit with it first"


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """SQLite's errors as what to do about them."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"{path}: {error}; {_advice(str(error))}") from None


def _advice(error: str) -> str:
    if "locked" in error:
        return "try again"
    again = "delete it and audit again: all it spares is time"
    if "not a database" in error:  # it may be a file of the user's
        return f"give another place by --ledger; if it is a damaged ledger, {again}"
    return again


def _locked(path: Path) -> IO[str]:
    """The lock file, locked until it is closed or the process ends, however it ends."""
    file = path.open("a+", encoding="utf-8")
    try:
        _lock(file)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(200).strip()
        file.close()
        message = f"another audit is writing it ({holder or 'just started'})"
        raise LedgerError(
            f"{path.with_suffix('')}: {message}: wait for it, or give another place by --ledger"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M:%S}")
    file.flush()
    return file


def _lock(file: IO[str]) -> None:
    """Lock a file against other processes. Raises BlockingIOError where one has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError as error:
            raise BlockingIOError from error
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return


def default_place(roots: Sequence[str]) -> Path:
    """``.analyzer/`` in the one folder that is audited, where it can be written; else the user's cache."""
    root = Path(roots[0])
    if len(roots) == 1 and root.is_dir():
        own = root / FOLDER
        if os.access(own if own.is_dir() else root, os.W_OK | os.X_OK):
            return own / NAME
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.blake2b("\0".join(roots).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return cache / "training-log-analyzer" / f"{digest}.sqlite"


def key(path: str) -> str:
    """A path as the ledger has it: bytes that are no text spelled out."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
