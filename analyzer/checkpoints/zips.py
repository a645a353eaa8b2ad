"""The directory of a zip archive, read without extracting anything.

Sizes, offsets and names are claims of the file: each is checked before it is believed. Layout
after PKWARE's APPNOTE 6.3.10, sections 4.3.7 to 4.3.16.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from analyzer.checkpoints.regions import Reader, Region
from analyzer.errors import IngestError

MAX_MEMBERS = 200_000
MAX_RATIO = 1_100  # deflate cannot do better than 1032 to 1
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the directory. ``header`` is its local header's offset in the file."""

    name: str
    method: int
    encrypted: bool
    packed: int
    size: int
    crc: int
    header: int
    end: int = 0


def read_directory(path: Path, start: int = 0, size: int | None = None) -> dict[str, Member]:
    """Members by name, of the archive in ``size`` bytes from ``start``. Raises IngestError."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END) if size is None else start + size
        at, count, length, offset = _find_end(file, path, start, end)
        first = at - length  # the directory lies right before its end record
        base = first - offset  # 0, or what was put before the archive
        if base < start or count > MAX_MEMBERS:
            raise IngestError(str(path), "zip directory does not fit its file", "damaged", at)
        file.seek(first)
        raw = file.read(length)
    members = _entries(raw, count, base, path, first)
    return {m.name: m for m in _checked(members, path, first)}


def member_region(path: Path, member: Member) -> Region:
    """Where a member's content is. Raises IngestError when it cannot be read."""
    if member.encrypted or member.method not in (_STORED, _DEFLATED):
        how = "encrypted" if member.encrypted else f"compressed by method {member.method}"
        raise IngestError(str(path), f"zip member {member.name!r} is {how}", "unsupported", member.header)
    packed = -1 if member.method == _STORED else member.packed
    return Region(str(path), member.header, member.size, member.end, header=True, packed=packed)


def read_member(path: Path, member: Member, limit: int) -> bytes:
    """A member's whole content, at most ``limit`` bytes."""
    if member.size > limit:
        message = f"zip member {member.name!r} holds {member.size} bytes, more than the {limit} allowed"
        raise IngestError(str(path), message, "too-large", member.header)
    with Reader(member_region(path, member)) as reader:
        return bytes(reader.read(0, member.size))


def checksum_holds(content: bytes, member: Member) -> bool:
    return zlib.crc32(content) == member.crc


def _find_end(file: BinaryIO, path: Path, start: int, end: int) -> tuple[int, int, int, int]:
    """The directory's end, its number of entries, length and offset."""
    tail_at = max(start, end - 65_557)
    file.seek(tail_at)
    tail = file.read(end - tail_at)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        message = "zip archive without its directory: the file was cut off, or is still being written"
        raise IngestError(str(path), message, "truncated", end)
    at = tail_at + found
    _, _, _, _, count, length, offset, _ = _END.unpack_from(tail, found)
    return _find_end64(file, path, start, at) or (at, count, length, offset)


def _find_end64(file: BinaryIO, path: Path, start: int, at: int) -> tuple[int, int, int, int] | None:
    if at - _LOCATOR64.size - _END64.size < start:
        return None
    file.seek(at - _LOCATOR64.size)
    mark, _, _, _ = _LOCATOR64.unpack(file.read(_LOCATOR64.size))
    if mark != b"PK\x06\x07":
        return None
    record_at = at - _LOCATOR64.size - _END64.size
    file.seek(record_at)
    mark, _, _, _, _, _, _, count, length, offset = _END64.unpack(file.read(_END64.size))
    if mark != b"PK\x06\x06":
        raise IngestError(str(path), "zip64 directory record is missing", "damaged", record_at)
    return record_at, count, length, offset


def _entries(raw: bytes, count: int, base: int, path: Path, first: int) -> list[Member]:
    members, at = [], 0
    for _ in range(count):
        if at + _ENTRY.size > len(raw) or raw[at : at + 4] != b"PK\x01\x02":
            raise IngestError(str(path), "zip directory is cut short or overwritten", "damaged", first + at)
        fields = _ENTRY.unpack_from(raw, at)
        name_length, extra_length, comment_length = fields[10:13]
        name_at = at + _ENTRY.size
        extra_at = name_at + name_length
        at = extra_at + extra_length + comment_length
        name = raw[name_at:extra_at].decode("utf-8", "replace")
        members.append(_entry(fields, name, raw[extra_at : extra_at + extra_length], base))
    return members


def _entry(fields: tuple[int, ...], name: str, extra: bytes, base: int) -> Member:
    flags, method, crc = fields[3], fields[4], fields[7]
    size, packed, header = _zip64(extra, [fields[9], fields[8], fields[16]])
    return Member(name, method, bool(flags & 1), packed, size, crc, base + header)


def _zip64(extra: bytes, values: list[int]) -> list[int]:
    """Replaces the saturated ones of size, compressed size and offset by their 64-bit values."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            return [next(wide, value) if value == 0xFFFFFFFF else value for value in values]
        at += 4 + length
    return values


def _checked(members: list[Member], path: Path, directory: int) -> list[Member]:
    """The members with their ends; refuses overlaps, doubled names and impossible sizes."""
    if len({m.name for m in members}) < len(members):
        raise IngestError(str(path), "zip archive with two members of one name", "unsafe")
    ordered = sorted(members, key=lambda m: m.header)
    ends = [m.header for m in ordered[1:]] + [directory]
    return [_bounded(member, end, path) for member, end in zip(ordered, ends, strict=True)]


def _bounded(member: Member, end: int, path: Path) -> Member:
    if member.header + 30 + member.packed > end:
        message = f"zip member {member.name!r} overlaps the next one"
        raise IngestError(str(path), message, "unsafe", member.header)
    impossible = (
        member.packed != member.size if member.method == _STORED else member.size > member.packed * MAX_RATIO
    )
    if impossible and member.size:
        message = f"zip member {member.name!r} claims {member.size} bytes from {member.packed}"
        raise IngestError(str(path), message, "unsafe", member.header)
    return replace(member, end=end)
