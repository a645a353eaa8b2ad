"""Files at a URL -> local files, by way of fsspec, which is imported only then."""

from __future__ import annotations

import re
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from analyzer.checkpoints.entries import natural
from analyzer.discover import enters
from analyzer.ingest import HEAD_BYTES
from analyzer.model import Problem
from analyzer.remote import limits
from analyzer.remote.archives import unpack
from analyzer.remote.copies import Copies
from analyzer.remote.limits import (
    Budget,
    Left,
    Refused,
    archive_kind,
    is_archive_name,
    is_other,
    reason_of,
    sort_of,
    unsafe,
)

T = TypeVar("T")
Progress = Callable[[int, int, str], None]

WHOLE_BYTES = 256 << 10  # a smaller file is fetched without a look at its head
ANSWER_SECONDS = 60.0  # for a listing, or a file's head
THREADS = 8
DRIVERS = {
    **dict.fromkeys(("s3", "s3a"), "training-log-analyzer[s3]"),
    **dict.fromkeys(("gs", "gcs"), "training-log-analyzer[gcs]"),
    "hf": "training-log-analyzer[hf]",
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("ssh", "sftp"), "paramiko"),
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file below a URL: its name in the store, its place here, its size where it is known."""

    name: str
    target: Path
    size: int


def fetch(copies: Copies, url: str, room: Path, progress: Progress | None) -> None:
    """Bring what is at a URL to ``room``. Raises Refused where nothing can be brought."""
    prefix, below = _split(url)
    if reason := unsafe(below) if below else "":
        raise Refused("unsafe", reason)
    target = room / below
    copies.names.append((room.as_posix(), prefix))
    files, root = filesystem(url)
    info = _asked(url, files.info, root)
    target.parent.mkdir(parents=True, exist_ok=True)
    if info["type"] == "directory":
        target.mkdir(exist_ok=True)
        left = Left()
        entries = list(_listed(files, root, target, left, copies.problems))
        copies.problems += left.problems(target)
        _fetch_all(files, entries, copies.problems, progress)
    else:
        _fetch_one(copies, files, _Entry(root, target, info.get("size") or 0), url)
    copies.paths.append(target)


def _split(url: str) -> tuple[str, str]:
    """What is shown before the path, without passwords, and the path without slashes around it."""
    scheme, rest = url.split("://", 1)
    if "::" in url:
        raise Refused("unsupported", "chained URLs are not read: give the archive's own URL")
    if scheme.lower() in ("http", "https"):
        rest = re.split(r"[?#]", rest)[0]
    rest = re.sub(r"^[^/@]*:[^/@]*@", "", rest)
    below = rest.strip("/")
    return f"{scheme}://{rest[: len(rest) - len(rest.lstrip('/'))]}", re.sub("/{2,}", "/", below)


def masked(url: str) -> str:
    """The URL without what is secret in it."""
    url = re.sub(r"^([^:/]+://)[^/@]*:[^/@]*@", r"\1", url)
    return re.sub(r"^(https?://[^?#]*)[?#].*", r"\1", url, flags=re.IGNORECASE)


def filesystem(url: str) -> tuple[Any, str]:
    """The store of a URL, and the path in it."""
    scheme = url.split("://", 1)[0].lower()
    try:
        url_to_fs = import_module("fsspec.core").url_to_fs
    except ImportError:
        package = DRIVERS.get(scheme, "training-log-analyzer[remote]")
        raise Refused("unsupported", f"reading URLs needs fsspec: pip install '{package}'") from None
    try:
        files, root = url_to_fs(url, **_options(scheme))
        files.invalidate_cache()  # a run that goes on writes new files
    except ImportError as error:
        driver = DRIVERS.get(scheme)
        hint = f"pip install '{driver}'" if driver else reason_of(error)
        raise Refused("unsupported", f"no driver for {scheme}:// is installed: {hint}") from None
    except Exception as error:  # each driver has errors of its own
        raise Refused("unsupported", reason_of(error)) from None
    return files, root.rstrip("/")


def _options(scheme: str) -> dict[str, Any]:
    """Time limits, where the drivers take any and the user's own configuration sets none."""
    conf = import_module("fsspec.config").conf
    if scheme in ("s3", "s3a") and "config_kwargs" not in conf.get("s3", {}):
        return {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}}
    if scheme in ("http", "https") and "client_kwargs" not in conf.get(scheme, {}):
        with suppress(ImportError):
            from aiohttp import ClientTimeout

            return {"client_kwargs": {"timeout": ClientTimeout(sock_connect=10, sock_read=60)}}
    return {}


