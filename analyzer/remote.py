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
import shutil
import tempfile
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar
from urllib.parse import unquote, urlsplit

from numpy import generic
from numpy.typing import NDArray

from analyzer.checkpoints import container_for
from analyzer.checkpoints.state import natural
from analyzer.discover import NO_LOG, OTHER_SUFFIXES, enters, read_head
from analyzer.errors import IngestError
from analyzer.ingest import HEAD_BYTES, ingestor_for
from analyzer.model import Problem, TensorRef

T = TypeVar("T")
Progress = Callable[[int, int, str], None]

CHECKPOINT_BYTES = 2 << 30  # of one checkpoint that is fetched or unpacked
CHECKPOINTS_BYTES = 4 << 30  # of all of them, for one path given
ARCHIVE_BYTES = 8 << 30  # of an archive that is fetched, and of what is kept of one
WHOLE_BYTES = 256 << 10  # a smaller file is fetched without a look at its head
MAX_MEMBERS = 50_000  # files below a URL, or members of an archive
MAX_DEPTH = 32
MAX_NAME = 1024  # characters of a name with its folders; 255 bytes is what file systems allow a part
MAX_RATIO = 200  # text of logs packs ten to fifty times
RATIO_FLOOR = 64 << 20  # bytes unpacked before the ratio counts: few zeros hurt nobody
MAX_READ = 16 << 20  # in one piece: a directory of 50,000 members fits
OVERSIZE = "its directory is larger than that of any archive of logs"
ANSWER_SECONDS = 60.0  # for a listing, or a file's head
THREADS = 8

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
DRIVERS = {
    **dict.fromkeys(("s3", "s3a"), "training-log-analyzer[s3]"),
    **dict.fromkeys(("gs", "gcs"), "training-log-analyzer[gcs]"),
    "hf": "training-log-analyzer[hf]",
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("ssh", "sftp"), "paramiko"),
}


class _Refused(Exception):
    """What is given must not be read on; the reason and the kind of problem it is."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind, self.message = kind, message


@dataclass(slots=True)
class Copies:
    """What was given, on this machine: ``paths`` for discovery, and what could not be brought here."""

    paths: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    names: list[tuple[str, str]] = field(default_factory=list)  # temporary prefix, prefix as given
    folder: _Folder | None = None

    def shown(self, value: T) -> T:
        """The same value with every temporary path in it as the user knows it."""
        return _renamed(value, self.names) if self.names else value

    def kept(self, value: T) -> T:
        """The same value, whose tensors stay readable: the last of them takes the folder along."""
        return _keeping(value, self.folder) if self.folder else value


class _Folder:
    """A temporary folder that goes when it is closed, no longer referred to, or Python ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="analyze-"))
        self.close = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(slots=True)
class _Budget:
    """Bytes that may still be kept."""

    checkpoints: int
    unpacked: int

    def refuses(self, size: int) -> str:
        """Why a checkpoint of this size is not brought; "" where it is, and then it is counted."""
        if size > min(CHECKPOINT_BYTES, self.checkpoints):
            whole = f"of {size / 2**30:.1f} GiB" if size >= 2**29 else f"of {size / 2**20:.1f} MiB"
            return f"a checkpoint {whole} was not brought here; copy it, and use `analyze checkpoint` on it"
        self.checkpoints -= size
        return ""


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
                _guarded(copies, item, _fetch, progress)
            elif archive := archive_kind(item):
                _guarded(copies, item, _open_archive, archive)
            else:
                copies.paths.append(item)
        yield copies
    finally:
        if copies.folder and not keep:
            copies.folder.close()


def _guarded(copies: Copies, item: str | Path, bring: Callable[..., None], argument: Any) -> None:
    """One thing given that cannot be brought is a problem, and the others are read."""
    copies.folder = copies.folder or _Folder()
    room = copies.folder.path / f"{len(copies.names):06}"  # of one width: none begins another
    name = masked(item) if isinstance(item, str) else item.as_posix()
    try:
        bring(copies, item, room, argument)
    except _Refused as refused:
        copies.problems.append(Problem(name, refused.kind, refused.message))
    except OSError as error:
        copies.problems.append(Problem(name, "unreadable", _reason(error)))


def _renamed(value: Any, names: Sequence[tuple[str, str]]) -> Any:
    if isinstance(value, str):
        for temporary, name in names:
            if temporary in value:
                bare = re.sub("(?<![:/])/$", "", name) or "."
                value = value.replace(f"{temporary}/", name).replace(temporary, bare)
        return value
    return _rebuilt(value, partial(_renamed, names=names))


def _keeping(value: Any, folder: _Folder) -> Any:
    if isinstance(value, TensorRef):
        return replace(value, blocks=partial(_blocks, value.blocks, folder))
    return _rebuilt(value, partial(_keeping, folder=folder))


