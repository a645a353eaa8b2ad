"""Reading tables, JSON Lines and printed logs, side by side with the plain parsers.

    python benchmarks/tables.py                 # a few MB of each
    python benchmarks/tables.py --rows 1000000  # larger
    python benchmarks/tables.py --gigabyte      # peak memory on one CSV of 1 GB, a minute or two

Each reader turns a file into curves: axis, NaN told from missing, damage named. The parser beside it only
parses: ``pandas.read_csv`` for tables, a loop of ``orjson.loads`` (and of ``json.loads``) for JSON Lines,
and for text one regular expression that finds the numbers of each line. Both run in this process in turn,
best of several.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from analyzer.ingest import HEAD_BYTES, ingestor_for  # noqa: E402

PARAGRAPH = "Loading the data set of 50000 images from disk, this may take a while"
NUMBERS = re.compile(rb"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
PEAK = """
import resource, sys
from pathlib import Path
if sys.argv[1] == "ours":
    from analyzer.ingest import delimited
    found = delimited.read(Path(sys.argv[2]))
else:
    import pandas
    found = pandas.read_csv(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def lightning(rows: int) -> Iterator[str]:
    """Lightning's CSVLogger: training rows and, once an epoch, rows of other columns; most cells empty."""
    noise = np.random.default_rng(0).random(rows)
    yield "epoch,step,train_acc,train_loss,val_acc,val_loss"
    for i in range(rows):
        epoch, step, value = i // 100, 50 * i, 1 / (1 + i) + noise[i]
        yield f"{epoch},{step},,,{value},{value}" if i % 100 == 99 else f"{epoch},{step},{value},{value},,"


def ultralytics(rows: int) -> Iterator[str]:
    """Ultralytics' results.csv: padded, every cell filled."""
    names = ["epoch", "time", *(f"{s}/{t}_loss" for s in ("train", "val") for t in ("box", "cls", "dfl"))]
    names += [f"metrics/{m}(B)" for m in ("precision", "recall", "mAP50", "mAP50-95")]
    names += [f"lr/pg{i}" for i in range(3)]
    noise = np.random.default_rng(0).random((rows, len(names) - 2))
    yield ",".join(f"{n:>23}" for n in names)
    for i in range(rows):
        yield ",".join(
            f"{x:>23}" for x in (i + 1, f"{3.1 * i:.6g}", *(f"{v:.5g}" for v in noise[i].tolist()))
        )


def baselines(rows: int) -> Iterator[str]:
    """Stable-Baselines3's progress.csv: evaluations now and then, first updates without losses."""
    names = ["rollout/ep_len_mean", "rollout/ep_rew_mean", "time/fps", "time/iterations", "time/time_elapsed"]
    names += ["time/total_timesteps", "train/approx_kl", "train/entropy_loss", "train/learning_rate"]
    names += ["train/loss", "train/value_loss", "eval/mean_reward"]
    noise = np.random.default_rng(0).random((rows, 6))
    yield ",".join(names)
    for i in range(rows):
        kl, entropy, loss, value, reward, length = noise[i].tolist()
        told = f"{kl},{-entropy},0.0003,{loss},{value}" if i else ",,,,"
        mark = f"{reward}" if i % 10 == 0 else ""
        yield f"{200 * length},{300 * reward},{1000 + i % 40},{i + 1},{2 * i},{2048 * (i + 1)},{told},{mark}"


def mmengine(rows: int) -> Iterator[str]:
    """mmengine's scalars.json: one set of names, an evaluation now and then."""
    noise = np.random.default_rng(0).random((rows, 4))
    for i in range(rows):
        a, b, c, d = noise[i].tolist()
        if i % 50 == 49:
            yield json.dumps(
                {"coco/bbox_mAP": a, "coco/bbox_mAP_50": b, "data_time": c, "time": d, "step": 50 * i}
            )
        row = {"lr": 0.02, "data_time": a, "loss": b, "loss_cls": c, "loss_bbox": d, "acc": 100 * a}
        yield json.dumps(
            {**row, "time": 0.2, "epoch": i // 50, "iter": 50 * i, "memory": 4000, "step": 50 * i}
        )


def nested(rows: int) -> Iterator[str]:
    """Rows of nested objects, as home-made loggers write them."""
    noise = np.random.default_rng(0).random((rows, 3))
    for i in range(rows):
        a, b, c = noise[i].tolist()
        yield json.dumps({"step": i, "train": {"loss": a, "grad_norm": b}, "val": {"loss": c}, "note": "ok"})


def nanogpt(rows: int) -> Iterator[str]:
    noise = np.random.default_rng(0).random(rows)
    for i in range(rows):
        if i % 250 == 0:
            yield f"step {i}: train loss {3 + noise[i]:.4f}, val loss {3.1 + noise[i]:.4f}"
        yield f"iter {i}: loss {3 + noise[i]:.4f}, time {100 + noise[i]:.2f}ms, mfu {10 + noise[i]:.2f}%"


def keras(rows: int) -> Iterator[str]:
    """Progress bars redrawn with carriage returns, 100 states an epoch."""
    noise = np.random.default_rng(0).random(rows)
    for i in range(rows):
        done = i % 100 + 1
        if done == 1:
            yield f"Epoch {i // 100 + 1}/{rows // 100}"
        filled = "━" * (done // 5) + "─" * (20 - done // 5)
        last = f" - val_accuracy: {noise[i]:.4f} - val_loss: {noise[i]:.4f}\n" if done == 100 else "\r"
        yield f"{done:>3}/100 {filled} 1s 12ms/step - accuracy: {noise[i]:.4f} - loss: {noise[i]:.4f}{last}"


def trainer(rows: int) -> Iterator[str]:
    """The dicts that the Hugging Face Trainer prints between the redraws of its bar."""
    noise = np.random.default_rng(0).random(rows)
    for i in range(rows):
        yield f" {i * 100 // rows:>3}%|{'█' * (i * 10 // rows):<10}| {i}/{rows} [00:10<10:00, 3.1it/s]\r"
        if i % 10 == 9:
            yield str(
                {"loss": 1 + float(noise[i]), "grad_norm": 0.5, "learning_rate": 2e-5, "epoch": i / 1000}
            )


def prose(rows: int) -> Iterator[str]:
    """Warnings and chatter; one line of ten has a loss."""
    for i in range(rows):
        yield f"Epoch {i}: loss 0.{i % 9000 + 1000}" if i % 10 == 0 else f"[{i}] {PARAGRAPH}"


def pandas_reads(path: Path) -> object:
    import pandas as pd

    return pd.read_csv(path, skipinitialspace=True)


def loads(parse: Callable[[bytes], object]) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        with path.open("rb") as lines:
            return [parse(line) for line in lines]

    return read


def finds_numbers(path: Path) -> object:
    with path.open("rb") as lines:
        return [NUMBERS.findall(line) for line in lines]


def parsers(suffix: str) -> dict[str, Callable[[Path], object]]:
    if suffix == ".csv":
        return {"pandas": pandas_reads}
    if suffix == ".log":
        return {"one regex": finds_numbers}
    found = {"json": loads(json.loads)}
    try:
        import orjson
    except ImportError:
        return found
    return {"orjson": loads(orjson.loads), **found}


CASES: dict[str, tuple[str, Callable[[int], Iterator[str]]]] = {
    "CSV, Lightning (sparse)": (".csv", lightning),
    "CSV, Ultralytics (wide)": (".csv", ultralytics),
    "CSV, Stable-Baselines3": (".csv", baselines),
    "JSON Lines, mmengine": (".json", mmengine),
    "JSON Lines, nested": (".jsonl", nested),
    "text, nanoGPT": (".log", nanogpt),
    "text, Keras bars": (".log", keras),
    "text, Trainer dicts and bar": (".log", trainer),
    "text, one line of ten counts": (".log", prose),
}


def write(path: Path, lines: Iterator[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(line if line.endswith(("\r", "\n")) else line + "\n" for line in lines)
    return path


def seconds(action: Callable[[], object], times: int) -> float:
    """Of this process's own time: what else runs on the machine does not count."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        action()
        taken.append(time.process_time() - start)
    return min(taken)


def measure(name: str, path: Path, rows: int, times: int) -> None:
    with path.open("rb") as file:
        ingestor = ingestor_for(path, file.read(HEAD_BYTES))
    assert ingestor is not None, name
    assert ingestor.read(path).series, name
    ours = seconds(lambda: ingestor.read(path), times)
    others = {n: seconds(lambda p=p: p(path), times) for n, p in parsers(path.suffix).items()}
    ratios = "   ".join(f"{n} {took:.3f} s, {ours / took:.1f}x" for n, took in others.items())
    size = path.stat().st_size / 1e6
    print(f"{name:30} {size:7.1f} MB {ours:8.3f} s {ours / rows * 1e6:7.2f} µs/row   {ratios}", flush=True)


def gigabyte(folder: Path) -> None:
    """Peak resident memory of a process that reads one CSV of a gigabyte: ours and pandas'."""
    for name, rows in (("Ultralytics", ultralytics), ("Lightning", lightning), ("short cells", short_cells)):
        path = folder / "metrics.csv"
        header, *lines = rows(50_000)
        block = "\n".join(lines).encode() + b"\n"
        with path.open("wb") as file:
            file.write(header.encode() + b"\n")
            while file.tell() < 1e9:
                file.write(block)
        for who in ("ours", "pandas"):
            command = [sys.executable, "-c", PEAK, who, str(path)]
            start = time.perf_counter()
            peak = int(subprocess.run(command, check=True, cwd=ROOT, capture_output=True).stdout)
            took = time.perf_counter() - start
            print(f"1 GB, {name:12} {who:8} {took:6.1f} s   peak {peak / 1e6:.2f} GB", flush=True)


def short_cells(rows: int) -> Iterator[str]:
    """Numbers of four characters, a NaN and a few missing ones among them: the most numbers in a byte."""
    yield "step," + ",".join(f"metric{j}" for j in range(20))
    noise = np.random.default_rng(0).integers(10, 99, (rows, 20)).tolist()
    for i, row in enumerate(noise):
        cells = [f"0.{v}" for v in row]
        cells[3] = "nan" if i % 1000 == 0 else cells[3]
        cells[4] = "" if i % 10 else cells[4]
        yield f"{i}," + ",".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--gigabyte", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.gigabyte:
            gigabyte(folder)
            return
        for i, (case, (suffix, lines)) in enumerate(CASES.items()):
            if options.only in case:
                path = write(folder / f"log{i}{suffix}", lines(options.rows))
                measure(case, path, options.rows, options.times)


if __name__ == "__main__":
    main()
