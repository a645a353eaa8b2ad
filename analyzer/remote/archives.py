"""Archives of logs -> local files; nothing in an archive is believed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from analyzer.discover import enters, read_head
from analyzer.errors import IngestError
from analyzer.ingest import HEAD_BYTES
from analyzer.model import Problem
from analyzer.remote import limits
from analyzer.remote.copies import Copies
from analyzer.remote.limits import Budget, Left, Refused, is_other, reason_of, sort_of, unsafe

T = TypeVar("T")

MAX_RATIO = 200  # text of logs packs ten to fifty times
RATIO_FLOOR = 64 << 20  # bytes unpacked before the ratio counts: few zeros hurt nobody
MAX_READ = 16 << 20  # in one piece: a directory of 50,000 members fits
OVERSIZE = "its directory is larger than that of any archive of logs"


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of an archive; ``refusal`` (kind, reason) says why it must not be unpacked."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]
    refusal: tuple[str, str] | None = None
    own_damage: tuple[type[Exception], ...] = ()  # errors that leave the other members readable


def open_archive(copies: Copies, archive: Path, room: Path, kind: str) -> None:
    above = archive.parent.as_posix()
    copies.names.append((room.as_posix(), "" if above == "." else above.rstrip("/") + "/"))
    copies.problems += unpack(archive, room / archive.name, kind)
    copies.paths.append(room / archive.name)


def unpack(archive: Path, target: Path, kind: str) -> list[Problem]:
    """What discovery looks at of an archive's files, in the folder ``target``; links are never made."""
    import lzma
    import struct
    import tarfile
    import zipfile
    import zlib

    target.mkdir(parents=True)
    left, problems = Left(), list[Problem]()
    budget = Budget(limits.CHECKPOINTS_BYTES, limits.ARCHIVE_BYTES)
    most = max(RATIO_FLOOR, MAX_RATIO * archive.stat().st_size)
    try:
        with (_zip_members if kind == "zip" else _tar_members)(archive, most) as members:
            for member in members:
                _unpack_member(member, target, budget, left, most)
    except Refused as refused:
        problems.append(Problem(str(target), refused.kind, refused.message))
    except EOFError:
        problems.append(
            Problem(str(target), "truncated", "the archive ends early; what came before it is read")
        )
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError) as error:
        kind = "truncated" if "end of data" in str(error) else "damaged"
        problems.append(Problem(str(target), kind, f"the archive cannot be read on: {reason_of(error)}"))
    except (ValueError, LookupError, struct.error, RuntimeError, MemoryError, OverflowError) as error:
        problems.append(Problem(str(target), "damaged", f"not a sound archive ({type(error).__name__})"))
    return [*left.problems(target), *problems]


def _unpack_member(member: _Member, target: Path, budget: Budget, left: Left, most: int) -> None:
    name = member.name.removeprefix("./")
    place = PurePosixPath(name)
    if reason := unsafe(name):
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
        left.add("damaged", reason_of(error), member.name)


def _copy_member(member: _Member, path: Path, copy: IO[bytes], budget: Budget, most: int) -> None:
    """Copy a log, a checkpoint that the budget allows, the head of anything else."""
    if is_other(path):
        return
    with member.open() as content:
        head = content.read(HEAD_BYTES)
        copy.write(head)
        kind = sort_of(path, head)
        if kind == "other":
            return
        if kind == "checkpoint" and (message := budget.refuses(member.size)):
            raise IngestError(str(path), message, "too-large")
        allowed = min(budget.unpacked, most - (limits.ARCHIVE_BYTES - budget.unpacked))
        written = len(head)
        while written <= allowed and (block := content.read(1 << 20)):
            written += copy.write(block)
        budget.unpacked -= written
    if written > allowed:
        kind = "unsafe" if most < limits.ARCHIVE_BYTES else "too-large"
        bound = min(most, limits.ARCHIVE_BYTES)
        raise Refused(kind, f"it unpacks to more than {bound} bytes; the rest is left unread")


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
    damage = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
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
            yield (
                _tar_member(opened, info) for info in _counted(_headers(opened, metered)) if not info.isdir()
            )


def _headers(opened: Any, metered: Any) -> Iterator[Any]:
    """Every header; where tarfile stops without a word, before the block of zeros at the end, an error."""
    import tarfile

    yield from opened
    if not metered.last:
        raise EOFError
    if metered.last.strip(b"\0"):
        raise tarfile.ReadError("a member's header is damaged")


def _counted(members: Iterable[T]) -> Iterator[T]:
    for count, member in enumerate(members):
        if count >= limits.MAX_MEMBERS:
            raise Refused("too-large", f"more than {limits.MAX_MEMBERS} members: the others are left unread")
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
        self.last = b""  # what was read last

    def read(self, size: int = -1) -> bytes:
        if size > MAX_READ:
            raise Refused("unsafe", OVERSIZE)
        wanted = size if size >= 0 else MAX_READ + 1
        self._reaches(self.tell() + wanted)
        content = bytes(self.file.read(wanted))
        if len(content) > MAX_READ:
            raise Refused("unsafe", OVERSIZE)
        self.last = content
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            self._reaches(offset)
        return int(self.file.seek(offset, whence))

    def _reaches(self, offset: int) -> None:
        if self.most is not None and offset > self.most + MAX_READ:
            raise Refused("unsafe", f"it unpacks to more than {self.most} bytes; the rest is left unread")

    def tell(self) -> int:
        return int(self.file.tell())

    def seekable(self) -> bool:
        return True