def _blocks(
    blocks: Callable[[int], Iterator[NDArray[generic]]], folder: _Folder, limit: int
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


# --- what is worth bringing --------------------------------------------------------------------


def _is_other(path: Path) -> bool:
    """Whether discovery will not even open it."""
    return path.suffix.lower() in OTHER_SUFFIXES or NO_LOG.fullmatch(path.as_posix()) is not None


def _sort(path: Path, head: bytes) -> str:
    """log, checkpoint or other, as discovery will see it."""
    if ingestor_for(path, head):
        return "log"
    return "checkpoint" if container_for(path, head) else "other"


def _unsafe(name: str) -> str:
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


class _Left:
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


# --- URLs --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file below a URL: its name in the store, its place here, its size where it is known."""

    name: str
    target: Path
    size: int


def _fetch(copies: Copies, url: str, room: Path, progress: Progress | None) -> None:
    """Bring what is at a URL to ``room``. Raises _Refused where nothing can be brought."""
    prefix, below = _split(url)
    if reason := _unsafe(below) if below else "":
        raise _Refused("unsafe", reason)
    target = room / below
    copies.names.append((room.as_posix(), prefix))
    files, root = _filesystem(url)
    info = _asked(url, files.info, root)
    target.parent.mkdir(parents=True, exist_ok=True)
    if info["type"] == "directory":
        target.mkdir(exist_ok=True)
        left = _Left()
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
        raise _Refused("unsupported", "chained URLs are not read: give the archive's own URL")
    if scheme.lower() in ("http", "https"):
        rest = re.split(r"[?#]", rest)[0]
    rest = re.sub(r"^[^/@]*:[^/@]*@", "", rest)
    below = rest.strip("/")
    return f"{scheme}://{rest[: len(rest) - len(rest.lstrip('/'))]}", re.sub("/{2,}", "/", below)


def masked(url: str) -> str:
    """The URL without what is secret in it."""
    url = re.sub(r"^([^:/]+://)[^/@]*:[^/@]*@", r"\1", url)
    return re.sub(r"^(https?://[^?#]*)[?#].*", r"\1", url, flags=re.IGNORECASE)


def _filesystem(url: str) -> tuple[Any, str]:
    """The store of a URL, and the path in it."""
    scheme = url.split("://", 1)[0].lower()
    try:
        url_to_fs = import_module("fsspec.core").url_to_fs
    except ImportError:
        package = DRIVERS.get(scheme, "training-log-analyzer[remote]")
        raise _Refused("unsupported", f"reading URLs needs fsspec: pip install '{package}'") from None
    try:
        files, root = url_to_fs(url, **_options(scheme))
        files.invalidate_cache()  # a run that goes on writes new files
    except ImportError as error:
        driver = DRIVERS.get(scheme)
        hint = f"pip install '{driver}'" if driver else _reason(error)
        raise _Refused("unsupported", f"no driver for {scheme}:// is installed: {hint}") from None
    except Exception as error:  # each driver has errors of its own
        raise _Refused("unsupported", _reason(error)) from None
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
    """The store's answer. Raises _Refused that says why there is none."""
    try:
        return _in_time(call, *arguments)
    except FileNotFoundError as error:
        if error.__cause__ and not isinstance(
            error.__cause__, FileNotFoundError
        ):  # as fsspec has it for HTTP
            raise _Refused("missing", f"nothing there ({_reason(error.__cause__)})") from None
        raise _Refused("missing", "no such file, folder or bucket") from None
    except PermissionError as error:
        raise _Refused("unreadable", f"access denied ({_reason(error)})") from None
    except Exception as error:  # each driver has errors of its own
        raise _Refused("unreadable", _reason(error)) from None


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


def _reason(error: BaseException) -> str:
    """An error in one line, without signatures and passwords."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    text = re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\"]*", r"\1", " ".join(text.split()))
    return re.sub(r"://[^\s/@]*:[^\s/@]*@", "://", text)[:300]


def _listed(files: Any, root: str, target: Path, left: _Left, problems: list[Problem]) -> Iterator[_Entry]:
    """Every file below a folder of the store that discovery would look at."""
    folders = [(root, PurePosixPath())]
    count = 0
    while folders:
        folder, below = folders.pop()
        try:
            found = _asked(folder, partial(files.ls, folder, detail=True))
        except _Refused as refused:
            problems.append(Problem(str(target / below), refused.kind, refused.message))
            continue
        for info in sorted(found, key=lambda info: str(info["name"])):
            name = str(info["name"]).rstrip("/").rsplit("/", 1)[-1]
            place = below / name
            if info["name"].rstrip("/") == folder or name in ("", "."):
                continue  # the placeholder that stands for a folder
            if reason := _unsafe(str(place)) or ("a name that no file can have" if "/" in name else ""):
                left.add("unsafe", reason, str(place))
            elif info["type"] == "directory":
                if enters(name):
                    folders.append((info["name"], place))
            elif count >= MAX_MEMBERS:
                left.add("too-large", f"more than {MAX_MEMBERS} files", str(place))
                return
            else:
                count += 1
                yield _Entry(info["name"], target / place, info.get("size") or 0)


def _fetch_one(copies: Copies, files: Any, entry: _Entry, url: str) -> None:
    """A file that was named itself: a log, a checkpoint or an archive."""
    packed = entry.target.suffix.lower() == ".zip" or TAR.search(entry.target.name)
    if not packed:
        head = (
            _asked(url, partial(files.cat_file, entry.name, start=0, end=HEAD_BYTES)) if entry.size else b""
        )
        if _sort(entry.target, head[:HEAD_BYTES]) == "checkpoint" and entry.size > CHECKPOINT_BYTES:
            raise _Refused("too-large", _Budget(0, 0).refuses(entry.size))
        _told(url, files, entry.name, entry.target)
        return
    if entry.size > ARCHIVE_BYTES:
        raise _Refused(
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
        raise _Refused("unreadable", f"cannot be fetched: {_reason(error)}") from None


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
    budget = _Budget(CHECKPOINTS_BYTES, 0)
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
        if _is_other(entry.target):
            entry.target.touch()  # it will be counted, and not opened
            return ""
        if entry.size <= WHOLE_BYTES:
            return _bring(files, entry)
        head = files.cat_file(entry.name, start=0, end=HEAD_BYTES)[:HEAD_BYTES]
        kind = _sort(entry.target, head)
        if kind == "other":
            entry.target.write_bytes(head)
        return _bring(files, entry) if kind == "log" else kind
    except Exception as error:  # each driver has errors of its own
        return Problem(str(entry.target), "unreadable", f"cannot be fetched: {_reason(error)}")


def _bring(files: Any, entry: _Entry) -> Problem | str:
    try:
        files.get_file(entry.name, str(entry.target))
    except Exception as error:  # each driver has errors of its own
        with suppress(OSError):
            entry.target.unlink(missing_ok=True)
        return Problem(str(entry.target), "unreadable", f"cannot be fetched: {_reason(error)}")
    return ""


def _ends_first(entries: Iterable[_Entry]) -> list[_Entry]:
    """The last and the first checkpoint of each folder before the others: those are measured."""
    folders: dict[Path, list[_Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda e: natural(e.target.as_posix())):
        step_folder = re.search(r"\d", entry.target.parent.name) is not None
        folders[entry.target.parent.parent if step_folder else entry.target.parent].append(entry)
    ends = [e for own in folders.values() for e in (own[-1], own[0])]
    return list({e.target: e for e in (*ends, *(e for own in folders.values() for e in own))}.values())


# --- archives ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of an archive; ``refusal`` (kind, reason) says why it must not be unpacked."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]
    refusal: tuple[str, str] | None = None
    own_damage: tuple[type[Exception], ...] = ()  # errors that leave the other members readable


def archive_kind(path: Path) -> str | None:
    """zip or tar for an archive of logs; None for anything else, such as a checkpoint that is a zip."""
    zipped = path.suffix.lower() == ".zip"
    if not (zipped or TAR.search(path.name)) or not path.is_file():
        return None
    try:
        head = read_head(path)
    except OSError:
        return None  # discovery says why
    if not head or _sort(path, head) != "other":
        return None
    return "zip" if zipped else "tar"


def _open_archive(copies: Copies, archive: Path, room: Path, kind: str) -> None:
    above = archive.parent.as_posix()
    copies.names.append((room.as_posix(), "" if above == "." else above.rstrip("/") + "/"))
    copies.problems += unpack(archive, room / archive.name, kind)
    copies.paths.append(room / archive.name)


def unpack(archive: Path, target: Path, kind: str) -> list[Problem]:
    """What discovery looks at of an archive's files, in the folder ``target``; links are never made."""
    import lzma
    import tarfile
    import zipfile
    import zlib

    target.mkdir(parents=True)
    left, problems = _Left(), list[Problem]()
    budget = _Budget(CHECKPOINTS_BYTES, ARCHIVE_BYTES)
    most = max(RATIO_FLOOR, MAX_RATIO * archive.stat().st_size)
    try:
        with (_zip_members if kind == "zip" else _tar_members)(archive, most) as members:
            for member in members:
                _unpack_member(member, target, budget, left, most)
    except _Refused as refused:
        problems.append(Problem(str(target), refused.kind, refused.message))
    except EOFError:
        problems.append(
            Problem(str(target), "truncated", "the archive ends early; what came before it is read")
        )
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError) as error:
        kind = "truncated" if "end of data" in str(error) else "damaged"
        problems.append(Problem(str(target), kind, f"the archive cannot be read on: {_reason(error)}"))
    except (ValueError, KeyError, RecursionError, MemoryError, OverflowError, NotImplementedError) as error:
        problems.append(Problem(str(target), "damaged", f"not a sound archive ({type(error).__name__})"))
    return [*left.problems(target), *problems]


