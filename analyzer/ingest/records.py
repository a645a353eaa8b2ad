"""TFRecord framing: finding the records of a file and verifying their checksums.

A record is ``length`` (uint64), masked CRC32C of those 8 bytes, ``length`` bytes of payload, masked
CRC32C of the payload, all little-endian.
Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from io import FileIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from analyzer.ingest import crc32c
from analyzer.ingest.crc32c import Bytes, Crcs, Ints, Words, items

if TYPE_CHECKING:
    from numpy.typing import NDArray

Number = TypeVar("Number", np.uint32, np.uint64, np.float32, np.float64)

HEADER = 12
FOOTER = 4
OVERHEAD = HEADER + FOOTER

WINDOW = 1 << 22  # bytes read at a time
MARGIN = 256  # unused bytes around a window, so that rows and blocks may be taken beyond its ends
SHORT = 256  # bytes: records below it are found together
FEW = 64  # records that are followed one by one to learn of what kind they are
FIRST_LOOK = 1 << 9  # periods that must repeat before all of a window is compared
BRIEF = 512  # records: a run below it is sooner read as records in any order
PATIENCE = 3  # brief runs in a window before runs are no longer looked for
STRIDED = 256  # periods from which on columns are sooner taken by stride
PIECE = 1 << 21  # bytes verified at a time, to stay in the processor's cache


class Run(NamedTuple):
    """Periods of records of these ``lengths``; the first header lies at ``start`` of the window."""

    start: int
    periods: int
    lengths: tuple[int, ...]
    size: int  # bytes of a period


class Window(NamedTuple):
    """Verified records: those of the ``runs``, and others at ``starts`` in order of the file.

    Payload i of the others is ``data[starts[i] : starts[i] + lengths[i]]``; ``base`` is the offset in
    the file, of ``size`` bytes, of ``data[0]``. ``data`` is overwritten by the next window, has ``MARGIN``
    spare bytes at both ends, and checksums in it may have been replaced.
    """

    data: Bytes
    base: int
    size: int
    runs: tuple[Run, ...]
    starts: Ints
    lengths: Ints


class Damage:
    """What a file lost: how often, where first (bytes from its start) and how much (bytes)."""

    def __init__(self) -> None:
        self.checksums = self.checksum_offset = self.checksum_bytes = 0
        self.gaps = self.gap_offset = self.gap_bytes = 0
        self.cut_offset: int | None = None
        self.cut_bytes = self.size = self.records = 0


@lru_cache(4096)
def header_length(header: bytes) -> int:
    """The payload's length if these 12 bytes are a record's header, else -1."""
    if len(header) < HEADER or header[8:] != _checksum(header[:8]):
        return -1
    return int.from_bytes(header[:8], "little")


@lru_cache(1 << 14)
def header(length: int) -> bytes:
    """The 12 bytes before a payload of so many bytes."""
    first = length.to_bytes(8, "little")
    return first + _checksum(first)


def _checksum(data: bytes) -> bytes:
    return crc32c.masked(crc32c.crc32c(data)).to_bytes(FOOTER, "little")


def spread(run: Run) -> tuple[Ints, Ints]:
    """Starts and lengths of the payloads of a run."""
    lengths = np.array(run.lengths, np.int64)
    starts = run.start + HEADER + np.cumsum(lengths + OVERHEAD) - lengths - OVERHEAD
    all_starts = starts + run.size * np.arange(run.periods)[:, None]
    return all_starts.reshape(-1), np.tile(lengths, run.periods)


def merged(parts: Iterable[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Starts and lengths of several lists of records, in order of the file."""
    none = np.zeros(0, np.int64)
    starts, lengths = map(np.concatenate, zip((none, none), *parts, strict=True))
    order = np.argsort(starts, kind="stable")
    return starts[order], lengths[order]


# --------------------------------------------------------------------------- framing


