"""TFRecord framing: finding the records of a file and verifying their checksums.

A record is ``length`` (uint64), masked CRC32C of those 8 bytes, ``length`` bytes of payload, masked
CRC32C of the payload, all little-endian.
Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from io import BufferedReader
from pathlib import Path

import numpy as np

from analyzer.ingest.crc32c import (
    Bytes,
    Crcs,
    Ints,
    checksums,
    crc32c,
    items,
    linear,
    mask_all,
    masked,
    start_registers,
)

HEADER = 12
FOOTER = 4
OVERHEAD = HEADER + FOOTER

WINDOW = 1 << 23  # bytes read at a time: so many that copies of them come in large pages
MARGIN = 256  # unused bytes around a window, so that rows and blocks may be taken beyond its ends
SHORT = 256  # bytes: records below it are found together
FEW = 32  # records that are followed one by one to learn of what kind they are
STRETCH = 1 << 12  # records that must repeat before all of a window is compared


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Records whose length checksums hold; the payloads are not verified yet.

    Payload i is ``data[starts[i] : starts[i] + lengths[i]]``; ``base`` is the offset in the file of
    ``data[0]``. ``data`` is overwritten by the next window and has ``MARGIN`` spare bytes at both ends.
    """

    data: Bytes
    base: int
    starts: Ints
    lengths: Ints
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Records ``first`` to ``first + count * period``, whose lengths repeat every ``period`` records."""

    first: int
    count: int
    period: int


@dataclass(slots=True)
class Damage:
    """What a file lost: how often, where first (bytes from its start) and how much (bytes)."""

    checksums: int = 0
    checksum_offset: int = 0
    checksum_bytes: int = 0
    gaps: int = 0
    gap_offset: int = 0
    gap_bytes: int = 0
    cut_offset: int | None = None
    cut_bytes: int = 0
    size: int = 0
    records: int = 0


@dataclass(slots=True)
class _Frames:
    """Where the records of one window lie, and where reading has to go on."""

    starts: list[Ints] = field(default_factory=list)
    lengths: list[Ints] = field(default_factory=list)
    position: int = 0
    count: int = 0
    runs: list[Run] = field(default_factory=list)
    walked: int = 0  # from which of ``lengths`` on no record belongs to a run
    ended: bool = False  # the next record is not in memory whole, or
    broken: bool = False  # has no valid header

    def add(self, starts: Ints, lengths: Ints) -> None:
        self.starts.append(starts)
        self.lengths.append(lengths)
        self.count += len(starts)


@lru_cache(4096)
def header_length(header: bytes) -> int | None:
    """The payload's length if these 12 bytes are a record's header, else None."""
    if len(header) < HEADER or struct.unpack_from("<I", header, 8)[0] != masked(crc32c(header[:8])):
        return None
    return int.from_bytes(header[:8], "little")


def stored_checksums(data: Bytes, starts: Ints, lengths: Ints) -> Crcs:
    """The masked CRC32C that follows each payload."""
    out: Crcs = items(data, 4)[starts + lengths].view(np.uint32)
    return out


def find_header(data: Bytes, low: int, high: int, room: int) -> int | None:
    """The first offset in [low, high) of ``data`` that holds a header of a record that fits.

    ``room`` is the number of bytes of the file from ``data[0]`` on. Empty records are passed over:
    nothing writes them, and a stretch of zero bytes would otherwise cost a checksum per byte.
    """
    step = 1 << 16
    for start in range(low, high, step):
        at = np.arange(start, min(start + step, high, len(data) - HEADER + 1), dtype=np.int64)
        lengths = items(data, 8)[at].view(np.uint64)
        fits = (lengths > 0) & (lengths <= np.maximum(room - OVERHEAD - at, 0).astype(np.uint64))
        at, lengths = at[fits], lengths[fits]
        stored = items(data, 4)[at + 8].view(np.uint32)
        eights = np.full(len(at), 8, np.int64)
        found = at[stored == mask_all(~(linear(lengths, 0) ^ start_registers(eights)))]
        if len(found):
            return int(found[0])
    return None


def _frames(data: Bytes, low: int, high: int, known: dict[bytes, int]) -> _Frames:
    """Follow the records from ``low`` to the last that ends by ``high``."""
    frames = _Frames(position=low)
    while not frames.ended:
        before = frames.count
        _walk(data, high, known, frames, FEW)
        recent = frames.lengths[-1]
        if frames.ended or int(recent.sum()) > FEW * SHORT or _repeat(data, high, frames):
            continue
        if before == 0:
            continue  # a file often begins in another way than it goes on
        _follow_short(data, high, known, frames)
    return frames


def _repeat(data: Bytes, high: int, frames: _Frames) -> bool:
    """Go on as long as the headers repeat the last ones; False if that is not long."""
    recent = np.concatenate(frames.lengths[frames.walked :])
    sizes = recent.tolist()
    period = next((p for p in range(1, FEW // 2 + 1) if sizes[-p:] == sizes[-2 * p : -p]), 0)
    if not period:
        return False
    most = len(sizes) - period
    back = period + next((k for k in range(most) if sizes[-1 - k] != sizes[-1 - k - period]), most)
    ends = np.cumsum(recent[-period:] + OVERHEAD)
    size = int(ends[-1])
    whole, rest = divmod(high - frames.position, size)
    total = whole * period + int(np.searchsorted(ends, rest, "right"))
    places = frames.position + np.concatenate([[0], ends[:-1]])
    count = _alike(data, places.tolist(), size, min(total, STRETCH))
    if count == STRETCH:
        count = _alike(data, places.tolist(), size, total)
    if count < FEW:
        return False
    frames.runs.append(Run(frames.count - back, (back + count) // period, period))
    starts = places + (size * np.arange(-(-count // period)))[:, None] + HEADER
    lengths = np.broadcast_to(recent[-period:], starts.shape)
    frames.add(starts.reshape(-1)[:count], lengths.reshape(-1)[:count])
    frames.walked = len(frames.lengths)
    frames.position = int(starts.reshape(-1)[count - 1] + frames.lengths[-1][-1]) + FOOTER
    return True


def _alike(data: Bytes, places: list[int], size: int, most: int) -> int:
    """How many headers in turn, up to ``most``, equal those a period of ``size`` bytes before them."""
    period = len(places)
    for k, at in enumerate(places):
        count = -(-(most - k) // period)
        if count <= 0:
            break
        lengths = np.ndarray((count + 1,), np.uint64, data, at - size, (size,))
        crcs = np.ndarray((count + 1,), np.uint32, data, at - size + 8, (size,))
        different = (lengths != lengths[0]) | (crcs != crcs[0])
        first = int(different.argmax())
        if first:
            most = min(most, (first - 1) * period + k)
    return most


def _follow_short(data: Bytes, high: int, known: dict[bytes, int], frames: _Frames) -> None:
    """Follow records to the end, finding the short ones together."""
    heads, lengths = _short_headers(data, frames.position, high)
    breaks = np.flatnonzero(heads[:-1] + lengths[:-1] + OVERHEAD != heads[1:])
    while not frames.ended:
        i = int(np.searchsorted(heads, frames.position))
        if i < len(heads) and heads[i] == frames.position:
            j = int(np.searchsorted(breaks, i))
            j = int(breaks[j]) + 1 if j < len(breaks) else len(heads)
            frames.add(heads[i:j] + HEADER, lengths[i:j])
            frames.position = int(heads[j - 1] + lengths[j - 1]) + OVERHEAD
        else:
            _walk(data, high, known, frames, 1)


def _walk(data: Bytes, high: int, known: dict[bytes, int], frames: _Frames, most: int) -> None:
    """Follow up to ``most`` records one by one."""
    starts: list[int] = []
    lengths: list[int] = []
    at = frames.position
    while len(starts) < most:
        header = data[at : min(at + HEADER, high)].tobytes()
        length = known.get(header)
        if length is None:
            length = header_length(header)
            if length is None:
                frames.ended, frames.broken = True, len(header) == HEADER
                break
            known[header] = length
        if at + OVERHEAD + length > high:
            frames.ended = True
            break
        starts.append(at + HEADER)
        lengths.append(length)
        at += OVERHEAD + length
    frames.add(np.array(starts, np.int64), np.array(lengths, np.int64))
    frames.position = at


def _short_headers(data: Bytes, low: int, high: int) -> tuple[Ints, Ints]:
    """Offsets and lengths of everything in [low, high) that has the form of a record below ``SHORT`` bytes.

    Such a header is one byte, seven zeros and a checksum: the first zero word on a multiple of four
    follows its first byte within four bytes.
    """
    words = data[: len(data) // 4 * 4].view(np.uint32)
    zeros = np.flatnonzero(words[low // 4 : high // 4] == 0) + low // 4
    before = words[zeros - 1]
    place = (before >= 1 << 8).astype(np.int64) + (before >= 1 << 16) + (before >= 1 << 24)
    lengths = (before >> (8 * place).astype(np.uint32)).astype(np.int64)
    at = 4 * (zeros - 1) + place
    fits = (lengths > 0) & (at >= low) & (at + OVERHEAD + lengths <= high)
    at, lengths = at[fits], lengths[fits]
    headers = items(data, HEADER)[at].view(np.uint32).reshape(-1, 3)
    good = (headers[:, 0] == lengths) & (headers[:, 1] == 0) & (headers[:, 2] == _short_checksums()[lengths])
    return at[good], lengths[good]


@cache
def _short_checksums() -> Crcs:
    """Masked checksum of each length below ``SHORT``."""
    lengths = np.arange(SHORT, dtype=np.uint64)
    return mask_all(~(linear(lengths, 0) ^ start_registers(np.full(SHORT, 8))))


def verified(window: Window, some: Ints, damage: Damage) -> Ints:
    """Those of the records numbered ``some`` whose payload fits its checksum; the others are counted."""
    if not len(some):
        return some
    starts, lengths = window.starts[some], window.lengths[some]
    good = checksums(window.data, starts, lengths) == stored_checksums(window.data, starts, lengths)
    _count(starts[~good] + window.base - HEADER, lengths[~good], damage)
    out: Ints = some[good]
    return out


def _count(offsets: Ints, lengths: Ints, damage: Damage) -> None:
    """Note records whose checksum does not fit."""
    if len(offsets) and not damage.checksums:
        damage.checksum_offset = int(offsets[0])
    damage.checksums += len(offsets)
    damage.checksum_bytes += int((lengths + OVERHEAD).sum())


@dataclass(slots=True)
class _Source:
    """The part of a file that is in memory: ``data[low:high]`` is unread, ``data[0]`` lies at ``base``."""

    file: BufferedReader
    size: int
    window: int
    data: Bytes
    low: int = MARGIN
    high: int = MARGIN
    base: int = -MARGIN

    def more(self) -> bool:
        """Drop what was read and read on; False at the end of the file."""
        unread = self.high - self.low
        capacity = min(max(self.window, 2 * unread), self.size)
        old = self.data[self.low : self.high]
        if len(self.data) < capacity + 2 * MARGIN:
            self.data = np.zeros(capacity + 2 * MARGIN, np.uint8)
        self.data[MARGIN : MARGIN + unread] = old
        self.base += self.low - MARGIN
        self.low, self.high = MARGIN, MARGIN + unread
        room = min(len(self.data) - MARGIN, self.size - self.base)
        got = self.file.readinto(self.data.data[self.high : room])
        self.high += got
        return bool(got)


def read_windows(path: Path, damage: Damage, window: int = WINDOW) -> Iterator[Window]:
    """The records of a file, some megabytes at a time; what is lost goes to ``damage``."""
    with path.open("rb") as file:
        damage.size = file.seek(0, 2)
        file.seek(0)
        source = _Source(file, damage.size, window, np.zeros(2 * MARGIN, np.uint8))
        known: dict[bytes, int] = {}
        while source.more():
            yield from _readable(source, known, damage)
        if source.low < source.high:
            damage.cut_offset = source.base + source.low
            damage.cut_bytes = source.high - source.low


def _readable(source: _Source, known: dict[bytes, int], damage: Damage) -> Iterator[Window]:
    """The records that are in memory whole."""
    while True:
        frames = _frames(source.data, source.low, source.high, known)
        starts, lengths = np.concatenate(frames.starts), np.concatenate(frames.lengths)
        damage.records += len(starts)
        if len(starts):
            yield Window(source.data, source.base, starts, lengths, tuple(frames.runs))
        source.low = frames.position
        if not frames.broken:
            return
        _pass_gap(source, damage)


def _pass_gap(source: _Source, damage: Damage) -> None:
    """Go on to the next header that can be one, or to the end of the file."""
    start = source.base + source.low
    source.low += 1
    while True:
        last = source.high - HEADER + 1
        found = find_header(source.data[: source.high], source.low, last, damage.size - source.base)
        source.low = max(source.low, last) if found is None else found
        if found is not None:
            break
        if not source.more():
            source.low = source.high
            break
    if not damage.gaps:
        damage.gap_offset = start
    damage.gaps += 1
    damage.gap_bytes += source.base + source.low - start
