"""Reading event files, side by side with TensorBoard's EventAccumulator, its data server, and tbparse.

    python benchmarks/ingest.py                    # smaller sizes
    python benchmarks/ingest.py --full             # those of the table in the documentation; takes long
    python benchmarks/ingest.py --full --only one  # one of one, many, histograms, tensors

Every reader reads the same files, each in processes of its own. A warm figure is the reading alone in
a process that has read before (ours) or has everything imported (the others); a fresh one is a whole
process, its start and imports included. Before any is measured each reader has read a small file, so
that its code is compiled and in the disk's cache, as after an installation; and for all readers alike
numpy's BLAS starts no threads, as the command line has it. Peak memory is that of the fresh process, for
the data server that of both. What ours reads is compared with the accumulator's, bit for bit; of the
others the points are counted. On a busy machine the processor's seconds are the ones to compare. Needs
the packages tbparse and tensorboard-data-server.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from torch.utils.tensorboard.summary import histogram

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from analyzer.ingest import crc32c, records, tensorboard  # noqa: E402

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

# Each tells how long its readings took, by the clock and of the processor, what it did beside them, then
# peak memory and points.
HEAD = """
import sys, time
took, beside, aside = [], 0.0, [0.0, 0.0]
def peak(process):
    from pathlib import Path
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
def now():
    import resource
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in used)
def done(start, end):
    took.append([after - before for before, after in zip(start, end)])
"""
TAIL = """
import json
print(json.dumps({"took": took, "aside": aside, "peak": peak("self") + beside, "points": points}))
"""
FILES = """
from pathlib import Path
from analyzer.ingest import tensorboard
for _ in range(int(sys.argv[2])):
    start = now()
    found = [tensorboard.read(path) for path in sorted(Path(sys.argv[1]).rglob("*tfevents*"))]
    done(start, now())
points = sum(s.points for r in found for s in r.series) + sum(len(h.steps) for r in found for h in r.histograms)
"""
RUNS = """
for _ in range(int(sys.argv[2])):
    start = now()
    import analyzer
    found = analyzer.read(sys.argv[1])
    done(start, now())
points = sum(s.points for r in found for s in r.series) + sum(len(h.steps) for r in found for h in r.histograms)
"""
ACCUMULATOR = """
import logging
from pathlib import Path
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
logging.disable(logging.WARNING)
kinds = ("scalars", "histograms", "tensors", "images", "audio", "compressedHistograms")
start = now()
found = [
    EventAccumulator(str(path), size_guidance=dict.fromkeys(kinds, 0), purge_orphaned_data=False).Reload()
    for path in sorted(Path(sys.argv[1]).rglob("*tfevents*"))
]
done(start, now())
start = now()
kept = {}
for number, one in enumerate(found):
    for tag in one.Tags()["scalars"]:
        rows = [(e.step, e.wall_time, e.value) for e in one.Scalars(tag)]
        kept[f"{number}|{tag}"] = np.array(rows, np.float64)
    for tag in one.Tags()["tensors"]:
        rows = [(e.step, e.wall_time, float(make_ndarray(e.tensor_proto))) for e in one.Tensors(tag)]
        kept[f"{number}|{tag}"] = np.array(rows, np.float64)
    for tag in one.Tags()["histograms"]:
        frames = [e.histogram_value for e in one.Histograms(tag)]
        kept[f"{number}|{tag}|counts"] = np.concatenate([np.array(f.bucket, np.float64) for f in frames])
        kept[f"{number}|{tag}|limits"] = np.concatenate([np.array(f.bucket_limit, np.float64) for f in frames])
        kept[f"{number}|{tag}"] = np.array([(f.min, f.max, f.num, f.sum, f.sum_squares) for f in frames])
points = sum(len(rows) for key, rows in kept.items() if key.count("|") == 1)
if len(sys.argv) > 3:
    np.savez(sys.argv[3], **kept)
aside = [after - before for before, after in zip(start, now())]
"""
TBPARSE = """
import logging
from tbparse import SummaryReader
logging.disable(logging.WARNING)
start = now()
reader = SummaryReader(sys.argv[1], extra_columns={"wall_time"}, event_types={sys.argv[3]})
table = getattr(reader, sys.argv[3])
done(start, now())
points = len(table)
"""
SERVER = """
import subprocess, tempfile
from pathlib import Path
import grpc
import tensorboard_data_server
from tensorboard.data.proto import data_provider_pb2, data_provider_pb2_grpc
kind = "tensors" if sys.argv[3] == "histograms" else "scalars"
plugin = sys.argv[3] if kind == "tensors" else "scalars"
start = now()
port = Path(tempfile.mkdtemp()) / "port"
command = [tensorboard_data_server.server_binary(), "--logdir", sys.argv[1], "--host", "127.0.0.1", "--port", "0"]
command += ["--port-file", str(port), "--reload", "once", "--samples-per-plugin", plugin + "=all"]
server = subprocess.Popen(command)
while not port.exists() or not port.read_text().strip():
    time.sleep(0.005)