def _asked(url: str, call: Callable[..., T], *arguments: Any) -> T:
    """The store's answer. Raises Refused that says why there is none."""
    try:
        return _in_time(call, *arguments)
    except FileNotFoundError as error:
        if error.__cause__ and not isinstance(
            error.__cause__, FileNotFoundError
        ):  # as fsspec has it for HTTP
            raise Refused("missing", f"nothing there ({reason_of(error.__cause__)})") from None
        raise Refused("missing", "no such file, folder or bucket") from None
    except PermissionError as error:
        raise Refused("unreadable", f"access denied ({reason_of(error)})") from None
    except Exception as error:  # each driver has errors of its own
        hint = "; for a public bucket set FSSPEC_S3_ANON=true" if "credentials" in str(error) else ""
        raise Refused("unreadable", reason_of(error) + hint) from None


def _in_time(call: Callable[..., T], *arguments: Any) -> T:
    """The result of a call, or TimeoutError: drivers may try again for minutes."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call(*arguments))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {ANSWER_SECONDS:.0f} seconds")
    return results[0]


def _listed(files: Any, root: str, target: Path, left: Left, problems: list[Problem]) -> Iterator[_Entry]:
    """Every file below a folder of the store that discovery would look at."""
    folders = [(root, PurePosixPath())]
    count = 0
    while folders:
        folder, below = folders.pop()
        try:
            found = _asked(folder, partial(files.ls, folder, detail=True))
        except Refused as refused:
            problems.append(Problem(str(target / below), refused.kind, refused.message))
            continue
        for info in sorted(found, key=lambda info: str(info["name"])):
            name = str(info["name"]).rstrip("/").rsplit("/", 1)[-1]
            place = below / name
            if info["name"].rstrip("/") == folder or name in ("", "."):
                continue  # the placeholder that stands for a folder
            if reason := unsafe(str(place)) or ("a name that no file can have" if "/" in name else ""):
                left.add("unsafe", reason, str(place))
            elif info["type"] == "directory":
                if enters(name):
                    folders.append((info["name"], place))
            elif count >= limits.MAX_MEMBERS:
                message = f"more than {limits.MAX_MEMBERS} files: the others are left unread"
                problems.append(Problem(str(target), "too-large", message))
                return
            else:
                count += 1
                yield _Entry(info["name"], target / place, info.get("size") or 0)


def _fetch_one(copies: Copies, files: Any, entry: _Entry, url: str) -> None:
    """A file that was named itself: a log, a checkpoint or an archive."""
    if not is_archive_name(entry.target):
        head = (
            _asked(url, partial(files.cat_file, entry.name, start=0, end=HEAD_BYTES)) if entry.size else b""
        )
        found = sort_of(entry.target, head[:HEAD_BYTES])
        if found == "checkpoint" and (message := Budget(limits.CHECKPOINTS_BYTES).refuses(entry.size)):
            raise Refused("too-large", message)
        _told(url, files, entry.name, entry.target)
        return
    if entry.size > limits.ARCHIVE_BYTES:
        raise Refused(
            "too-large", f"an archive of {entry.size / 2**30:.1f} GiB is not fetched: unpack it there"
        )
    assert copies.folder is not None
    download = Path(tempfile.mkdtemp(dir=copies.folder.path)) / entry.target.name
    _told(url, files, entry.name, download)
    kind = archive_kind(download)
    if kind is None:
        download.rename(entry.target)
    else:
        copies.problems += unpack(download, entry.target, kind)
        download.unlink()


def _told(url: str, files: Any, name: str, target: Path) -> None:
    try:
        files.get_file(name, str(target))
    except Exception as error:  # each driver has errors of its own
        raise Refused("unreadable", f"cannot be fetched: {reason_of(error)}") from None


def _fetch_all(
    files: Any, entries: Sequence[_Entry], problems: list[Problem], progress: Progress | None
) -> None:
    """Bring the logs, then the checkpoints that the budget allows."""
    checkpoints: list[_Entry] = []
    for entry, found in _in_parallel(files, entries, _bring_log, progress):
        if isinstance(found, Problem):
            problems.append(found)
        elif found == "checkpoint":
            checkpoints.append(entry)
    budget = Budget(limits.CHECKPOINTS_BYTES)
    wanted: list[_Entry] = []
    for entry in _ends_first(checkpoints):
        if message := budget.refuses(entry.size):
            problems.append(Problem(str(entry.target), "too-large", message))
        else:
            wanted.append(entry)
    problems += [p for _, p in _in_parallel(files, wanted, _bring, progress) if isinstance(p, Problem)]


def _in_parallel(
    files: Any,
    entries: Sequence[_Entry],
    bring: Callable[[Any, _Entry], Problem | str],
    progress: Progress | None,
) -> Iterator[tuple[_Entry, Problem | str]]:
    """What ``bring`` said of each; several at a time where the driver is made for it."""
    pool = ThreadPoolExecutor(THREADS if getattr(files, "async_impl", False) else 1)
    try:
        for i, (entry, said) in enumerate(
            zip(entries, pool.map(partial(bring, files), entries), strict=True)
        ):
            if progress:
                progress(i, len(entries), entry.target.name)
            yield entry, said
    finally:
        pool.shutdown(cancel_futures=True)


def _bring_log(files: Any, entry: _Entry) -> Problem | str:
    """Bring a file unless it is a checkpoint; of what is neither only as much as discovery looks at."""
    try:
        entry.target.parent.mkdir(parents=True, exist_ok=True)
        if is_other(entry.target):
            entry.target.touch()  # it will be counted, and not opened
            return ""
        if entry.size <= WHOLE_BYTES:
            return _bring(files, entry)
        head = files.cat_file(entry.name, start=0, end=HEAD_BYTES)[:HEAD_BYTES]
        kind = sort_of(entry.target, head)
        if kind == "other":
            entry.target.write_bytes(head)
        return _bring(files, entry) if kind == "log" else kind
    except Exception as error:  # each driver has errors of its own
        return Problem(str(entry.target), "unreadable", f"cannot be fetched: {reason_of(error)}")


def _bring(files: Any, entry: _Entry) -> Problem | str:
    try:
        files.get_file(entry.name, str(entry.target))
    except Exception as error:  # each driver has errors of its own
        with suppress(OSError):
            entry.target.unlink(missing_ok=True)
        return Problem(str(entry.target), "unreadable", f"cannot be fetched: {reason_of(error)}")
    return ""


def _ends_first(entries: Iterable[_Entry]) -> list[_Entry]:
    """The last and the first checkpoint of each folder before the others: those are measured."""
    folders: dict[Path, list[_Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda e: natural(e.target.as_posix())):
        step_folder = re.search(r"\d", entry.target.parent.name) is not None
        folders[entry.target.parent.parent if step_folder else entry.target.parent].append(entry)
    ends = [e for own in folders.values() for e in (own[-1], own[0])]
    return list({e.target: e for e in (*ends, *(e for own in folders.values() for e in own))}.values())
