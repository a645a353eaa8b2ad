"""The directory of a zip archive, read without extracting anything.

Sizes, offsets and names are claims of the file: each is checked before it is believed. Layout
after PKWARE's APPNOTE 6.3.10, sections 4.3.7 to 4.3.16.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from analyzer.checkpoints.regions import Reader, Region
from analyzer.errors import IngestError
from analyzer.model import Problem

MAX_MEMBERS = 200_000
MAX_RATIO = 1_100  # deflate cannot do better than 1032 to 1
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_DESCRIPTOR = struct.Struct("<4s3L")
_DESCRIPTOR64 = struct.Struct("<4sL2Q")
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


def read_or_recover(path: Path) -> tuple[dict[str, Member], Problem | None]:
    """The members; of an archive that was cut off, those its local headers tell of, and a Problem."""
    try:
        return read_directory(path), None
    except IngestError as error:
        if error.kind != "truncated":
            raise
        members = {m.name: m for m in _recovered(path)}
        if not members:
            raise
        at = error.offset
    message = f"the archive was cut off at byte {at}: what lies before was recovered ({len(members)} of its members)"
    return members, Problem(str(path), "truncated", message, at)


def _recovered(path: Path) -> Iterator[Member]:
    """Whole members, one after another from the start of the file, without a directory.

    A member's size is in its local header or, with flag bit 3 (as torch writes), in a descriptor
    behind its data: the first one that tells just the distance to itself.
    """
    with path.open("rb") as file:
        end, at = file.seek(0, os.SEEK_END), 0
        for _ in range(MAX_MEMBERS):
            file.seek(at)
            fields = file.read(_LOCAL.size)
            if len(fields) < _LOCAL.size or fields[:4] != b"PK\x03\x04":
                return
            _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(fields)
            name = file.read(name_length).decode("utf-8", "replace")
            size, packed = _zip64(file.read(extra_length), [size, packed])
            data = at + _LOCAL.size + name_length + extra_length
            behind = data + packed
            if flags & 8:
                found = _descriptor(file, data, end)
                if found is None:
                    return
                crc, packed, size, behind = found
            if behind > end or (method == _STORED and packed != size) or size > packed * MAX_RATIO:
                return
            yield Member(name, method, bool(flags & 1), packed, size, crc, at, behind)
            at = behind


def _descriptor(file: BinaryIO, start: int, end: int) -> tuple[int, int, int, int] | None:
    """Checksum, compressed size and size of the member at ``start``, and the end of its descriptor."""
    at, tail = start, b""
    file.seek(start)
    while chunk := file.read(1 << 20):
        window, base = tail + chunk, at - len(tail)
        at += len(chunk)
        found = window.find(b"PK\x07\x08")
        while found >= 0 and (at >= end or found + _DESCRIPTOR64.size <= len(window)):
            for layout in (_DESCRIPTOR64, _DESCRIPTOR):
                if found + layout.size <= len(window):
                    _, crc, packed, size = layout.unpack_from(window, found)
                    if packed == base + found - start:
                        return crc, packed, size, base + found + layout.size
            found = window.find(b"PK\x07\x08", found + 1)
        tail = window[-_DESCRIPTOR64.size :]
    return None


def member_region(path: Path, member: Member) -> Region:
    """Where a member's content is. Raises IngestError when it cannot be read."""
    if member.encrypted or member.method not in (_STORED, _DEFLATED):
        how = "encrypted" if member.encrypted else f"compressed by method {member.method}"
        raise IngestError(str(path), f"zip member {member.name!r} is {how}", "unsupported", member.header)
    packed = -1 if member.method == _STORED else member.packed
    return Region(str(path), member.header, member.size, member.end, header=True, packed=packed)


def nested_directory(path: Path, member: Member) -> tuple[int, dict[str, Member]]:
    """Where an archive stored within the archive begins, and its members, read in place."""
    region = member_region(path, member)
    if region.packed >= 0:
        message = f"{member.name[-60:]!r} is compressed within the archive, cannot be read in place"
        raise IngestError(str(path), message, "unsupported", member.header)
    with Reader(region) as reader:
        start = reader.start
    return start, read_directory(path, start, region.size)


def first_name(head: bytes) -> str:
    """The name of the archive's first member, from the first bytes of the file; "" where it is none."""
    if not head.startswith(b"PK\x03\x04") or len(head) < _LOCAL.size:
        return ""
    length = int.from_bytes(head[26:28], "little")
    return head[_LOCAL.size : _LOCAL.size + length].decode("utf-8", "replace")


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
