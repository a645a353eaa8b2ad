"""Reading event files, side by side with TensorBoard's own EventAccumulator.

    python benchmarks/ingest.py           # smaller sizes, under a minute
    python benchmarks/ingest.py --full    # the sizes of the table in the documentation

Both readers run in this process, in turn, on the same files; every value is compared. A cold figure
is that of a fresh interpreter, its start and imports included, against the accumulator's reading alone.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import histogram

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from analyzer.ingest import crc32c, records, tensorboard  # noqa: E402
from analyzer.model import Reading  # noqa: E402

TAGS = [
    "loss/train",
    "loss/val",
    "acc/train",
    "acc/val",
    "lr",
    "grad_norm",
    "epoch",
    "time/step",
    "weights/norm",
    "val/f1",
]
NO_LIMIT = dict.fromkeys(("scalars", "histograms", "tensors", "images", "audio", "compressedHistograms"), 0)
FRESH = """
import sys
from pathlib import Path
from analyzer.ingest import tensorboard
for path in sys.argv[1:]:
    tensorboard.read(Path(path))
"""


def write(path: Path, events: Iterator[Event]) -> Path:
    """Frame the messages as the writers do, with all checksums computed together."""
    payloads = [event.SerializeToString() for event in events]
    margin = bytes(records.MARGIN)
    data = np.frombuffer(margin + b"".join(payloads) + margin, np.uint8).copy()
    lengths = np.array([len(payload) for payload in payloads], np.int64)
    crcs = crc32c.checksums(data, len(margin) + np.cumsum(lengths) - lengths, lengths)
    headers = {n: int(n).to_bytes(8, "little") for n in np.unique(lengths).tolist()}
    headers = {n: h + crc32c.masked(crc32c.crc32c(h)).to_bytes(4, "little") for n, h in headers.items()}
    parts = zip(payloads, crcs.tolist(), strict=True)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(headers[len(p)] + p + crc.to_bytes(4, "little") for p, crc in parts))
    return path


def version() -> Event:
    return Event(wall_time=1.7e9, file_version="brain.Event:2")


def scalars(tags: list[str], steps: int, seed: int) -> Iterator[Event]:
    yield version()
    rng = np.random.default_rng(seed)
    walls = 1.7e9 + np.cumsum(rng.exponential(0.01, (steps, len(tags)))).reshape(steps, len(tags))
    values = rng.normal(size=(steps, len(tags)))
    for step in range(steps):
        for k, tag in enumerate(tags):
            value = Summary.Value(tag=tag, simple_value=values[step, k])
            yield Event(wall_time=walls[step, k], step=step, summary=Summary(value=[value]))


def histograms(tags: int, steps: int) -> Iterator[Event]:
    """What torch's SummaryWriter.add_histogram writes, a few hundred different ones in turn."""
    yield version()
    rng = np.random.default_rng(0)
    bins = _torch_bins()
    drawn = [histogram("t", rng.normal(scale=1 + k % 9, size=400), bins).value[0].histo for k in range(200)]
    for step in range(steps):
        for k in range(tags):
            value = Summary.Value(tag=f"layer{k}/weight", histo=drawn[(step * tags + k) % len(drawn)])
            yield Event(wall_time=1.7e9 + step, step=step, summary=Summary(value=[value]))


def _torch_bins() -> list[float]:
    """The bins of torch.utils.tensorboard.SummaryWriter: powers of 1.1 on both sides of 0."""
    edge, positive = 1e-12, []
    while edge < 1e20:
        positive.append(edge)
        edge *= 1.1
    return [-edge for edge in positive[::-1]] + [0.0] + positive


def accumulate(path: Path) -> EventAccumulator:
    return EventAccumulator(str(path), size_guidance=NO_LIMIT, purge_orphaned_data=False).Reload()


def check(ours: Reading, theirs: EventAccumulator) -> None:
    """Every scalar and histogram equal, bit for bit."""
    tags = theirs.Tags()
    assert [s.tag for s in ours.series] == sorted(tags["scalars"], key=[s.tag for s in ours.series].index)
    for series in ours.series:
        rows = np.array([(e.step, e.wall_time, e.value) for e in theirs.Scalars(series.tag)])
        assert series.wall_times is not None
        for column, expected in zip((series.steps, series.wall_times, series.values), rows.T, strict=True):
            np.testing.assert_array_equal(column.view(np.uint64), expected.astype(np.float64).view(np.uint64))
    assert {h.tag for h in ours.histograms} == set(tags["histograms"])
    for found in ours.histograms:
        expected_frames = theirs.Histograms(found.tag)
        counts = np.concatenate([e.histogram_value.bucket for e in expected_frames])
        np.testing.assert_array_equal(found.counts, counts)
        np.testing.assert_array_equal(found.total, [e.histogram_value.sum for e in expected_frames])


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(name: str, paths: list[Path]) -> None:
    theirs: list[EventAccumulator] = []
    slow = seconds(lambda: theirs.extend(accumulate(path) for path in paths))
    warm = min(seconds(lambda: [tensorboard.read(path) for path in paths]) for _ in range(3))
    command = [sys.executable, "-c", FRESH, *map(str, paths)]
    fresh = min(seconds(lambda: subprocess.run(command, check=True, cwd=ROOT)) for _ in range(3))
    for path, accumulator in zip(paths, theirs, strict=True):
        check(tensorboard.read(path), accumulator)
    size = sum(path.stat().st_size for path in paths) / 1e6
    print(
        f"{name:34} {size:7.1f} MB {slow:9.2f} s {warm:8.3f} s {fresh:8.3f} s"
        f" {slow / warm:6.0f}x {slow / fresh:6.0f}x",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="a million scalars; takes minutes")
    full = parser.parse_args().full
    logging.disable(logging.WARNING)
    points, runs, steps = (1_000_000, 200, 1000) if full else (50_000, 10, 20)
    print(f"{'':34} {'size':>10} {'tensorboard':>11} {'warm':>10} {'fresh':>10} {'warm':>7} {'fresh':>7}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = write(folder / "one" / "events.out.tfevents.1.host", scalars(["loss/train"], points, 0))
        measure(f"{points} scalars, one tag", [one])
        many = [
            write(folder / f"run{k}" / "events.out.tfevents.1.host", scalars(TAGS, 500, k))
            for k in range(runs)
        ]
        measure(f"{runs} runs x 10 tags x 500 steps", many)
        frames = write(folder / "histograms" / "events.out.tfevents.1.host", histograms(50, steps))
        measure(f"50 histogram tags x {steps} steps", [frames])


if __name__ == "__main__":
    main()