channel = grpc.insecure_channel("127.0.0.1:" + port.read_text().strip(), [("grpc.max_receive_message_length", -1)])
stub = data_provider_pb2_grpc.TensorBoardDataProviderStub(channel)
def read():
    request = (data_provider_pb2.ReadTensorsRequest if kind == "tensors" else data_provider_pb2.ReadScalarsRequest)()
    request.plugin_filter.plugin_name = plugin
    request.downsample.num_points = 1 << 40
    answer = (stub.ReadTensors if kind == "tensors" else stub.ReadScalars)(request)
    return [tag.data for run in answer.runs for tag in run.tags]
points, before, end = -1, 0, start[0]
while points < int(sys.argv[4]) and time.perf_counter() < end + 20:  # or it does not read them all
    time.sleep(0.02)
    found = read()
    points = sum(len(data.step) for data in found)
    if points > before:
        before, end = points, time.perf_counter()
beside = peak(server.pid)
server.terminate()
server.wait()
done(start, (end, now()[1]))
"""


class Reader(NamedTuple):
    name: str
    code: str
    again: int  # readings in a process, of which the fastest but the first counts
    fresh: int  # processes, of which the fastest counts


READERS = {
    "ours": Reader("event files, ours", FILES, 6, 5),
    "runs": Reader("analyzer.read, ours", RUNS, 6, 5),
    "server": Reader("tensorboard-data-server", SERVER, 1, 2),
    "accumulator": Reader("EventAccumulator", ACCUMULATOR, 1, 2),
    "tbparse": Reader("tbparse", TBPARSE, 1, 2),
}


class Figures(NamedTuple):
    """Seconds of the clock and of the processor, and megabytes."""

    warm: float
    warm_cpu: float
    fresh: float
    fresh_cpu: float
    peak: float
    points: int


# --------------------------------------------------------------------------- files


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


def tensors(steps: int, encoding: str) -> Iterator[Event]:
    """What Keras and TensorFlow 2 write: scalars as tensors, the plugin named in the first of each tag."""
    yield version()
    rng = np.random.default_rng(0)
    tags = ["epoch_loss", "epoch_accuracy", "epoch_learning_rate"]
    for step in range(steps):
        for k, tag in enumerate(tags):
            tensor = TensorProto(dtype=2 if encoding == "double" else 1, tensor_shape=TensorShapeProto())
            number = rng.normal()
            if encoding == "typed":
                tensor.float_val.append(number)
            else:
                tensor.tensor_content = (np.float64 if encoding == "double" else np.float32)(number).tobytes()
            plugin = SummaryMetadata.PluginData(plugin_name="scalars")
            metadata = None if step else SummaryMetadata(plugin_data=plugin, data_class=1)
            value = Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
            yield Event(wall_time=1.7e9 + step + 0.1 * k, step=step, summary=Summary(value=[value]))


WORKLOADS = {
    "one": "scalars",
    "many": "scalars",
    "histograms": "histograms",
    "tensors": "tensors",
}


def make(workload: str, folder: Path, full: bool) -> str:
    """Write the files of a workload; what they are."""
    name = "events.out.tfevents.1.host"
    if workload == "one":
        points = 1_000_000 if full else 100_000
        write(folder / "run" / name, scalars(["loss/train"], points, 0))
        return f"{points} scalars in one file"
    if workload == "many":
        runs = 200 if full else 20
        for k in range(runs):
            write(folder / f"run{k}" / name, scalars(TAGS, 500, k))
        return f"{runs} runs x 10 tags x 500 steps"
    steps = 1000 if full else 50
    if workload == "histograms":
        write(folder / "run" / name, histograms(50, steps))
        return f"50 histogram tags x {steps} steps"
    for encoding in ("content", "typed", "double"):
        write(folder / encoding / name, tensors(100 * steps, encoding))
    return f"3 runs x 3 tags x {100 * steps} steps, as tensors"


# --------------------------------------------------------------------------- readers


def run(code: str, arguments: list[str]) -> tuple[float, float, dict[str, Any]]:
    """Seconds of a whole process, by the clock and of the processor, and what it says of itself."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    kept["OPENBLAS_NUM_THREADS"] = "1"
    command = [sys.executable, "-c", HEAD + code + TAIL, *arguments]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-1500:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall = time.perf_counter() - start
    told = json.loads(ended.stdout.splitlines()[-1])
    return wall - told["aside"][0], cpu - told["aside"][1], told


