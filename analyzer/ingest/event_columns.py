"""Scalar events in columns: the fast way for the regular records that make up nearly every log.

Records of one tag differ in three places alone: wall time, step and value. Where a period of records
repeats, the places are columns at equal distances. All other records are sorted into classes that are
equal but for the three places; one of each is parsed as a message, and the rest follow by position.
Whatever does not fit is left to be read one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analyzer.ingest import events, records, tensors, wire
from analyzer.ingest.crc32c import Bytes, Words, items
from analyzer.ingest.event_log import Log, Points, block

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from analyzer.model import FloatArray, IntArray

SHORTEST = 20  # bytes: shorter records hold no scalar
WIDTHS = (64, 128, 256)  # records are taken in rows of these many bytes
ROWS = 1 << 13  # rows handled at a time, to stay in the processor's cache
FEWEST = 64  # records: fewer are sooner read one by one
MOST_STEP_BYTES = 6  # longer steps, negative ones among them, are read one by one
WALL_KEY, STEP_KEY = 0x09, 0x10
WALL_AT, STEP_AT = 1, 10  # where wall time and step lie
VALUE_BYTES = 4
Kind = tuple[int, str, bool]  # width, dtype and encoding of a value
SIMPLE: Kind = (VALUE_BYTES, "<f4", False)
LITTLE_PERIOD = 96  # bytes: a period up to it is compared word by word
TILE_BYTES = 1 << 11  # bytes compared in one go

# the low seven bits of each byte of a step of so many bytes
STEP_MASKS = np.array([(1 << (8 * k)) - 1 & 0x7F7F7F7F7F7F7F7F for k in range(8)], np.uint64)


class Layout(NamedTuple):
    """What a class of records holds; the value of ``width`` bytes lies ``value_at`` bytes behind the step."""

    tag: bytes
    is_tensor: bool
    plugin: str
    value_at: int
    width: int
    dtype: str
    varint: bool


# --------------------------------------------------------------------------- runs of equal periods


class _Period(NamedTuple):
    """A period of records: its bytes, which of them are shared, and what each record holds where."""

    row: Words  # of several periods, so that they make whole words
    mask: Words
    shared: tuple[tuple[int, np.uint64, np.uint64], ...]  # places, masks and words that cover what is shared
    layouts: tuple[Layout, ...]
    walls_at: IntArray
    steps_at: IntArray
    values_at: IntArray
    step_masks: Words  # [n, 1]


# The last period of each kind: the files of a folder mostly have the same. It is always compared in full.
KNOWN: dict[tuple[int, ...], _Period] = {}
MOST_KNOWN = 256


def take_runs(window: records.Window, log: Log) -> tuple[IntArray, IntArray]:
    """Add the regular runs of the window to the log; starts and lengths of all other records."""
    left = [run for run in window.runs if not _take_run(window, run, log)]
    if not left:
        return window.starts, window.lengths
    return records.merged([(window.starts, window.lengths), *map(records.spread, left)])


def _take_run(window: records.Window, run: records.Run, log: Log) -> bool:
    """Add a run of records that repeat in all but wall times, steps and values; False if they do not."""
    data = window.data
    period = KNOWN.get(run.lengths)
    if period is None or not _repeats(data, run, period):
        period = _period_of(data, run)
        if period is None or not _repeats(data, run, period):
            return False
        if len(KNOWN) >= MOST_KNOWN:
            KNOWN.clear()
        KNOWN[run.lengths] = period
    numbers = tuple(number_of(found, log) for found in period.layouts)
    most = (window.size - window.base - run.start) // run.size
    into = block(log, numbers, run.periods, most, window.size // SHORTEST)
    now = slice(into.filled, into.filled + run.periods)
    records.fill(into.wall_times[:, now], data, run, period.walls_at, np.float64)
    varints = records.columns(data, run, period.steps_at, np.uint64)
    varints &= period.step_masks
    into.steps[:, now] = _packed(varints)
    if all(found[-3:] == SIMPLE for found in period.layouts):
        records.fill(into.values[:, now], data, run, period.values_at, np.float32)
    else:
        words = records.columns(data, run, period.values_at, np.uint64)
        for row, raw, found in zip(into.values, words, period.layouts, strict=True):
            row[now] = _decoded(raw, *found[-3:])
    into.runs.append((window.base + run.start, period.walls_at, run.periods, run.size))
    into.filled += run.periods
    return True


def _repeats(data: Bytes, run: records.Run, period: _Period) -> bool:
    """Whether all periods of a run share what they ought to."""
    if run.size <= LITTLE_PERIOD:  # word by word: each is a column
        different = np.zeros(run.periods, np.uint64)
        column = np.empty(run.periods, np.uint64)
        for place, mask, word in period.shared:
            column[:] = records.column(data, run, place, np.uint64)
            column ^= word
            column &= mask
            different |= column
        return not different.any()
    region = data[run.start : run.start + run.periods * run.size]
    whole = len(region) // period.row.nbytes * period.row.nbytes
    rest = len(region) - whole
    tiles = region[:whole].view(np.uint64).reshape(-1, len(period.row)) ^ period.row
    tiles &= period.mask
    last = region[whole:] ^ period.row.view(np.uint8)[:rest]
    last &= period.mask.view(np.uint8)[:rest]
    return not (tiles.any() or last.any())


def _period_of(data: Bytes, run: records.Run) -> _Period | None:
    """The first period of a run, None if one of its records is not a scalar."""
    parts = []
    at = run.start + records.HEADER
    for length in run.lengths:
        payload = data[at : at + length].tobytes()
        at += length + records.OVERHEAD
        found = _layout_of(payload) if length >= SHORTEST else None
        if found is None:
            return None
        steps = _step_size(payload)
        body = payload[_body_at(steps) :]
        parts.append((steps, _blank(body, found), found))
    return _period(tuple(parts))


@lru_cache(256)
def _period(parts: tuple[tuple[int, bytes, Layout], ...]) -> _Period:
    """The period of these records: of each the bytes of its step, the rest with the value zeroed, the layout."""
    row, mask = bytearray(), bytearray()
    walls_at, values_at = [], []
    for steps, body, found in parts:
        at = len(row) + records.HEADER
        walls_at.append(at + WALL_AT)
        values_at.append(at + _body_at(steps) + found.value_at)
        length = _body_at(steps) + len(body)
        row += bytes(records.HEADER) + _opening(steps) + body + bytes(records.FOOTER)
        mask += bytes(records.HEADER) + _mask(length, steps, found).tobytes() + bytes(records.FOOTER)
    times = 8 * max(1, TILE_BYTES // (8 * len(row)))
    row_tile, mask_tile = (np.frombuffer(bytes(part) * times, np.uint64) for part in (row, mask))
    step_bytes, _, layouts = zip(*parts, strict=True)
    walls = np.array(walls_at)
    masks = STEP_MASKS[[*step_bytes]][:, None]
    shared = tuple(_shared_words(row, mask)) if len(row) <= LITTLE_PERIOD else ()
    steps_at, values = walls + STEP_AT - WALL_AT, np.array(values_at)
    return _Period(row_tile, mask_tile, shared, layouts, walls, steps_at, values, masks)


def _shared_words(row: bytearray, mask: bytearray) -> Iterator[tuple[int, np.uint64, np.uint64]]:
    """Place, mask and masked word of as few words as cover the mask."""
    place = 0
    while any(mask[place:]):
        place += next(k for k, byte in enumerate(mask[place:]) if byte)
        words = (bytes(part[place : place + 8]).ljust(8, b"\0") for part in (mask, row))
        mask_word, word = (np.uint64(int.from_bytes(part, "little")) for part in words)
        yield place, mask_word, word & mask_word
        place += 8


def _opening(steps: int) -> bytes:
    """What a record begins with before the rest: wall time and step zeroed."""
    step = bytes([STEP_KEY]) + b"\x80" * (steps - 1) + b"\0" if steps else b""
    return bytes([WALL_KEY]) + bytes(8) + step


# --------------------------------------------------------------------------- records in any order


class Places(NamedTuple):
    """Where records have their numbers, and of which of the ``kinds`` their values are."""

    starts: IntArray  # of the payloads
    values_at: IntArray
    step_masks: Words
    of: IntArray
    kinds: tuple[Kind, ...]

    def some(self, which: Any) -> Places:
        starts, values_at, step_masks, of, kinds = self
        return Places(starts[which], values_at[which], step_masks[which], of[which], kinds)


class _Rows(NamedTuple):
    """Records of similar length; ``shapes`` numbers the pairs of length and step size among them."""

    starts: IntArray
    lengths: IntArray
    step_bytes: IntArray
    words: Words  # [n, width / 8]
    shapes: IntArray
    examples: IntArray  # of each shape, the first record


class Sorted(NamedTuple):
    """Records in classes that are equal but for the three places; a class without a layout holds no scalars."""

    step_bytes: IntArray
    classes: IntArray  # the number of each one's class
    layouts: list[Layout | None]  # of each class


def take(window: records.Window, starts: IntArray, lengths: IntArray, log: Log) -> tuple[IntArray, IntArray]:
    """Add the scalars among these records to the log; starts and lengths of the others."""
    if len(starts) < FEWEST:
        return starts, lengths
    is_scalar = np.zeros(len(starts), np.bool_)
    for part, width in _by_width(lengths):
        if len(part) >= FEWEST:
            is_scalar[part] = _take_rows(window, starts[part], lengths[part], width, log)
    others = np.flatnonzero(~is_scalar)
    return starts[others], lengths[others]


def _by_width(lengths: IntArray) -> Iterator[tuple[IntArray, int]]:
    """The numbers of records that may be scalars, each time of similar length, and their width in rows."""
    shortest = SHORTEST
    for width in WIDTHS:
        some = np.flatnonzero((lengths >= shortest) & (lengths <= width))
        for low in range(0, len(some), ROWS):
            yield some[low : low + ROWS], width
        shortest = width + 1


def _take_rows(
    window: records.Window, starts: IntArray, lengths: IntArray, width: int, log: Log
) -> NDArray[np.bool_]:
    """Add those records that are scalars to the log; which they are."""
    found = _sorted(window, starts, lengths, width)
    good = np.array([layout is not None for layout in found.layouts])[found.classes]
    some = np.flatnonzero(good)
    if len(some):
        classes = found.classes[some]
        numbers = _numbers(found.layouts, classes, log)
        where = places(starts[some], found.step_bytes[some], classes, found.layouts)
        log.mixed.append((numbers, points(window.data, where, window.base)))
    return good


def sort_all(window: records.Window, starts: IntArray, lengths: IntArray) -> Sorted:
    """All these records in classes, however few are alike."""
    step_bytes, classes = np.zeros((2, len(starts)), np.int64)
    found = Sorted(step_bytes, classes, [None])
    for part, width in _by_width(lengths):
        some = _sorted(window, starts[part], lengths[part], width)
        found.step_bytes[part] = some.step_bytes
        found.classes[part] = some.classes + len(found.layouts)
        found.layouts.extend(some.layouts)
    return found


def _sorted(window: records.Window, starts: IntArray, lengths: IntArray, width: int) -> Sorted:
    rows = _rows(window.data, starts, lengths, width)
    shapes = [_example_layout(rows, rows.words, row) for row in rows.examples.tolist()]
    blanks = _blanked(rows, shapes)
    classes, examples = _classes(rows, blanks)
    layouts = [_example_layout(rows, blanks, row) for row in examples.tolist()]
    for k, shape in enumerate(rows.shapes[examples].tolist()):
        if not _same_place(layouts[k], shapes[shape]):
            layouts[k] = None
    return Sorted(rows.step_bytes, classes, layouts)


def places(
    starts: IntArray, step_bytes: IntArray, classes: IntArray, layouts: Sequence[Layout | None]
) -> Places:
    """The places of records whose classes have these layouts."""
    values_at = np.array([layout.value_at if layout else 0 for layout in layouts])[classes]
    kinds = tuple(dict.fromkeys(layout[-3:] for layout in layouts if layout))
    of = np.array([kinds.index(layout[-3:]) if layout else 0 for layout in layouts])[classes]
    return Places(starts, starts + _body_at(step_bytes) + values_at, STEP_MASKS[step_bytes], of, kinds)


def points(data: Bytes, where: Places, base: int) -> Points:
    """The points at these places; ``base`` is the offset of ``data`` in the file."""
    found = steps(data, where), wall_times(data, where), values(data, where)
    return Points(where.starts + base, *found)


def steps(data: Bytes, where: Places) -> FloatArray:
    varints = items(data, 8)[where.starts + STEP_AT].view(np.uint64) & where.step_masks
    return _packed(varints).astype(np.float64)


def wall_times(data: Bytes, where: Places) -> FloatArray:
    found: FloatArray = items(data, 8)[where.starts + WALL_AT].view(np.float64)
    return found


def values(data: Bytes, where: Places) -> FloatArray:
    raw = items(data, 8)[where.values_at].view(np.uint64)
    found = np.empty(len(raw))
    for k, kind in enumerate(where.kinds):
        these = slice(None) if len(where.kinds) == 1 else where.of == k
        found[these] = _decoded(raw[these], *kind)
    return found


def _same_place(one: Layout | None, other: Layout | None) -> bool:
    return one is not None and other is not None and one[-4:] == other[-4:]


def _numbers(layouts: list[Layout | None], classes: IntArray, log: Log) -> IntArray:
    """The number of the tag of each class's layout."""
    numbers = np.zeros(len(layouts), np.int64)
    for k in np.flatnonzero(np.bincount(classes)).tolist():
        found = layouts[k]
        assert found is not None
        numbers[k] = number_of(found, log)
    return numbers[classes]


