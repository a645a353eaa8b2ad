"""Scalar events in columns: the fast way for the regular records that make up nearly every log.

Records of one tag differ in three places alone: wall time, step and value. All records whose other
bytes are equal form a class; one of them is parsed as a message, and the rest follow by position.
CRC32C is linear, so a record's checksum is that of its class's blank (the three places zeroed)
combined with the registers of the three places. Whatever does not fit, in form or in checksum, is
left to be read one by one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from analyzer.ingest import crc32c, events, records, tensors, wire
from analyzer.ingest.event_log import Log, Points, taken
from analyzer.ingest.tensors import widened
from analyzer.model import IntArray

SHORTEST = 24  # bytes: shorter records have no tag
WIDTHS = (64, 128, 256)  # records are taken in rows of these many bytes
ROWS = 1 << 13  # rows handled at a time, to stay in the processor's cache
FEWEST = 12  # records: fewer are sooner read one by one
MOST_STEP_BYTES = 6  # longer steps, negative ones among them, are read one by one
WALL_AT, STEP_AT, STEP_END = 1, 10, 18  # where wall time and step lie; end of a word at the step
VALUE_BYTES = 4
RUN_BYTES = 1 << 19  # bytes of a run handled at a time
LITTLE_PERIOD = 96  # bytes: a period up to it is compared word by word
TILE_BYTES = 1 << 11  # bytes compared in one go

Words = NDArray[np.uint64]
Number = TypeVar("Number", np.uint32, np.uint64)

# the low seven bits of each byte of a step of so many bytes
STEP_MASKS = np.array([(1 << (8 * k)) - 1 & 0x7F7F7F7F7F7F7F7F for k in range(8)], np.uint64)


class Layout(NamedTuple):
    """What the records of a class have in common; ``value_at`` counts from the payload's start."""

    tag: bytes
    is_tensor: bool
    plugin: str
    value_at: int
    checksum: int


class _Rows(NamedTuple):
    """Records of similar length; ``shapes`` numbers the pairs of length and step size among them."""

    data: crc32c.Bytes
    starts: IntArray
    lengths: IntArray
    step_bytes: IntArray
    words: Words  # [n, width / 8]
    shapes: IntArray
    examples: IntArray  # of each shape, the first record


def take(window: records.Window, log: Log) -> IntArray:
    """Add the regular records of the window to the log; the numbers of the others."""
    free = np.ones(len(window.starts), np.bool_)
    for run in window.runs:
        free[run.first : run.first + run.count * run.period] = False
        free[_take_run(window, run, log)] = True
    rest = np.flatnonzero(free)
    if len(rest) < FEWEST:
        return rest
    lengths = window.lengths[rest]
    left = [rest[(lengths < SHORTEST) | (lengths > WIDTHS[-1])]]
    shortest = SHORTEST
    for width in WIDTHS:
        some = rest[(lengths >= shortest) & (lengths <= width)]
        for low in range(0, len(some), ROWS):
            left.append(_take_rows(window, some[low : low + ROWS], width, log))
        shortest = width + 1
    return np.sort(np.concatenate(left))


# --------------------------------------------------------------------------- runs of equal periods


class _Period(NamedTuple):
    """A period of records: its bytes, which of them are shared, and what each record holds."""

    size: int
    places: IntArray  # of the payloads, from the start of the period
    lengths: IntArray
    value_at: IntArray
    row: crc32c.Bytes
    mask: crc32c.Bytes
    layouts: list[Layout]
    kept: IntArray  # bytes of each record's step