class _Frames:
    """Where the records of one window lie, and where reading has to go on."""

    def __init__(
        self,
        data: Bytes,
        position: int,
        high: int,
        final: bool,  # nothing comes behind ``high``
        known: dict[bytes, int],
        period: tuple[int, ...],  # lengths of the records of the last run
    ):
        self.data, self.position, self.high, self.final = data, position, high, final
        self.known, self.period = known, period
        self.runs: list[Run] = []
        self.starts: list[Ints] = []
        self.lengths: list[Ints] = []
        self.brief = 0  # runs that were hardly worth it
        self.ended = False  # the next record is not in memory whole, or
        self.broken = False  # has no valid header


def _follow(frames: _Frames) -> None:
    """Follow the records to the last that is in memory whole."""
    _go_on(frames)
    while not frames.ended:
        if frames.brief >= PATIENCE:
            _follow_short(frames)
            return
        _walk(frames, FEW)
        sizes = frames.lengths[-1]
        if frames.ended or int(sizes.sum()) > FEW * SHORT:
            continue
        if _start_run(frames):
            _go_on(frames)
        else:
            frames.brief += 1


def _start_run(frames: _Frames) -> bool:
    """Where the records just walked repeat, make a run of them."""
    starts, sizes = frames.starts[-1], frames.lengths[-1].tolist()
    period = _period(frames.data, starts.tolist(), sizes)
    if not period:
        return False
    most = len(sizes) - period
    back = period + next((k for k in range(most) if sizes[-1 - k] != sizes[-1 - k - period]), most)
    first = len(sizes) - back
    frames.position = int(starts[first]) - HEADER
    frames.period = tuple(sizes[first : first + period])
    before = tuple(sizes[max(first - period, 0) : first])
    if before == tuple(size - 2 for size in frames.period):  # step 0 is not written: key and number
        first -= period
        start = int(starts[first]) - HEADER
        frames.runs.append(Run(start, 1, before, frames.position - start))
    frames.starts[-1], frames.lengths[-1] = starts[:first], frames.lengths[-1][:first]
    return True