def number_of(found: Layout, log: Log) -> int:
    if found.plugin:
        log.plugins.setdefault(found.tag, found.plugin)
    return log.number((found.tag, found.is_tensor))


def _rows(data: Bytes, starts: IntArray, lengths: IntArray, width: int) -> _Rows:
    words = items(data, width)[starts].view(np.uint64).reshape(len(starts), width // 8)
    step_bytes = _step_bytes(words.view(np.uint8))
    keys = lengths * 8 + step_bytes
    first = np.empty(8 * WIDTHS[-1] + 8, np.int64)
    first[keys[::-1]] = np.arange(len(keys) - 1, -1, -1)
    present = np.flatnonzero(np.bincount(keys))
    place = np.empty(len(first), np.int64)
    place[present] = np.arange(len(present))
    return _Rows(starts, lengths, step_bytes, words, place[keys], first[present])


def _step_bytes(payloads: Bytes) -> IntArray:
    """Bytes of each record's step: 0 without one, 7 where it is longer than can be taken."""
    more = payloads[:, STEP_AT - 1] == STEP_KEY
    size = np.zeros(len(payloads), np.int64)
    for k in range(MOST_STEP_BYTES + 1):
        size += more
        more = more & (payloads[:, STEP_AT + k] >= 0x80)
        if not more.any():
            break
    return size


def _example_layout(rows: _Rows, words: Words, row: int) -> Layout | None:
    return _layout_of(words[row].tobytes()[: int(rows.lengths[row])])


def _blanked(rows: _Rows, shapes: list[Layout | None]) -> Words:
    """The records with wall time, step and value zeroed, and nothing behind their end."""
    masks = np.zeros((len(shapes), 8 * rows.words.shape[1]), np.uint8)
    for mask, row, found in zip(masks, rows.examples.tolist(), shapes, strict=True):
        length = int(rows.lengths[row])
        mask[:length] = _mask(length, int(rows.step_bytes[row]), found) if found else 0
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
        keys = _hashes(blanks[rest], turn)
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


def _hashes(words: Words, turn: int) -> IntArray:
    """A number of 16 bits for each row of ``words``; other numbers at another ``turn``."""
    powers = np.arange(1, words.shape[1] + 1, dtype=np.uint64) + np.uint64(100 * turn)
    mixed = words @ ((powers * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1))
    mixed ^= mixed >> np.uint64(29)
    return ((mixed * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(48)).view(np.int64)


def _items(rows: Words) -> NDArray[np.void]:
    """The rows as single items: compared and copied whole."""
    return rows.view(f"V{8 * rows.shape[1]}")[:, 0]


# --------------------------------------------------------------------------- single records


def take_one(data: memoryview, start: int, end: int, base: int, log: Log) -> bool:
    """Add a record to the log if it is a scalar of four bytes at its end, as nearly all are."""
    payload = bytes(data[start : min(end, start + WIDTHS[-1] + 1)])
    steps = _step_size(payload)
    if steps > MOST_STEP_BYTES or not SHORTEST <= len(payload) <= WIDTHS[-1]:
        return False
    found = _layout_by_head(payload[_body_at(steps) : -VALUE_BYTES])
    if found is None or payload[0] != WALL_KEY:
        return False
    step = 0
    for k in range(steps):
        step |= (payload[STEP_AT + k] & 0x7F) << (7 * k)
    (wall_time,) = struct.unpack_from("<d", payload, WALL_AT)
    (value,) = struct.unpack_from("<f", payload, len(payload) - VALUE_BYTES)
    log.single.append((number_of(found, log), base + start, float(step), wall_time, value))
    return True


# --------------------------------------------------------------------------- layouts


def _step_size(payload: bytes) -> int:
    """Bytes of the step: 0 without one, more than ``MOST_STEP_BYTES`` if it is longer than can be taken."""
    if payload[STEP_AT - 1 : STEP_AT] != bytes([STEP_KEY]):
        return 0
    steps = payload[STEP_AT : STEP_AT + MOST_STEP_BYTES]
    return next((k + 1 for k, byte in enumerate(steps) if byte < 0x80), MOST_STEP_BYTES + 1)


def _body_at(steps: Any) -> Any:
    """Where what follows a step of so many bytes begins; without one there is no key of it either."""
    return STEP_AT + steps - (steps == 0)


def _layout_of(payload: bytes) -> Layout | None:
    """The layout of a record's class, None if its records are not of the regular form."""
    steps = _step_size(payload)
    if steps > MOST_STEP_BYTES or payload[0] != WALL_KEY:
        return None
    body = payload[_body_at(steps) :]
    found = _layout_by_head(body[:-VALUE_BYTES])
    if found is None:
        found = _parsed(body)
        if found is not None and _parsed(_blank(body, found)) != found:
            return None
    return found


@lru_cache(1 << 14)
def _layout_by_head(head: bytes) -> Layout | None:
    """The layout of all records that end in a float of four bytes behind ``head``."""
    found = _parsed(head + bytes(VALUE_BYTES))
    return found if found is not None and found[-4:] == (len(head), *SIMPLE) else None


def _blank(body: bytes, found: Layout) -> bytes:
    """What is behind the step, with the value zeroed."""
    value = body[found.value_at : found.value_at + found.width]
    zeroed = bytes(byte & 0x80 for byte in value) if found.varint else bytes(found.width)
    return body[: found.value_at] + zeroed + body[found.value_at + found.width :]


@lru_cache(4096)
def _mask(length: int, steps: int, found: Layout) -> Bytes:
    """Keeps what the records of a class share."""
    mask = np.full(length, 0xFF, np.uint8)
    mask[WALL_AT : WALL_AT + 8] = 0
    mask[STEP_AT : STEP_AT + steps] = 0x80
    at = _body_at(steps) + found.value_at
    mask[at : at + found.width] = 0x80 if found.varint else 0
    return mask


def _parsed(body: bytes) -> Layout | None:
    """The layout of an event of one number, given without wall time and step.

    The event must hold one summary of one value and nothing else: what every writer does.
    """
    data = memoryview(body)
    try:
        parts = list(wire.fields(data, 0, len(data)))
        if [p[:2] for p in parts] != [(5, wire.LENGTH)]:
            return None
        held = list(wire.fields(data, parts[0].start, parts[0].end))
        if [p[:2] for p in held] != [(1, wire.LENGTH)]:
            return None
        inner = [p.number for p in wire.fields(data, held[0].start, held[0].end)]
        if len(set(inner)) < len(inner) or len(set(inner) & events.ONE_OF.keys()) != 1:
            return None
        value = events.value(data, held[0])
        place = _place(data, value)
    except wire.WireError:
        return None
    return Layout(value.tag, value.kind == events.TENSOR, value.plugin, *place) if place else None


def _place(data: memoryview, value: events.Value) -> tuple[int, int, str, bool] | None:
    """Where the number of a simple value or of a scalar tensor lies, and of what kind it is."""
    if value.body is None or value.plugin not in ("", "scalars"):
        return None
    if value.kind == events.SIMPLE_VALUE:
        return value.body.start, VALUE_BYTES, "<f4", False
    if value.kind != events.TENSOR:
        return None
    tensor = tensors.parse(data, value.body)
    if tensor.dtype not in tensors.NUMERIC or (tensor.elements, len(tensor.parts)) != (1, 1):
        return None
    (part,) = tensor.parts
    return _place_in_tensor(tensor.dtype, part)


def _place_in_tensor(kind: int, part: wire.Field) -> tuple[int, int, str, bool] | None:
    """Where the only number of a tensor lies: its bytes, a number of fixed width, or a varint."""
    dtype, number = tensors.NUMERIC[kind]
    width = part.end - part.start
    if kind == tensors.BFLOAT16:
        return None
    if (part.number, part.wire) == (tensors.CONTENT, wire.LENGTH) or (
        part.number == number and kind in (tensors.FLOAT, tensors.DOUBLE) and part.wire != wire.VARINT
    ):
        return (part.start, width, dtype, False) if width == np.dtype(dtype).itemsize else None
    whole = part.number == number and dtype[1:2] in ("i", "u") and 0 < width < len(STEP_MASKS)
    return (part.start, width, dtype, True) if whole and part.wire in (wire.VARINT, wire.LENGTH) else None


def _packed(words: Words) -> Words:
    """The numbers that varints stand for, given by the low seven bits of each byte.

    In sum over k > 0, what begins at byte k counts 2**(7 * k); to take that from the word leaves of byte m
    2**(8 * m) - (2**(8 * m) - 2**(7 * m)), as is to be.
    """
    out = words.copy()
    top = int(words.max(initial=0))
    for k in range(1, (top.bit_length() + 7) // 8):
        part = words >> np.uint64(8 * k)
        part <<= np.uint64(7 * k)
        out -= part
    return out


def _decoded(raw: Words, width: int, dtype: str, varint: bool) -> FloatArray:
    """The values that begin these words."""
    if varint:
        raw = _packed(raw & STEP_MASKS[width])
    narrow = raw.astype(f"<u{np.dtype(dtype).itemsize}", copy=False)
    return narrow.view(dtype).astype(np.float64)
