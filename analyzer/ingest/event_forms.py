"""Small files laid out like one read before: the runs of an experiment log the same tags in the same order.

Many small files are bound by the number of steps a file takes, not by their bytes. So the layout of a file
is kept: its records, with all zeroed that may differ. The next file is compared with it as a whole. What
equals it has valid headers and its numbers in known places; its checksums are verified together. What does
not, and what comes behind, is read as ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from io import FileIO
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from analyzer.ingest import crc32c, event_columns, records
from analyzer.ingest.crc32c import Bytes, Crcs, Ints, items
from analyzer.ingest.event_columns import (
    MOST_STEP_BYTES,
    SIMPLE,
    STEP_AT,
    VALUE_BYTES,
    WALL_AT,
    Layout,
    Places,
    Sorted,
)
from analyzer.ingest.event_log import Key, Log, Points, taken
from analyzer.ingest.records import FOOTER, HEADER, MARGIN, OVERHEAD, Window
from analyzer.model import FloatArray

LARGEST = 1 << 20  # bytes: larger files are bound by their bytes
FEWEST = 64  # records: fewer are sooner read one by one
ENOUGH = 0.75  # share of a file that must be laid out so; otherwise its own layout is worth learning
MOST_LEADING = 8  # records before the first scalar: version, texts
MOST_FORMS = 4
MOST_OPENINGS = 1 << 10


ReadSingly = Callable[[memoryview, Iterable[tuple[int, int]], int, Log], None]


class Columns(NamedTuple):
    """What is known of each record, by tag, those of a tag in order of the file."""

    order: Ints  # the numbers of the records
    tags: Ints  # the numbers of their keys
    places: Places
    steps: FloatArray  # in the file that the form was learnt from
    tails: Ints  # where the last four bytes of the payloads lie, with the checksums behind them
    links: Crcs  # see records.stretch_links

    def first(self, count: int) -> Columns:
        """The same of the first records of the file."""
        some = self.order < count
        order, tags, places, steps, tails, links = self
        return Columns(order[some], tags[some], places.some(some), steps[some], tails[some], links[some])


class Form(NamedTuple):
    """A stretch of scalars without a gap. Places count from the header of the first."""

    row: Bytes  # the records, with all zeroed that may differ
    mask: Bytes
    row_with_steps: Bytes  # the same with the steps, which mostly do not differ
    mask_with_steps: Bytes
    ends: Ints  # of the payloads
    columns: Columns
    ends_in_value: bool  # all values are floats at the end of the payload
    keys: tuple[Key, ...]
    plugins: tuple[tuple[int, Layout], ...]  # layouts that name one, each with its first record


FORMS: list[Form] = []  # the last one used comes first
OPENINGS: Counter[object] = Counter()  # how files begin that were laid out like none of these


# --------------------------------------------------------------------------- use


def take(file: FileIO, log: Log, damage: records.Damage, read: ReadSingly) -> int:
    """Add to the log what of a file is laid out like one before; the offset behind it, 0 for nothing.

    The few records before it are left to ``read``.
    """
    size = file.seek(0, 2)
    if not FORMS or size > LARGEST or crc32c.compiled() is None:
        return 0
    data = np.empty(size + 2 * MARGIN, np.uint8)
    file.seek(0)
    if file.readinto(data.data[MARGIN : MARGIN + size]) < size:
        return 0
    for form in tuple(FORMS):
        headers = _headers(data, size, form)
        if not headers:
            continue
        count, same_steps = _alike(data[headers[-1] : MARGIN + size], form)
        if not count or form.ends[count - 1] < ENOUGH * size:
            continue
        _keep(form)
        leading = [(low + HEADER, high - FOOTER) for low, high in pairwise(headers)]
        rest, base = data[headers[-1] :], headers[-1] - MARGIN
        columns = form.columns if count == len(form.ends) else form.columns.first(count)
        points = _points(rest, base, form, columns, same_steps)
        if points is None or not all(records.fits(data, *record) for record in leading):
            return 0  # damage is told as ever
        read(data.data, leading, -MARGIN, log)
        _add(points, form, columns, log)
        damage.records += len(leading) + count
        return base + int(form.ends[count - 1]) + FOOTER
    return 0


def _headers(data: Bytes, size: int, form: Form) -> list[int]:
    """Offsets of the records up to the first that begins like the form; nothing without one."""
    first, header = int(form.ends[0]), form.row[:HEADER].tobytes()
    headers = [MARGIN]
    while len(headers) <= MOST_LEADING and headers[-1] + first <= MARGIN + size:
        at = headers[-1]
        found = data[at : at + HEADER].tobytes()
        if found == header and not ((data[at : at + first] ^ form.row[:first]) & form.mask[:first]).any():
            return headers
        length = records.header_length(found)
        if length < 0:
            break
        headers.append(at + OVERHEAD + length)
    return []


def _alike(data: Bytes, form: Form) -> tuple[int, bool]:
    """How many records are laid out like the form, and whether their steps are known to be the same."""
    both = min(len(data), len(form.row))
    same_steps = _equal(data[:both] & form.mask_with_steps[:both], form.row_with_steps[:both])
    if not same_steps:
        masked = data[:both] & form.mask[:both]
        if not _equal(masked, form.row[:both]):
            both = int((masked != form.row[:both]).argmax())
    return int(np.searchsorted(form.ends, both - FOOTER, "right")), same_steps


def _equal(one: Bytes, other: Bytes) -> bool:
    whole = len(one) // 8 * 8
    words = one[:whole].view(np.uint64) == other[:whole].view(np.uint64)
    return bool(words.all()) and bool((one[whole:] == other[whole:]).all())


def _points(data: Bytes, base: int, form: Form, columns: Columns, same_steps: bool) -> Points | None:
    """The points of the first records, those of ``columns``; None if not all payloads fit their checksums.

    ``base`` is the offset of ``data`` in the file; checksums in it are replaced.
    """
    places, count = columns.places, len(columns.order)
    tails = items(data, 8)[columns.tails].view(np.uint32).reshape(-1, 2)
    linked = crc32c.linked(tails[:, 1], columns.links)
    items(data, FOOTER)[columns.tails + VALUE_BYTES] = linked.view(f"V{FOOTER}")
    after = 0
    if count < len(form.ends):
        following = int(form.ends[count] - form.ends[count - 1]) - OVERHEAD
        after = crc32c.register_before(records.header(following))
    if not crc32c.leads(data[HEADER : int(form.ends[count - 1]) + FOOTER], 0, after):
        return None
    steps = columns.steps.copy() if same_steps else event_columns.steps(data, places)
    if form.ends_in_value:
        values = tails[:, 0].view(np.float32).astype(np.float64)
    else:
        values = event_columns.values(data, places)
    return Points(places.starts + base, steps, event_columns.wall_times(data, places), values)


def _add(points: Points, form: Form, columns: Columns, log: Log) -> None:
    """Add the points of the first records, each tag's to its own."""
    for first, layout in form.plugins:
        if first < len(columns.order):
            event_columns.number_of(layout, log)
    bounds = np.searchsorted(columns.tags, np.arange(len(form.keys) + 1)).tolist()
    for key, low, high in zip(form.keys, bounds, bounds[1:], strict=False):
        if low < high:
            log.known.setdefault(log.number(key), []).append(taken(points, slice(low, high)))