def measure(key: str, folder: Path, kind: str, points: int, kept: Path, once: bool) -> Figures:
    """The best of several processes; ``once``: of one for the others, which take their time."""
    reader = READERS[key]
    more = {"accumulator": [str(kept)], "tbparse": [kind], "server": [kind, str(points)]}.get(key, [])
    processes = 1 if once and reader.again == 1 else reader.fresh
    walls, cpus, told = zip(
        *(run(reader.code, [str(folder), "1", *more]) for _ in range(processes)), strict=True
    )
    took = [reading for one in told for reading in one["took"]]
    if reader.again > 1:
        took = run(reader.code, [str(folder), str(reader.again)])[2]["took"][1:]
    warm, warm_cpu = map(min, zip(*took, strict=True))
    return Figures(warm, warm_cpu, min(walls), min(cpus), told[0]["peak"], told[0]["points"])


def prepare(readers: list[str]) -> None:
    """Let each reader read a small file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "logs"
        write(folder / "run" / "events.out.tfevents.1.host", scalars(TAGS, 2, 0))
        for key in readers:
            measure(key, folder, "scalars", 2 * len(TAGS), Path(name) / "kept.npz", once=True)


def differences(folder: Path, kept: Path) -> int:
    """Arrays of the accumulator that ours does not have bit for bit."""
    theirs = dict(np.load(kept))
    wrong = 0
    for number, path in enumerate(sorted(folder.rglob("*tfevents*"))):
        reading = tensorboard.read(path)
        for s in reading.series:
            expected = theirs.pop(f"{number}|{s.tag}").T
            ours = np.stack([s.steps, s.wall_times, s.values])
            wrong += not np.array_equal(ours.view(np.uint64), expected.copy().view(np.uint64))
        for h in reading.histograms:
            counts, limits = theirs.pop(f"{number}|{h.tag}|counts"), theirs.pop(f"{number}|{h.tag}|limits")
            facts = np.stack([h.minimum, h.maximum, h.count, h.total, h.total_squares], axis=1)
            wrong += not np.array_equal(facts, theirs.pop(f"{number}|{h.tag}"))
            wrong += not np.array_equal(h.counts, counts)
            inner = np.ones(len(limits), np.bool_)
            inner[h.offsets[1:] - 1] = False  # the last limit is closed by the maximum
            wrong += not np.array_equal(h.edges_right[inner], limits[inner])
    return wrong + len(theirs)


def compare(workload: str, full: bool, readers: list[str], once: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, kept = Path(name) / "logs", Path(name) / "kept.npz"
        title = make(workload, folder, full)
        size = sum(path.stat().st_size for path in folder.rglob("*tfevents*"))
        print(f"\n{title}, {size / 1e6:.0f} MB")
        print(
            f"{'':26}{'warm':>10}{'(cpu)':>10}{'fresh':>10}{'(cpu)':>10}{'peak':>10}{'points':>9}   times ours"
        )
        ours: Figures | None = None
        for key in readers:
            found = measure(key, folder, WORKLOADS[workload], ours.points if ours else 0, kept, once)
            ours = ours or found
            seconds = "".join(f"{value:8.3f} s" for value in found[:4])
            ratios = "".join(f"{value / own:8.1f}" for value, own in zip(found[:4], ours, strict=False))
            print(f"{READERS[key].name:26}{seconds}{found.peak:7.0f} MB{found.points:9}{ratios}", flush=True)
        if kept.exists():
            print(f"arrays that differ from the accumulator's: {differences(folder, kept)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="a million scalars; takes long")
    parser.add_argument("--only", choices=WORKLOADS, action="append", help="one workload; may be repeated")
    parser.add_argument("--without", choices=READERS, action="append", default=[], help="leave a reader out")
    parser.add_argument("--once", action="store_true", help="one process for each of the others")
    given = parser.parse_args()
    readers = [key for key in READERS if key not in given.without]
    prepare(readers)
    for workload in given.only or WORKLOADS:
        compare(workload, given.full, readers, given.once)


if __name__ == "__main__":
    main()