def _unpack_member(member: _Member, target: Path, budget: _Budget, left: _Left, most: int) -> None:
    name = member.name.removeprefix("./")
    place = PurePosixPath(name)
    if reason := _unsafe(name):
        left.add("unsafe", reason, member.name)
        return
    if member.refusal:
        left.add(*member.refusal, member.name)
        return
    if not all(enters(folder) and folder != "__MACOSX" for folder in place.parts[:-1]) or not place.name:
        return
    path = target / place
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as copy:
            _copy_member(member, path, copy, budget, most)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        left.add("unsafe", "a name that occurs twice", member.name)
    except IngestError as error:
        left.add(error.kind, error.message, member.name)
        path.unlink()
    except member.own_damage as error:
        left.add("damaged", _reason(error), member.name)


def _copy_member(member: _Member, path: Path, copy: IO[bytes], budget: _Budget, most: int) -> None:
    """Copy a log, a checkpoint that the budget allows, the head of anything else."""
    if _is_other(path):
        return
    with member.open() as content:
        head = content.read(HEAD_BYTES)
        copy.write(head)
        kind = _sort(path, head)
        if kind == "other":
            return
        if kind == "checkpoint" and (message := budget.refuses(member.size)):
            raise IngestError(str(path), message, "too-large")
        allowed = min(budget.unpacked, most - (ARCHIVE_BYTES - budget.unpacked))
        written = len(head)
        while written <= allowed and (block := content.read(1 << 20)):
            written += copy.write(block)
        budget.unpacked -= written
    if written > allowed:
        raise _Refused("unsafe", f"it unpacks to more than {most} bytes; the rest is left unread")


