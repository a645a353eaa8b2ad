"""The messages of TensorBoard's event files, one at a time.

Source: tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto and
tensorboard/plugins/hparams/plugin_data.proto.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analyzer.ingest import wire
from analyzer.model import FloatArray, Scalar

SIMPLE_VALUE, HISTO, TENSOR = 2, 5, 8
ONE_OF = {2: wire.FIXED32, 3: wire.LENGTH, 4: wire.LENGTH, 5: wire.LENGTH, 6: wire.LENGTH, 8: wire.LENGTH}

Moments = tuple[float, float, float, float, float]  # minimum, maximum, count, total, total of squares


class Value(NamedTuple):
    """One Summary.Value: ``kind`` is the number of the field that holds it, 0 for none."""

    tag: bytes
    kind: int
    body: wire.Field | None
    plugin: str
    content: wire.Field | None


class Event(NamedTuple):
    wall_time: float
    step: int
    values: list[Value]
    graphs: int


class Histogram(NamedTuple):
    """``limits`` are the buckets' upper limits, one for each of ``counts``."""

    moments: Moments
    limits: FloatArray
    counts: FloatArray


def event(data: memoryview, start: int, end: int) -> Event:
    wall_time, step, graphs = 0.0, 0, 0
    values: list[Value] = []
    for part in wire.fields(data, start, end):
        if (part.number, part.wire) == (1, wire.FIXED64):
            wall_time = wire.double(data, part)
        elif (part.number, part.wire) == (2, wire.VARINT):
            step = wire.signed(part.value)
        elif (part.number, part.wire) == (5, wire.LENGTH):
            values += [value(data, f) for f in wire.fields(data, part.start, part.end) if f[:2] == (1, 2)]
        else:
            graphs += part.number in (4, 9)
    return Event(wall_time, step, values, graphs)


def value(data: memoryview, body: wire.Field) -> Value:
    tag, kind, held, plugin, content = b"", 0, None, "", None
    for part in wire.fields(data, body.start, body.end):
        if (part.number, part.wire) == (1, wire.LENGTH):
            tag = bytes(data[part.start : part.end])
        elif ONE_OF.get(part.number) == part.wire:
            kind, held = part.number, part
        elif (part.number, part.wire) == (9, wire.LENGTH):
            plugin, content = _plugin(data, part)
    return Value(tag, kind, held, plugin, content)


def _plugin(data: memoryview, metadata: wire.Field) -> tuple[str, wire.Field | None]:
    """Name and content of SummaryMetadata.plugin_data."""
    name, content = "", None
    for part in wire.fields(data, metadata.start, metadata.end):
        if (part.number, part.wire) == (1, wire.LENGTH):
            for item in wire.fields(data, part.start, part.end):
                if (item.number, item.wire) == (1, wire.LENGTH):
                    name = wire.text(data, item)
                elif (item.number, item.wire) == (2, wire.LENGTH):
                    content = item
    return name, content


def histogram(data: memoryview, body: wire.Field) -> Histogram:
    """A HistogramProto: min, max, num, sum, sum_squares, then limits and counts of the buckets."""
    moments = [0.0] * 5
    buckets: tuple[list[FloatArray], list[FloatArray]] = ([np.zeros(0)], [np.zeros(0)])
    for part in wire.fields(data, body.start, body.end):
        if part.wire == wire.FIXED64 and part.number <= 5:
            moments[part.number - 1] = wire.double(data, part)
        elif part.number in (6, 7) and part.wire in (wire.FIXED64, wire.LENGTH):
            buckets[part.number - 6].append(wire.packed(data, part, "<f8").astype(np.float64))
    limits, counts = np.concatenate(buckets[0]), np.concatenate(buckets[1])
    if len(limits) != len(counts):
        raise wire.WireError("a histogram has as many limits as counts")
    minimum, maximum, count, total, squares = moments
    return Histogram((minimum, maximum, count, total, squares), limits, counts)


def tensor_moments(left: FloatArray, right: FloatArray, counts: FloatArray) -> Moments:
    """Moments of a histogram that stores none, its elements spread evenly within each bucket."""
    held = np.flatnonzero(counts > 0)
    if not len(held):
        return np.nan, np.nan, 0.0, 0.0, 0.0
    left, right, counts = left[held], right[held], counts[held]
    with np.errstate(over="ignore", invalid="ignore"):
        total = float((counts * (left + right) / 2).sum())
        squares = float((counts * (left * left + left * right + right * right) / 3).sum())
    return float(left.min()), float(right.max()), float(counts.sum()), total, squares


def hyperparameters(data: memoryview, content: wire.Field) -> dict[str, Scalar]:
    """SessionStartInfo.hparams of a HParamsPluginData message."""
    out: dict[str, Scalar] = {}
    for info in wire.fields(data, content.start, content.end):
        if (info.number, info.wire) != (3, wire.LENGTH):
            continue
        for entry in wire.fields(data, info.start, info.end):
            if (entry.number, entry.wire) == (1, wire.LENGTH):
                name, value = _entry(data, entry)
                out[name] = value
    return out


def _entry(data: memoryview, entry: wire.Field) -> tuple[str, Scalar]:
    """One entry of a map<string, google.protobuf.Value>; lists and structs give None."""
    name: str = ""
    value: Scalar = None
    for part in wire.fields(data, entry.start, entry.end):
        if (part.number, part.wire) == (1, wire.LENGTH):
            name = wire.text(data, part)
        elif (part.number, part.wire) == (2, wire.LENGTH):
            for held in wire.fields(data, part.start, part.end):
                value = _held(data, held)
    return name, value


def _held(data: memoryview, held: wire.Field) -> Scalar:
    if (held.number, held.wire) == (2, wire.FIXED64):
        return wire.double(data, held)
    if (held.number, held.wire) == (3, wire.LENGTH):
        return wire.text(data, held)
    if (held.number, held.wire) == (4, wire.VARINT):
        return bool(held.value)
    return None