# --------------------------------------------------------------------------- learning


def learn(window: Window) -> None:
    """Keep the layout of a small file if some have begun like it, the oftener the less."""
    if window.size > LARGEST or window.base != -MARGIN or crc32c.compiled() is None or not _is_due(window):
        return
    runs = map(records.spread, window.runs)
    starts, lengths = records.merged([(window.starts, window.lengths), *runs])
    found = event_columns.sort_all(window, starts, lengths)
    is_scalar = np.array([layout is not None for layout in found.layouts])[found.classes]
    if not is_scalar.any():
        return
    first = int(is_scalar.argmax())
    adjoins = starts[first + 1 :] == (starts + lengths)[first:-1] + OVERHEAD
    breaks = np.flatnonzero(~(adjoins & is_scalar[first + 1 :]))
    some = slice(first, first + 1 + int(breaks[0]) if len(breaks) else len(starts))
    if len(starts[some]) >= FEWEST:
        part = Sorted(found.step_bytes[some], found.classes[some], found.layouts)
        _keep(_form(window.data, starts[some], lengths[some], part))


def _keep(form: Form) -> None:
    """Put a form in front, in one step: other threads may read files too."""
    FORMS[:] = [form, *(other for other in FORMS if other is not form)][:MOST_FORMS]


def _is_due(window: Window) -> bool:
    """Whether this is the second, fourth, eighth … file that begins so."""
    if len(OPENINGS) >= MOST_OPENINGS:
        OPENINGS.clear()
    opening = tuple(run.lengths for run in window.runs[:2]), window.lengths[:16].tobytes()
    OPENINGS[opening] += 1
    seen = OPENINGS[opening]
    return seen > 1 and seen & (seen - 1) == 0


def _form(data: Bytes, starts: Ints, lengths: Ints, found: Sorted) -> Form:
    """The form of adjoining scalars."""
    begin = int(starts[0]) - HEADER
    starts = starts - begin
    ends = starts + lengths
    data = data[begin:]
    places = event_columns.places(starts, found.step_bytes, found.classes, found.layouts)
    mask = _mask(int(ends[-1]) + FOOTER, ends, places)
    mask_with_steps = mask.copy()
    for k in range(MOST_STEP_BYTES):
        at = starts[found.step_bytes > k] + STEP_AT + k
        mask[at], mask_with_steps[at] = 0x80, 0xFF
    present, firsts = np.unique(found.classes, return_index=True)
    layouts = [(first, found.layouts[k]) for k, first in zip(present.tolist(), firsts.tolist(), strict=True)]
    known = sorted((first, layout) for first, layout in layouts if layout)
    numbers: dict[Key, int] = {}
    of_class = np.zeros(len(found.layouts), np.int64)
    for first, layout in known:
        key = layout.tag, layout.is_tensor
        of_class[found.classes[first]] = numbers.setdefault(key, len(numbers))
    tags = of_class[found.classes]
    order = np.argsort(tags, kind="stable")
    in_order, tails = places.some(order), ends - VALUE_BYTES
    steps = event_columns.steps(data, in_order)
    links = records.stretch_links(lengths)[order]
    return Form(
        row=data[: len(mask)] & mask,
        mask=mask,
        row_with_steps=data[: len(mask)] & mask_with_steps,
        mask_with_steps=mask_with_steps,
        ends=ends,
        columns=Columns(order, tags[order], in_order, steps, tails[order], links),
        ends_in_value=places.kinds == (SIMPLE,) and bool((places.values_at == tails).all()),
        keys=tuple(numbers),
        plugins=tuple((first, layout) for first, layout in known if layout.plugin),
    )


def _mask(size: int, ends: Ints, places: Places) -> Bytes:
    """Clears wall times, values and checksums."""
    mask = np.full(size, 0xFF, np.uint8)
    mask[places.starts[:, None] + np.arange(WALL_AT, WALL_AT + 8)] = 0
    for k, (width, _, varint) in enumerate(places.kinds):
        at = places.values_at[places.of == k]
        mask[at[:, None] + np.arange(width)] = 0x80 if varint else 0
    mask[ends[:, None] + np.arange(FOOTER)] = 0
    return mask
