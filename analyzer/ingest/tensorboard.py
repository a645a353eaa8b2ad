"""TensorBoard event files: TensorFlow, Keras, torch, tensorboardX, Lightning, CatBoost and others."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from analyzer.errors import IngestError
from analyzer.ingest import event_columns, event_forms, event_histograms, events, records, tensors, wire
from analyzer.ingest.event_frames import Frame, Frames, histograms
from analyzer.ingest.event_log import Log, series
from analyzer.model import Problem, Reading, Scalar, Text

NAME = "tensorboard"
SUMMARY = "TensorBoard event files (*.tfevents.*) of any writer"
ORDER = 10

POINTER = b"version https://git-lfs.github.com/spec/"
OTHER_FORMATS = {".csv", ".tsv", ".json", ".jsonl", ".txt", ".log", ".md", ".html", ".png", ".py"}
ARCHIVES = {".gz": "gzip", ".zip": "zip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".tar": "tar"}
HPARAMS_TAG = b"_hparams_/session_start_info"


def claims(path: Path, head: bytes) -> bool:
    """By the name; or, under any name, by a first record that is a dated event."""
    length = records.header_length(head[: records.HEADER])
    if length >= 0:
        return length == 0 or head[records.HEADER : records.HEADER + 1] == b"\x09" or "tfevents" in path.name
    return "tfevents" in path.name and path.suffix.lower() not in OTHER_FORMATS


def shares_folder(path: Path) -> bool:
    """Several event files in one folder are one run, whatever their names."""
    return True


def read(path: Path) -> Reading:
    """Scalars, histograms, text and hyperparameters; raises IngestError if there is no record."""
    damage, log = records.Damage(), Log()
    try:
        with path.open("rb", buffering=0) as file, np.errstate(invalid="ignore"):  # signalling NaNs
            _reject(path, file.read(4096))
            familiar = event_forms.take(file, log, damage, _read_singly)
            for window in records.read_windows(file, damage, start=familiar):
                event_forms.learn(window)
                _read_window(window, log)
        if not damage.records:
            raise _nothing(path, damage)
        return _reading(path, log, damage)
    except OSError as error:
        raise IngestError(str(path), f"cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise IngestError(str(path), "needs more memory than there is", "too-large") from error


def _reject(path: Path, head: bytes) -> None:
    """Name the files that only look like event files."""
    if not head:
        raise IngestError(str(path), "is empty (0 bytes)", "empty")
    if head.startswith(POINTER):
        raise IngestError(str(path), "a Git LFS pointer, not the log itself: run `git lfs pull`", "pointer")
    if path.suffix in ARCHIVES and records.header_length(head[: records.HEADER]) < 0:
        kind = ARCHIVES[path.suffix]
        raise IngestError(str(path), f"a {kind} archive: unpack it first", "unsupported")


def _nothing(path: Path, damage: records.Damage) -> IngestError:
    if damage.cut_offset is not None and not damage.gaps:
        return IngestError(str(path), "ends inside its first record: nothing can be read", "truncated", 0)
    return IngestError(str(path), "not an event file: it holds no record whose length checksum fits")


# --------------------------------------------------------------------------- events


def _read_window(window: records.Window, log: Log) -> None:
    """Regular events in columns, all others one by one."""
    starts, lengths = event_columns.take_runs(window, log)
    starts, lengths = event_columns.take(window, starts, lengths, log)
    starts, lengths = event_histograms.take(window, starts, lengths, log)
    _read_singly(
        window.data.data, zip(starts.tolist(), (starts + lengths).tolist(), strict=True), window.base, log
    )


def _read_singly(data: memoryview, payloads: Iterable[tuple[int, int]], base: int, log: Log) -> None:
    """Events one by one, from where each starts in ``data`` to where it ends."""
    for start, end in payloads:
        if event_columns.take_one(data, start, end, base, log):
            continue
        try:
            _add_event(data, start, end, base, log)
        except wire.WireError:
            if not log.malformed:
                log.malformed_offset = base + start
            log.malformed += 1


def _add_event(data: memoryview, start: int, end: int, base: int, log: Log) -> None:
    """Add one event to the log; nothing of it if any of it is malformed."""
    event = events.event(data, start, end)
    items = [_decoded(data, value, event, base, log) for value in event.values]
    log.skipped += event.graphs
    for value, item in zip(event.values, items, strict=True):
        _add(log, value, item)


Point = tuple[int, float, float, float]  # position, step, wall time, value
Item = Point | Frame | list[Text] | dict[str, Scalar] | str  # str: why a value is left out


def _decoded(data: memoryview, value: events.Value, event: events.Event, base: int, log: Log) -> Item:
    plugin = value.plugin or log.plugins.get(value.tag, "")
    if plugin == "hparams" and value.content is not None:
        return events.hyperparameters(data, value.content) if value.tag == HPARAMS_TAG else "skipped"
    if value.body is None:
        return "skipped"
    position, step = base + value.body.start, float(event.step)
    if value.kind == events.SIMPLE_VALUE:
        return position, step, event.wall_time, struct.unpack_from("<f", data, value.body.start)[0]
    if value.kind == events.HISTO:
        moments, limits, counts = events.histogram(data, value.body)
        return Frame(position, step, event.wall_time, moments, None, limits, counts)
    if value.kind == events.TENSOR and plugin in ("", "scalars", "histograms", "text"):
        return _tensor(data, value.tag, value.body, plugin, (position, step, event.wall_time))
    return "skipped"


def _tensor(
    data: memoryview, tag: bytes, body: wire.Field, plugin: str, at: tuple[int, float, float]
) -> Item:
    """A tensor by its plugin; without one (its first event was lost) a single number is a scalar."""
    tensor = tensors.parse(data, body)
    if plugin == "text" and tensor.dtype == tensors.STRING:
        return [Text(wire.text_of(tag), at[1], line) for line in tensors.strings(data, tensor)]
    if tensor.dtype in tensors.NUMERIC and plugin != "text":
        if plugin != "histograms" and tensor.elements == 1:
            return *at, float(tensors.numbers(data, tensor)[0])
        if plugin != "scalars" and len(tensor.shape) == 2 and tensor.shape[1] == 3:
            left, right, counts = tensors.numbers(data, tensor).reshape(-1, 3).T.copy()
            return Frame(*at, events.tensor_moments(left, right, counts), left, right, counts)
    return "unsupported" if plugin else "skipped"


def _add(log: Log, value: events.Value, item: Item) -> None:
    if value.plugin:
        log.plugins.setdefault(value.tag, value.plugin)
    key = (value.tag, value.kind == events.TENSOR)
    if isinstance(item, Frame):
        log.frames.setdefault(key, Frames()).add_one(item)
    elif isinstance(item, tuple):
        log.single.append((log.number(key), *item))
    elif isinstance(item, list):
        log.texts += item
    elif isinstance(item, dict):
        log.hyperparameters |= item
    elif item == "unsupported":
        log.unsupported[value.tag] = log.unsupported.get(value.tag, 0) + 1
    else:
        log.skipped += 1


# --------------------------------------------------------------------------- the reading


def _reading(path: Path, log: Log, damage: records.Damage) -> Reading:
    curves = tuple(series(log, str(path)))
    frames = tuple(histograms(log.frames, log.plugins, str(path)))
    found = bool(curves or frames or log.texts or log.hyperparameters)
    problems = tuple(_problems(path, log, damage, found))
    return Reading(curves, frames, tuple(log.texts), log.hyperparameters, problems)


def _problems(path: Path, log: Log, damage: records.Damage, found: bool) -> Iterator[Problem]:
    where = str(path)
    if damage.checksums:
        lost = f"{_many(damage.checksums, 'record')} ({damage.checksum_bytes} bytes)"
        message = f"{lost} left out because the data checksum does not fit"
        yield Problem(where, "checksum", message, damage.checksum_offset)
    if damage.gaps:
        lost = f"{damage.gap_bytes} bytes lost in {_many(damage.gaps, 'place')}"
        message = f"{lost} because a record's length checksum does not fit"
        yield Problem(where, "checksum", message, damage.gap_offset)
    if log.malformed:
        message = f"{_many(log.malformed, 'record')} left out: the checksum fits but it is not an event"
        yield Problem(where, "damaged", message, log.malformed_offset)
    if damage.cut_offset is not None:
        message = f"ends inside a record: still being written, or cut off ({damage.cut_bytes} bytes lost)"
        yield Problem(where, "truncated", message, damage.cut_offset)
    for tag, count in log.unsupported.items():
        name = wire.text_of(tag)
        yield Problem(
            where, "unsupported", f"{_many(count, 'value')} of {name!r} left out: not a real number"
        )
    if not found and not (damage.checksums or damage.gaps or log.malformed):
        yield Problem(where, "empty", _emptiness(path, log))


def _emptiness(path: Path, log: Log) -> str:
    if path.name.endswith(".profile-empty"):
        return "holds no data by design: a marker of TensorFlow's profiler"
    if log.skipped:
        return "holds no scalars, histograms, text or hyperparameters: only graphs, images or the like"
    return "holds no data, only its header"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