def _take_run(window: records.Window, run: records.Run, log: Log) -> IntArray:
    """Add a run of records that repeat in all but wall times, steps and values; those that do not."""
    period = _period(window, run)
    if period is None:
        return np.arange(run.first, run.first + run.count * run.period)
    start = int(window.starts[run.first]) - records.HEADER
    many = max(1, RUN_BYTES // period.size)
    left = [np.zeros(0, np.int64)]
    for low in range(0, run.count, many):
        count = min(many, run.count - low)
        points, good = _points_of_run(window, period, start + low * period.size, count)
        if good is None:
            log.rows.append(([_number(found, log) for found in period.layouts], points))
            continue
        of = np.repeat(np.arange(run.period), count)[good.reshape(-1)]
        if len(of):
            layouts: list[Layout | None] = [*period.layouts]
            log.mixed.append((_numbers(layouts, of, log), taken(points, good)))
        left.append(run.first + low * run.period + np.flatnonzero(~good.T))
    return np.concatenate(left)


def _period(window: records.Window, run: records.Run) -> _Period | None:
    """The first period of a run, None if one of its records is not a scalar."""
    some = slice(run.first, run.first + run.period)
    starts, lengths = window.starts[some], window.lengths[some]
    start, size = int(starts[0]) - records.HEADER, int((lengths + records.OVERHEAD).sum())
    row = window.data[start : start + size].copy()
    mask = np.full(size, 0xFF, np.uint8)
    layouts, kept = [], []
    for at, length in zip((starts - start).tolist(), lengths.tolist(), strict=True):
        if not SHORTEST <= length <= WIDTHS[-1]:
            return None
        payload = row[at : at + length].tobytes()
        steps = _step_size(payload)
        value_at = _value_place(payload, steps)
        blank = _blank(payload, steps, value_at)
        found = layout(blank) if value_at else None
        if found is None or found.value_at != value_at:
            return None
        layouts.append(found)
        kept.append(steps)
        mask[at : at + length] = _mask(length, steps, value_at)
        mask[at + length : at + length + records.FOOTER] = 0
    value_places = np.array([found.value_at for found in layouts], np.int64)
    return _Period(size, starts - start, lengths, value_places, row & mask, mask, layouts, np.array(kept))


def _points_of_run(
    window: records.Window, period: _Period, start: int, count: int
) -> tuple[Points, NDArray[np.bool_] | None]:
    """Columns [records of a period, count], and which of them hold; None for all."""
    data, size = window.data, period.size
    shared = _shared(data, start, count, period)
    payloads = period.places + start
    walls = _strided(data, payloads + WALL_AT, size, count, np.uint64)
    steps = _strided(data, payloads + STEP_AT, size, count, np.uint64) & STEP_MASKS[period.kept][:, None]
    values = _strided(data, payloads + period.value_at, size, count, np.uint32)
    stored = _strided(data, payloads + period.lengths, size, count, np.uint32)
    kinds = np.repeat(np.arange(len(payloads)), count)
    places = _Places(period.lengths, period.value_at)
    flat = _registers(places, kinds, walls.reshape(-1), steps.reshape(-1), values.reshape(-1))
    blank = np.array([found.checksum for found in period.layouts], np.uint32)
    good = crc32c.mask_all(flat.reshape(stored.shape) ^ blank[:, None]) == stored
    if shared is not None:
        good &= shared
    points = Points(
        payloads[:, None] + (size * np.arange(count) + window.base),
        _packed_steps(steps).astype(np.float64),
        walls.view(np.float64),
        widened(values.view(np.float32)),
    )
    return points, None if good.all() else good


def _shared(data: crc32c.Bytes, start: int, count: int, period: _Period) -> NDArray[np.bool_] | None:
    """Which of ``count`` periods from ``start`` on equal the first in what they share; None for all."""
    size = period.size
    if size <= LITTLE_PERIOD:  # word by word: each is a column
        words = -(-size // 8)
        columns = np.ndarray((words, count), np.uint64, data, start, (8, size))
        ends = np.zeros((2, 8 * words), np.uint8)
        ends[:, :size] = period.row, period.mask
        row, mask = ends.view(np.uint64)
        different = np.zeros(count, np.uint64)
        for k in np.flatnonzero(mask).tolist():
            column = columns[k] ^ row[k]
            column &= mask[k]
            different |= column
        return None if not different.any() else different == 0
    many = max(1, TILE_BYTES // size)
    region = data[start : start + count * size]
    whole = count // many * many * size
    out = []
    for part, times in ((region[:whole], many), (region[whole:], 1)):
        rows = part.reshape(-1, times * size) ^ np.tile(period.row, times)
        rows &= np.tile(period.mask, times)
        out.append(rows.reshape(-1, size))
    if not any(rows.any() for rows in out):
        return None
    return ~np.concatenate([rows.any(axis=1) for rows in out])


def _strided(
    data: crc32c.Bytes, offsets: IntArray, stride: int, count: int, dtype: type[Number]
) -> NDArray[Number]:
    """Columns [offsets, count] of the numbers that lie ``stride`` bytes apart from each offset on."""
    out = np.empty((len(offsets), count), dtype)
    for k, offset in enumerate(offsets.tolist()):
        out[k] = np.ndarray((count,), dtype, data, offset, (stride,))
    return out


# --------------------------------------------------------------------------- records in any order


def _take_rows(window: records.Window, some: IntArray, width: int, log: Log) -> IntArray:
    if len(some) < FEWEST:
        return some
    rows = _rows(window, some, width)
    value_at = np.array([_example_place(rows, row) for row in rows.examples.tolist()], np.int64)
    blanks = _blanked(rows, value_at)
    classes, examples = _classes(rows, blanks)
    layouts = [_example_layout(rows, blanks, value_at, row) for row in examples.tolist()]
    valid = np.array([layout is not None for layout in layouts])[classes]
    values = crc32c.items(rows.data, 4)[rows.starts + value_at[rows.shapes]].view(np.uint32)
    walls = crc32c.items(rows.data, 8)[rows.starts + WALL_AT].view(np.uint64)
    steps = crc32c.items(rows.data, 8)[rows.starts + STEP_AT].view(np.uint64) & STEP_MASKS[rows.step_bytes]
    places = _Places(rows.lengths[rows.examples], value_at)
    checksums = np.array([layout.checksum if layout else 0 for layout in layouts], np.uint32)
    crcs = checksums[classes] ^ _registers(places, rows.shapes, walls, steps, values)
    stored = records.stored_checksums(rows.data, rows.starts, rows.lengths)
    good = np.flatnonzero(valid & (crc32c.mask_all(crcs) == stored))
    if not len(good):
        return some
    points = Points(
        rows.starts + window.base,
        _packed_steps(steps).astype(np.float64),
        walls.view(np.float64),
        widened(values.view(np.float32)),
    )
    whole = len(good) == len(some)
    log.mixed.append((_numbers(layouts, classes[good], log), points if whole else taken(points, good)))
    return some[:0] if whole else np.delete(some, good)


def _numbers(layouts: list[Layout | None], classes: IntArray, log: Log) -> IntArray:
    """The number of the tag of each class's layout."""
    numbers = np.zeros(len(layouts), np.int64)
    for k in np.flatnonzero(np.bincount(classes)).tolist():
        found = layouts[k]
        assert found is not None
        numbers[k] = _number(found, log)
    return numbers[classes]


def _number(found: Layout, log: Log) -> int:
    if found.plugin:
        log.plugins.setdefault(found.tag, found.plugin)
    return log.number((found.tag, found.is_tensor))


def _rows(window: records.Window, some: IntArray, width: int) -> _Rows:
    starts, lengths = window.starts[some], window.lengths[some]
    words = crc32c.items(window.data, width)[starts].view(np.uint64).reshape(len(some), width // 8)
    step_bytes = _step_bytes(words.view(np.uint8))
    keys = lengths * 8 + step_bytes
    first = np.empty(8 * WIDTHS[-1] + 8, np.int64)
    first[keys[::-1]] = np.arange(len(keys) - 1, -1, -1)
    present = np.flatnonzero(np.bincount(keys))
    place = np.empty(len(first), np.int64)
    place[present] = np.arange(len(present))
    return _Rows(window.data, starts, lengths, step_bytes, words, place[keys], first[present])


def _step_bytes(payloads: crc32c.Bytes) -> IntArray:
    """Bytes of each record's step: 0 without one, 7 where it is longer than can be taken."""
    more = payloads[:, STEP_AT - 1] == 0x10
    size = np.zeros(len(payloads), np.int64)
    for k in range(MOST_STEP_BYTES + 1):
        size += more
        more = more & (payloads[:, STEP_AT + k] >= 0x80)
        if not more.any():
            break
    return size


def _example_place(rows: _Rows, row: int) -> int:
    payload = rows.words[row].tobytes()[: int(rows.lengths[row])]
    return _value_place(payload, int(rows.step_bytes[row]))


def _blanked(rows: _Rows, value_at: IntArray) -> Words:
    """The records with wall time, step and value zeroed, and nothing behind their end."""
    masks = np.zeros((len(rows.examples), 8 * rows.words.shape[1]), np.uint8)
    for mask, row, at in zip(masks, rows.examples.tolist(), value_at.tolist(), strict=True):
        length = int(rows.lengths[row])
        mask[:length] = _mask(length, int(rows.step_bytes[row]), at)
    wide = masks.view(np.uint64)
    return rows.words & (
        wide[0] if len(wide) == 1 else _items(wide)[rows.shapes].view(np.uint64).reshape(rows.words.shape)
    )


def _classes(rows: _Rows, blanks: Words) -> tuple[IntArray, IntArray]:
    """Number of each record's class, and of each class the example that its records equal."""
    count = len(blanks)
    example = rows.examples[rows.shapes]
    whole = _items(blanks)
    rest = np.flatnonzero(whole != whole[example])
    slots = np.empty(1 << 16, np.int64)
    for turn in range(3):
        if not len(rest):
            break
        keys = crc32c.hashes(blanks[rest], turn)
        slots[keys[::-1]] = rest[::-1]
        other = slots[keys]
        same = (rows.shapes[rest] == rows.shapes[other]) & (whole[rest] == whole[other])
        example[rest[same]] = other[same]
        rest = rest[~same]
    example[rest] = rest
    examples = np.flatnonzero(example == np.arange(count))
    place = np.empty(count, np.int64)
    place[examples] = np.arange(len(examples))
    return place[example], examples


def _items(rows: Words) -> NDArray[np.void]:
    """The rows as single items: compared and copied whole."""
    return rows.view(f"V{8 * rows.shape[1]}")[:, 0]


def _example_layout(rows: _Rows, blanks: Words, value_at: IntArray, row: int) -> Layout | None:
    at = int(value_at[rows.shapes[row]])
    if not at:
        return None
    found = layout(blanks[row].tobytes()[: int(rows.lengths[row])])
    return found if found is not None and found.value_at == at else None


def _step_size(payload: bytes) -> int:
    """Bytes of the step: 0 without one, more than ``MOST_STEP_BYTES`` if it is longer than can be taken."""
    if payload[STEP_AT - 1] != 0x10:
        return 0
    return next((k + 1 for k in range(MOST_STEP_BYTES) if payload[STEP_AT + k] < 0x80), MOST_STEP_BYTES + 1)


def _value_place(payload: bytes, steps: int) -> int:
    """Where the value lies in a record, 0 if it has none; nearly always it comes last."""
    if steps > MOST_STEP_BYTES:
        return 0
    tail = len(payload) - VALUE_BYTES
    guess = layout(_blank(payload, steps, tail))
    if guess is not None and guess.value_at == tail:
        return tail
    found = _parsed(payload)
    return found[3] if found else 0


def _blank(payload: bytes, steps: int, value_at: int) -> bytes:
    """The record with wall time, step and value zeroed."""
    return (np.frombuffer(payload, np.uint8) & _mask(len(payload), steps, value_at)).tobytes()


@lru_cache(4096)
def _mask(length: int, steps: int, value_at: int) -> crc32c.Bytes:
    """Keeps what the records of a class share."""
    mask = np.full(length, 0xFF, np.uint8)
    mask[WALL_AT : WALL_AT + 8] = 0
    mask[STEP_AT : STEP_AT + steps] = 0x80
    mask[value_at : value_at + VALUE_BYTES] = 0
    return mask


@lru_cache(1 << 14)
def layout(blank: bytes) -> Layout | None:
    """The layout of a class, None if its records are not of the regular form."""
    found = _parsed(blank)
    return Layout(*found, crc32c.crc32c(blank)) if found else None


def _parsed(payload: bytes) -> tuple[bytes, bool, str, int] | None:
    """Tag, encoding, plugin and place of the value of an event of one float32 scalar.

    The event must hold wall time, step unless it is 0, and one summary of one value, in that order:
    what every writer does.
    """
    data = memoryview(payload)
    try:
        parts = list(wire.fields(data, 0, len(data)))
        if [p[:2] for p in parts] not in ([(1, 1), (2, 0), (5, 2)], [(1, 1), (5, 2)]):
            return None
        if parts[0].start != WALL_AT or (len(parts) == 3 and parts[1].start != STEP_AT):
            return None  # a field's key may be written in more bytes than it needs
        held = list(wire.fields(data, parts[-1].start, parts[-1].end))
        if [p[:2] for p in held] != [(1, 2)]:
            return None
        inner = [p.number for p in wire.fields(data, held[0].start, held[0].end)]
        if len(set(inner)) < len(inner) or len(set(inner) & events.ONE_OF.keys()) != 1:
            return None
        (value,) = events.event(data, 0, len(data)).values
        at = _value_at(data, value)
    except wire.WireError:
        return None
    return (value.tag, value.kind == events.TENSOR, value.plugin, at) if at else None


def _value_at(data: memoryview, value: events.Value) -> int:
    """Where the float32 of a simple value or of a scalar tensor lies; 0 if it is anything else."""
    if value.body is None or value.plugin not in ("", "scalars"):
        return 0
    if value.kind == events.SIMPLE_VALUE:
        return value.body.start
    if value.kind != events.TENSOR:
        return 0
    tensor = tensors.parse(data, value.body)
    if (tensor.dtype, tensor.count, len(tensor.parts)) != (tensors.FLOAT, 1, 1):
        return 0
    (part,) = tensor.parts
    typed = part.number == tensors.FLOAT_VAL and part.wire in (wire.FIXED32, wire.LENGTH)
    content = (part.number, part.wire) == (tensors.CONTENT, wire.LENGTH)
    return part.start if (typed or content) and part.end - part.start == VALUE_BYTES else 0


def _packed_steps(words: Words) -> Words:
    """The numbers that the varints stand for."""
    out = words & np.uint64(0x7F)
    top = int(words.max(initial=0))
    for k in range(1, (top.bit_length() + 7) // 8):
        out |= ((words >> np.uint64(8 * k)) & np.uint64(0x7F)) << np.uint64(7 * k)
    return out


class _Places(NamedTuple):
    """For each kind of record, its length and where its value lies."""

    lengths: IntArray
    value_at: IntArray


def _registers(
    places: _Places, kinds: IntArray, walls: Words, steps: Words, values: NDArray[np.uint32]
) -> crc32c.Crcs:
    """CRC registers, from zero, of the records with all but wall time, step and value zeroed."""
    crcs = crc32c.linear(walls, STEP_END - WALL_AT - 8) ^ crc32c.linear(steps, 0)
    crcs = crc32c.shift_each(crcs, places.lengths - STEP_END, kinds)
    behind = crc32c.linear(values, 0)
    tails = places.lengths - places.value_at - VALUE_BYTES
    return crcs ^ (crc32c.shift_each(behind, tails, kinds) if tails.any() else behind)