@contextmanager
def _zip_members(archive: Path, most: int) -> Iterator[Iterator[_Member]]:
    import zipfile

    with archive.open("rb") as raw, zipfile.ZipFile(_Metered(raw)) as opened:
        yield (_zip_member(opened, info) for info in _counted(opened.infolist()) if not info.is_dir())


def _zip_member(opened: Any, info: Any) -> _Member:
    import stat
    import zipfile
    import zlib

    refusal: tuple[str, str] | None = None
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        refusal = ("unsafe", "a link or a device")
    elif info.flag_bits & 1:
        refusal = ("unsupported", "encrypted")
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        refusal = ("unsupported", f"compressed by method {info.compress_type}")
    damage = (zipfile.BadZipFile, zlib.error, EOFError)
    return _Member(info.orig_filename, info.file_size, partial(opened.open, info), refusal, damage)


@contextmanager
def _tar_members(archive: Path, most: int) -> Iterator[Iterator[_Member]]:
    import bz2
    import gzip
    import lzma
    import tarfile

    openers = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    opener: Any = openers.get(read_head(archive)[:2], Path.open)
    with opener(archive, "rb") as raw:
        metered: Any = _Metered(raw, None if opener is Path.open else most)
        with tarfile.open(fileobj=metered, mode="r:") as opened:
            yield (_tar_member(opened, info) for info in _counted(opened) if not info.isdir())


def _counted(members: Iterable[T]) -> Iterator[T]:
    for count, member in enumerate(members):
        if count >= MAX_MEMBERS:
            raise _Refused("too-large", f"more than {MAX_MEMBERS} members: the others are left unread")
        yield member


def _tar_member(opened: Any, info: Any) -> _Member:
    refusal = None
    if not info.isreg() or info.issparse():
        refusal = ("unsafe", "a link, a device or a file with holes")
    return _Member(info.name, info.size, partial(opened.extractfile, info), refusal)


class _Metered:
    """A file that is read in pieces of a bearable size, and unpacked only so far.

    The readers of archives ask for as many bytes as the archive tells them to.
    """

    def __init__(self, file: Any, most: int | None = None):
        self.file, self.most = file, most

    def read(self, size: int = -1) -> bytes:
        if size > MAX_READ:
            raise _Refused("unsafe", OVERSIZE)
        wanted = size if size >= 0 else MAX_READ + 1
        self._reaches(self.tell() + wanted)
        content = bytes(self.file.read(wanted))
        if len(content) > MAX_READ:
            raise _Refused("unsafe", OVERSIZE)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            self._reaches(offset)
        return int(self.file.seek(offset, whence))

    def _reaches(self, offset: int) -> None:
        if self.most is not None and offset > self.most + MAX_READ:
            raise _Refused("unsafe", f"it unpacks to more than {self.most} bytes; the rest is left unread")

    def tell(self) -> int:
        return int(self.file.tell())

    def seekable(self) -> bool:
        return True
