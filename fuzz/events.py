"""Coverage-guided fuzzing of the reader of event files, with atheris.

    python fuzz/events.py /tmp/corpus -max_total_time=600

The input is a program that writes a log: events of a regular or irregular kind, any bytes as a
message with fitting checksums, and damage. What is read must be what was written: no exception, no
value that was not written, none missing where there was no damage, and the same as is read one
message at a time; and that too where a log laid out alike, with other numbers and without damage, has
been read before.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import atheris
import numpy as np

with atheris.instrument_imports(include=["analyzer"]):
    from analyzer.errors import IngestError
    from analyzer.ingest import crc32c, event_columns, event_forms, event_histograms, records, tensorboard
    from analyzer.model import Reading

TAGS = [b"loss", b"lr", b"acc/val", b"acc/trn", b"x" * 70, b"", "é".encode()]
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-events-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
LOG = FOLDER / "events.out.tfevents.1.host"
Point = tuple[bytes, int, int, int]  # tag, step, bits of wall time and of the value as float64


# --------------------------------------------------------------------------- writing


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def framed(payload: bytes) -> bytes:
    first = len(payload).to_bytes(8, "little")
    return first + checksum(first) + payload + checksum(payload)


def checksum(data: bytes) -> bytes:
    extend = crc32c.compiled()
    crc = extend(0, data) if extend else crc32c.crc32c(data)
    return crc32c.masked(crc).to_bytes(4, "little")


def event(wall: bytes, step: int, value: bytes) -> bytes:
    return b"\x09" + wall + (b"\x10" + varint(step) if step else b"") + field(5, field(1, value))


def scalar(kind: int, tag: bytes, bits: bytes) -> tuple[bytes, float]:
    """A summary's value in one of the encodings, and the number it stands for."""
    single, double = struct.unpack("<f", bits[:4])[0], struct.unpack("<d", bits)[0]
    whole = int.from_bytes(bits[:3], "little")
    if kind == 0:
        return field(1, tag) + b"\x15" + bits[:4], single
    if kind == 1:
        return field(1, tag) + field(8, b"\x08\x01" + field(2, b"") + field(4, bits[:4])), single
    if kind == 2:
        return field(1, tag) + field(8, b"\x08\x02" + field(2, b"") + field(4, bits)), double
    if kind == 3:
        return field(1, tag) + field(8, b"\x08\x09" + field(2, b"") + b"\x50" + varint(whole)), float(whole)
    plugin = field(9, field(1, field(1, b"scalars")))
    return field(1, tag) + field(8, b"\x08\x01" + field(2, b"") + b"\x2d" + bits[:4]) + plugin, single


def bits_of(number: float) -> int:
    with np.errstate(invalid="ignore"):
        return int(np.array([number], np.float64).view(np.uint64)[0]) if number == number else -1


def write(
    program: atheris.FuzzedDataProvider, salt: int = 0, damage: bool = True
) -> tuple[bytes, list[Point], bool]:
    """A log, the points in it, and whether that is all there is to know of it; ``salt`` changes its numbers."""
    out, points, known = bytearray(), [], True
    while program.remaining_bytes() and len(out) < 60_000:
        order = program.ConsumeIntInRange(0, 9)
        if order <= 5:  # the same tags again and again
            kinds = [
                (program.ConsumeIntInRange(0, 4) if order > 2 else 0, program.PickValueInList(TAGS))
                for _ in range(program.ConsumeIntInRange(1, 6))
            ]
            step, by = program.ConsumeIntInRange(0, 1 << 20), program.ConsumeIntInRange(0, 300)
            seed = program.ConsumeBytes(8).ljust(8, b"\1")
            for k in range(program.ConsumeIntInRange(1, 220)):
                drawn = np.random.default_rng([k, salt, *seed]).bytes(16 * len(kinds))
                for n, (kind, tag) in enumerate(kinds):
                    wall, bits = drawn[16 * n : 16 * n + 8], drawn[16 * n + 8 : 16 * n + 16]
                    value, number = scalar(kind, tag, bits)
                    out += framed(event(wall, step + by * k, value))
                    wall_bits = bits_of(struct.unpack("<d", wall)[0])
                    points.append((tag, step + by * k, wall_bits, bits_of(number)))
        elif order == 6:  # any message at all
            known = False
            out += framed(
                program.ConsumeBytes(program.ConsumeIntInRange(0, 200))
            ) * program.ConsumeIntInRange(1, 80)
        elif order == 7:
            known = False
            out += program.ConsumeBytes(program.ConsumeIntInRange(0, 40))
        elif out:
            known = False
            at = program.ConsumeIntInRange(0, len(out) - 1)
            bit, lost = program.ConsumeIntInRange(0, 7), program.ConsumeIntInRange(1, 64)
            if damage and order == 8:
                out[at] ^= 1 << bit
            elif damage:
                del out[at : at + lost]
    return bytes(out), points, known


# --------------------------------------------------------------------------- reading


def read() -> Reading | str:
    try:
        return tensorboard.read(LOG)
    except IngestError as error:
        return str(error)


@contextmanager
def slowly() -> Iterator[None]:
    """Each record's checksum on its own, and each message parsed."""
    with (
        mock.patch.object(event_forms, "take", lambda *given: 0),
        mock.patch.object(event_forms, "learn", lambda window: None),
        mock.patch.object(records, "_go_on", lambda frames: None),
        mock.patch.object(records, "_start_run", lambda frames: False),
        mock.patch.object(records, "_stretch_holds", lambda data, starts, lengths: False),
        mock.patch.object(event_columns, "take", lambda window, starts, lengths, log: (starts, lengths)),
        mock.patch.object(event_columns, "take_one", lambda *record: False),
        mock.patch.object(event_histograms, "take", lambda window, starts, lengths, log: (starts, lengths)),
    ):
        yield


def points_of(reading: Reading) -> list[Point]:
    out = []
    for series in reading.series:
        assert series.wall_times is not None
        for row in zip(series.steps, series.wall_times, series.values, strict=True):
            out.append((series.tag.encode(), int(row[0]), bits_of(row[1]), bits_of(row[2])))
    return out


def same(fast: Reading | str, slow: Reading | str) -> None:
    if isinstance(fast, str) or isinstance(slow, str):
        assert fast == slow, (fast, slow)
        return
    assert points_of(fast) == points_of(slow)
    assert (fast.problems, fast.texts, fast.hyperparameters) == (
        slow.problems,
        slow.texts,
        slow.hyperparameters,
    )
    for one, other in zip(fast.histograms, slow.histograms, strict=True):
        assert one.tag == other.tag
        np.testing.assert_array_equal(one.counts, other.counts)
        np.testing.assert_array_equal(one.edges_right, other.edges_right)
        np.testing.assert_array_equal(one.edges_left, other.edges_left)


def one_input(data: bytes) -> None:
    event_forms.FORMS.clear()
    event_forms.OPENINGS.clear()
    if data[:1] > b"\x7f":
        LOG.write_bytes(write(atheris.FuzzedDataProvider(data), salt=1, damage=False)[0])
        read()
        read()
    content, points, known = write(atheris.FuzzedDataProvider(data))
    LOG.write_bytes(content)
    fast = read()
    with slowly():
        same(fast, read())
    if known and points:
        assert isinstance(fast, Reading) and not fast.problems
        turn = {tag: k for k, tag in enumerate(dict.fromkeys(tag for tag, *_ in points))}
        assert points_of(fast) == sorted(points, key=lambda point: turn[point[0]])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