def _period(data: Bytes, starts: list[int], sizes: list[int]) -> int:
    """After how many records lengths repeat, and what lies between step and value; 0 for never."""
    view = data.data
    inner = [bytes(view[start + 16 : start + size - 4]) for start, size in zip(starts, sizes, strict=True)]
    for seen in (inner, sizes):
        for period in range(1, FEW // 2 + 1):
            if seen[-period:] == seen[-2 * period : -period] and (
                sizes[-period:] == sizes[-2 * period : -period]
            ):
                return period
    return 0


def _go_on(frames: _Frames) -> None:
    """Follow whole periods of the last lengths, and of lengths grown by one: a step of one byte more."""
    lengths = frames.period
    start = frames.position
    if not lengths:
        return
    while True:
        size = sum(lengths) + OVERHEAD * len(lengths)
        room = (frames.high - frames.position) // size
        count = _repeats(frames.data, frames.position, lengths, size, room)
        if count:
            frames.runs.append(Run(frames.position, count, lengths, size))
            frames.period = lengths
            frames.position += count * size
        if count == room and not frames.final:
            frames.ended = True  # the rest of the window begins the next one
            return
        if not count and lengths != frames.period:
            break
        lengths = tuple(length + 1 for length in lengths)
    frames.brief += frames.position - start < BRIEF * SHORT // 4


def _repeats(data: Bytes, at: int, lengths: tuple[int, ...], size: int, most: int) -> int:
    """How many periods, up to ``most``, have the headers of records of these lengths."""
    places, first, last = _header_columns(lengths)
    for limit in {min(most, FIRST_LOOK): 0, most: 0}:
        run = Run(at, limit, lengths, size)
        different = columns(data, run, places, np.uint64) != first
        different |= columns(data, run, places + 4, np.uint64) != last
        if different.any():
            return int(different.any(axis=0).argmax())
    return most


@lru_cache(256)
def _header_columns(lengths: tuple[int, ...]) -> tuple[Ints, Words, Words]:
    """Where the headers of a period lie, and the first and the last eight bytes of each [n, 1]."""
    sizes = np.array(lengths, np.int64) + OVERHEAD
    headers = np.frombuffer(b"".join(map(header, lengths)), np.uint8).reshape(-1, HEADER)
    first, last = headers[:, :8].copy().view(np.uint64), headers[:, 4:].copy().view(np.uint64)
    return np.cumsum(sizes) - sizes, first, last


def column(data: Bytes, run: Run, place: int, dtype: type[Number]) -> NDArray[Number]:
    """The numbers at a place of each period, where they lie."""
    return np.ndarray((run.periods,), dtype, data, run.start + place, (run.size,))


def columns(data: Bytes, run: Run, places: Ints, dtype: type[Number]) -> NDArray[Number]:
    """The numbers at these places of each period [places, periods]."""
    out = np.empty((len(places), run.periods), dtype)
    fill(out, data, run, places, dtype)
    return out


def fill(out: NDArray[Any], data: Bytes, run: Run, places: Ints, dtype: type[Number]) -> None:
    """Write the numbers at these places of each period to ``out`` [places, periods]."""
    if run.periods < STRIDED:
        at = run.start + places[:, None] + run.size * np.arange(run.periods)
        out[:] = items(data, np.dtype(dtype).itemsize)[at].view(dtype)
    else:
        for row, place in zip(out, places.tolist(), strict=True):
            row[:] = column(data, run, place, dtype)


def _walk(frames: _Frames, most: int) -> None:
    """Follow up to ``most`` records one by one."""
    data, high, known, at = frames.data.data, frames.high, frames.known, frames.position
    starts: list[int] = []
    lengths: list[int] = []
    while len(starts) < most:
        found = bytes(data[at : at + HEADER])
        length = known.get(found, -1)
        if length < 0 and at + HEADER <= high:
            length = known[found] = header_length(found)
        if length < 0 or at + OVERHEAD + length > high:
            frames.ended, frames.broken = True, length < 0 and at + HEADER <= high
            break
        starts.append(at + HEADER)
        lengths.append(length)
        at += OVERHEAD + length
    frames.starts.append(np.array(starts, np.int64))
    frames.lengths.append(np.array(lengths, np.int64))
    frames.position = at


def _follow_short(frames: _Frames) -> None:
    """Follow records to the end, finding the short ones together."""
    heads, lengths = _short_headers(frames.data, frames.position, frames.high)
    breaks = np.flatnonzero(heads[:-1] + lengths[:-1] + OVERHEAD != heads[1:])
    while not frames.ended:
        i = int(np.searchsorted(heads, frames.position))
        if i < len(heads) and heads[i] == frames.position:
            j = int(np.searchsorted(breaks, i))
            j = int(breaks[j]) + 1 if j < len(breaks) else len(heads)
            frames.starts.append(heads[i:j] + HEADER)
            frames.lengths.append(lengths[i:j])
            frames.position = int(heads[j - 1] + lengths[j - 1]) + OVERHEAD
        else:
            _walk(frames, 1)


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
    lengths = np.arange(SHORT, dtype=np.uint64)[:, None]
    return crc32c.mask_all(~(crc32c.linear(lengths) ^ crc32c.start_registers(np.full(SHORT, 8))))


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
        registers = crc32c.linear(lengths[:, None]) ^ crc32c.start_registers(np.full(len(at), 8))
        found = at[stored == crc32c.mask_all(~registers)]
        if len(found):
            return int(found[0])
    return None


# --------------------------------------------------------------------------- checksums


def _verified(frames: _Frames, base: int, damage: Damage) -> Window:
    """The records whose payloads fit their checksums; the others are counted."""
    data = frames.data
    runs: list[Run] = []
    torn: list[Run] = []
    for run in frames.runs:
        for piece in _pieces(run):
            (runs if _run_holds(data, piece) else torn).append(piece)
    starts, lengths = merged([*zip(frames.starts, frames.lengths, strict=True), *map(spread, torn)])
    damage.records += len(starts) + sum(run.periods * len(run.lengths) for run in runs)
    bad = _misfits(data, starts, lengths)
    if len(bad):
        _count(starts[bad] + base - HEADER, lengths[bad], damage)
        starts, lengths = np.delete(starts, bad), np.delete(lengths, bad)
    return Window(data, base, damage.size, tuple(runs), starts, lengths)


def _pieces(run: Run) -> Iterator[Run]:
    many = max(1, PIECE // run.size)
    for low in range(0, run.periods, many):
        yield Run(run.start + low * run.size, min(many, run.periods - low), run.lengths, run.size)


def _run_holds(data: Bytes, run: Run) -> bool:
    """Whether all payloads of a run fit their checksums, which then have been replaced."""
    if crc32c.compiled() is None:
        return not len(_unfit(data, *spread(run)))
    ends, links, before = _links(run.lengths)
    stored = columns(data, run, ends, np.uint32)
    _put(data, run, ends, crc32c.linked(stored, links))
    holds = crc32c.leads(data[run.start : run.start + run.periods * run.size], before, before)
    if not holds:
        _put(data, run, ends, stored)
    return holds


def _put(data: Bytes, run: Run, places: Ints, crcs: Crcs) -> None:
    for row, place in zip(crcs, places.tolist(), strict=True):
        column(data, run, place, np.uint32)[:] = row


@lru_cache(256)
def _links(lengths: tuple[int, ...]) -> tuple[Ints, Crcs, int]:
    """Of the records of a period: where the payloads end, what to link their checksums by [n, 1], and
    the register that the first header brings to zero."""
    sizes = np.array(lengths, np.int64)
    links = crc32c.links(sizes, np.array([*map(_link, lengths[1:]), _link(lengths[0])], np.uint32))
    before = crc32c.register_before(header(lengths[0]))
    return np.cumsum(sizes + OVERHEAD) - FOOTER, links[:, None], before


def _link(length: int) -> int:
    """The register that the word before the header of this length takes on to zero."""
    return crc32c.register_before(bytes(FOOTER) + header(length))


def _misfits(data: Bytes, starts: Ints, lengths: Ints) -> Ints:
    """The numbers of the payloads that do not fit their checksums."""
    ends = starts + lengths
    cuts = np.flatnonzero((ends[:-1] + OVERHEAD != starts[1:]) | (np.diff(starts // PIECE) > 0)) + 1
    bounds = [0, *cuts.tolist(), len(starts)]
    found = [np.zeros(0, np.int64)]
    for low, high in pairwise(bounds):
        some = slice(low, high)
        if not _stretch_holds(data, starts[some], lengths[some]):
            found.append(low + _unfit(data, starts[some], lengths[some]))
    return np.concatenate(found)


def fits(data: Bytes, start: int, end: int) -> bool:
    """Whether one payload fits its checksum; there must be compiled code."""
    extend = crc32c.compiled()
    assert extend is not None
    crc = crc32c.masked(extend(0, data[start:end]))
    return crc == int.from_bytes(data[end : end + FOOTER].tobytes(), "little")


def _unfit(data: Bytes, starts: Ints, lengths: Ints) -> Ints:
    """As ``_misfits``, each found out for itself."""
    stored = items(data, FOOTER)[starts + lengths].view(np.uint32)
    return np.flatnonzero(crc32c.checksums(data, starts, lengths) != stored)


def _stretch_holds(data: Bytes, starts: Ints, lengths: Ints) -> bool:
    """Whether adjoining payloads fit their checksums, which then have been replaced.

    False also where it is sooner found out for each on its own.
    """
    count = len(starts)
    if crc32c.compiled() is None or count < FEW or int(lengths.sum()) > count * 4 * SHORT:
        return False
    ends = starts + lengths
    footers = items(data, FOOTER)
    stored = footers[ends]
    footers[ends] = crc32c.linked(stored.view(np.uint32), stretch_links(lengths)).view(f"V{FOOTER}")
    if crc32c.leads(data[int(starts[0]) : int(ends[-1]) + FOOTER], 0, 0):
        return True
    footers[ends] = stored
    return False


def stretch_links(lengths: Ints) -> Crcs:
    """What to link the checksums of adjoining payloads of these lengths by; the last one's to nothing."""
    behind = np.zeros(len(lengths), np.uint32)
    behind[:-1] = _short_links()[np.minimum(lengths[1:], SHORT - 1)]
    for k in (np.flatnonzero(lengths[1:] >= SHORT)).tolist():
        behind[k] = _link(int(lengths[k + 1]))
    return crc32c.links(lengths, behind)


@cache
def _short_links() -> Crcs:
    """``_link`` of each length below ``SHORT``."""
    return np.array([_link(length) for length in range(SHORT)], np.uint32)


def _count(offsets: Ints, lengths: Ints, damage: Damage) -> None:
    """Note records whose checksum does not fit."""
    if not damage.checksums:
        damage.checksum_offset = int(offsets[0])
    damage.checksums += len(offsets)
    damage.checksum_bytes += int((lengths + OVERHEAD).sum())


# --------------------------------------------------------------------------- windows


class _Source:
    """The part of a file that is in memory: ``data[low:high]`` is unread, ``data[0]`` lies at ``base``."""

    def __init__(self, file: FileIO, size: int, window: int, start: int):
        self.file, self.size, self.window = file, size, window
        self.data = np.zeros(2 * MARGIN, np.uint8)
        self.low = self.high = MARGIN
        self.base = start - MARGIN

    def more(self) -> bool:
        """Drop what was read and read on; False at the end of the file."""
        unread = self.high - self.low
        capacity = min(max(self.window, 2 * unread), self.size)
        old = self.data[self.low : self.high]
        if len(self.data) < capacity + 2 * MARGIN:
            self.data = np.empty(capacity + 2 * MARGIN, np.uint8)
        self.data[MARGIN : MARGIN + unread] = old
        self.base += self.low - MARGIN
        self.low, self.high = MARGIN, MARGIN + unread
        room = min(len(self.data) - MARGIN, self.size - self.base)
        got = self.file.readinto(self.data.data[self.high : room])
        self.high += got
        return bool(got)


def read_windows(file: FileIO, damage: Damage, window: int = WINDOW, start: int = 0) -> Iterator[Window]:
    """The records of a file from ``start`` on, some megabytes at a time; what is lost goes to ``damage``."""
    _keep_freed_memory()
    damage.size = file.seek(0, 2)
    if start and start == damage.size:
        return
    file.seek(start)
    source = _Source(file, damage.size, window, start)
    frames = _Frames(source.data, 0, 0, False, {}, ())
    while not frames.final:
        final = not source.more() or source.base + source.high == damage.size
        frames.broken = True
        while frames.broken:
            frames = _Frames(source.data, source.low, source.high, final, frames.known, frames.period)
            _follow(frames)
            if frames.runs or any(map(len, frames.starts)):
                yield _verified(frames, source.base, damage)
            source.low = frames.position
            if frames.broken:
                _pass_gap(source, damage)
    if source.low < source.high:
        damage.cut_offset = source.base + source.low
        damage.cut_bytes = source.high - source.low


@cache
def _keep_freed_memory() -> None:
    """Let what one step frees be there for the next, for the rest of the process.

    The C library gives free memory back from some size on, after which it is new to the process again: a
    page fault for every 4 KB. glibc raises that bound to twice the largest block that was ever freed.
    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    np.empty(2 * WINDOW, np.uint8)


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
