"""How long an audit takes, against just reading and decoding the same files; kills and clusters.

    python benchmarks/audit.py make TREE --runs 1000       # a tree of runs, 20k scalars each
    python benchmarks/audit.py cost TREE                    # reading alone, cold, unchanged, changed rules
    python benchmarks/audit.py growth                       # the same for 100, 300, 1000, … runs
    python benchmarks/audit.py cores TREE                   # one process against two
    python benchmarks/audit.py kills TREE                   # killed ten times, resumed, compared
    python benchmarks/audit.py overheads                    # of a task, of the ledger
    python benchmarks/audit.py dask TREE                    # a cluster here, one of two workers killed

A tree's logs are hard links to a few dozen real ones, in event files, CSV, JSON lines and the Trainer's
state; each run has hyperparameters of its own. Times are those of this machine at this moment: only
figures of one table compare.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

STEPS = 2000
VARIETY = 6  # different logs of each format
ANALYZE = [sys.executable, "-m", "analyzer", "audit"]
READ = """
import sys
from pathlib import Path
from analyzer.assemble import assemble
from analyzer.discover import discover
groups = discover([Path(sys.argv[1])]).groups
for group in groups[int(sys.argv[2])::int(sys.argv[3])]:
    assemble(group, "run")
"""


# --------------------------------------------------------------------------- trees


def curves(seed: int) -> dict[str, np.ndarray]:
    """Ten curves of 2000 points; every third overfits, every fifth diverges, every seventh stalls."""
    rng = np.random.default_rng(seed)
    x = np.arange(STEPS)
    noise = rng.normal(size=STEPS) * rng.uniform(0.01, 0.06)
    train = rng.uniform(1, 3) * np.exp(-x / rng.uniform(80, 500)) + 0.1 + np.abs(noise)
    if seed % 7 == 0:
        train = 2.3 + noise
    val = train + 0.1 + (np.maximum(0, x - 600) * 4e-4 if seed % 3 == 0 else 0)
    if seed % 5 == 0:
        train = np.where(x > 1400, train + np.exp((x - 1400) / 90), train)
    return {
        "train/loss": train, "val/loss": val, "train/accuracy": np.clip(1 - train / 3, 0, 1),
        "val/accuracy": np.clip(1 - val / 3, 0, 1), "lr": 1e-3 * (1 - x / STEPS),
        "grad_norm": np.abs(train * (1 + rng.normal(size=STEPS) * 0.1)), "epoch": x // 100,
        "time/step": rng.gamma(4, 0.05, STEPS), "weights/norm": 10 + x * 1e-3, "val/f1": 1 - val / 4,
    }  # fmt: skip


def write_events(folder: Path, values: dict[str, np.ndarray]) -> Path:
    import ingest
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    def events() -> Iterator[Event]:
        yield ingest.version()
        for step in range(STEPS):
            for k, (tag, column) in enumerate(values.items()):
                value = Summary.Value(tag=tag, simple_value=float(column[step]))
                yield Event(
                    wall_time=1.7e9 + step * 0.4 + k * 1e-3, step=step, summary=Summary(value=[value])
                )

    return ingest.write(folder / "events.out.tfevents.1700000000.host.1.0", events())


def write_csv(folder: Path, values: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", *values])
        table.writerows([i, *(f"{v[i]:.6g}" for v in values.values())] for i in range(STEPS))
    return folder / "metrics.csv"


def write_jsonl(folder: Path, values: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    rows = ({"step": i, **{tag: round(float(v[i]), 6) for tag, v in values.items()}} for i in range(STEPS))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "metrics.jsonl"


def write_state(folder: Path, values: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    names = {
        "train/loss": "loss",
        "val/loss": "eval_loss",
        "val/accuracy": "eval_accuracy",
        "lr": "learning_rate",
    }
    rows = [
        {"step": i + 1, "epoch": i / 100, **{names.get(t, t.replace("/", "_")): round(float(v[i]), 6) for t, v in values.items()}}
        for i in range(STEPS)
    ]  # fmt: skip
    state = {"global_step": STEPS, "is_world_process_zero": True, "log_history": rows}
    (folder / "trainer_state.json").write_text(json.dumps(state, indent=1))
    return folder / "trainer_state.json"


WRITERS = (write_events, write_csv, write_jsonl, write_state, write_events)


def make(tree: Path, runs: int) -> None:
    """``runs`` runs in folders of a hundred: links to a few logs, each with hyperparameters of its own."""
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        kinds = [(w, seed) for seed in range(VARIETY) for w in WRITERS]
        logs = [w(Path(scratch, f"{k}"), curves(seed + k)) for k, (w, seed) in enumerate(kinds)]
        rng = random.Random(0)
        for number in range(runs):
            folder = tree / f"sweep{number // 100:03}" / f"run{number:05}"
            folder.mkdir(parents=True)
            kind = number % len(logs)
            os.link(logs[kind], folder / logs[kind].name)
            rate = 10 ** rng.uniform(-4, -1 if kind % 5 == 0 else -2)
            values = {"lr": round(rate, 6), "batch_size": rng.choice([32, 64, 128]), "seed": number % 5}
            (folder / "config.json").write_text(json.dumps(values))


# --------------------------------------------------------------------------- measuring


def seconds(*commands: list[str]) -> tuple[float, float, float]:
    """Of commands at once: wall time, processor time of all their processes, peak of the first in MiB."""
    start, peak, spent = time.perf_counter(), 0.0, {}
    running = [
        subprocess.Popen(c, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True) for c in commands
    ]
    sessions = {process.pid for process in running}
    while any(process.poll() is None for process in running):
        spent |= dict(_times(sessions))
        peak = max(peak, _resident(running[0].pid))
        time.sleep(0.05)
    wall = time.perf_counter() - start
    for process in running:
        if process.returncode not in (0, 1):
            raise SystemExit(f"{process.args} ended with {process.returncode}")
    return wall, sum(spent.values()), peak


def _times(sessions: set[int]) -> Iterator[tuple[int, float]]:
    """Processor time so far of every process of some sessions; Linux."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) in sessions:
            yield int(stat.parent.name), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    """Resident memory of a process in MiB; Linux."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def reading(tree: Path, jobs: int) -> tuple[float, float, float]:
    """Just reading and decoding every run, in as many processes."""
    return seconds(*([sys.executable, "-c", READ, str(tree), str(k), str(jobs)] for k in range(jobs)))


@contextmanager
def changed_rule(folder: Path) -> Iterator[list[str]]:
    """The options that change a threshold of a rule: a copy of it under another id, a little stricter."""
    folder.mkdir(exist_ok=True)
    text = (ROOT / "rules" / "generalization" / "overfitting.yaml").read_text()
    (folder / "overfitting-changed.yaml").write_text(
        text.replace("id: overfitting", "id: overfitting-changed", 1)
    )
    yield ["--rules", str(folder)]


def cost(tree: Path, jobs: int, quiet: bool = False) -> dict[str, float]:
    """One row of the table of costs, in seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        audit = [*ANALYZE, str(tree), "-q", "-j", str(jobs), "--ledger", f"{scratch}/ledger.sqlite"]
        row = {"runs": float(sum(1 for _ in tree.glob("*/*")))}
        row["reading"], row["reading cpu"], _ = reading(tree, jobs)
        row["cold"], row["cold cpu"], row["parent MiB"] = seconds(audit)
        row["unchanged"], row["unchanged cpu"], _ = seconds(audit)
        row["html"], _, _ = seconds([*audit, "--report", "html", "-o", f"{scratch}/a.html"])
        pages = [Path(scratch, "a.html"), *Path(scratch).glob("a_runs/*")]
        row["html MB"] = pages[0].stat().st_size / 1e6
        row["pages"] = len(pages)
        with changed_rule(Path(scratch, "rules")) as options:
            row["rules"], row["rules cpu"], _ = seconds([*audit, *options])
        row["ledger MB"] = Path(scratch, "ledger.sqlite").stat().st_size / 1e6
    if not quiet:
        tell(row)
    return row


def tell(row: dict[str, float]) -> None:
    print("  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    print(
        f"cold / reading {row['cold'] / row['reading']:.2f} (cpu {row['cold cpu'] / row['reading cpu']:.2f})  "
        f"unchanged / cold {row['unchanged'] / row['cold']:.2%} (cpu {row['unchanged cpu'] / row['cold cpu']:.2%})  "
        f"rules / cold {row['rules'] / row['cold']:.2%} (cpu {row['rules cpu'] / row['cold cpu']:.2%})  "
        f"ms per run {1000 * row['cold'] / row['runs']:.1f} (cpu {1000 * row['cold cpu'] / row['runs']:.1f})",
        flush=True,
    )


def growth(sizes: list[int], jobs: int) -> None:
    for runs in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch, "tree"), runs)
            cost(Path(scratch, "tree"), jobs)


def cores(tree: Path) -> None:
    for _ in range(2):
        walls = []
        for jobs in (1, 2):
            with tempfile.TemporaryDirectory() as scratch:
                walls.append(
                    seconds([*ANALYZE, str(tree), "-q", "-j", str(jobs), "--ledger", f"{scratch}/l"])
                )
        (one, cpu, _), (two, cpu_two, _) = walls
        print(
            f"one process {one:.1f} s (cpu {cpu:.1f})  two {two:.1f} s (cpu {cpu_two:.1f})  {one / two:.2f}x",
            flush=True,
        )


# --------------------------------------------------------------------------- kills


def result(tree: Path, ledger: Path, *more: str) -> Any:
    """What an audit says, without how long it took and what it had to do."""
    output = ledger.with_suffix(".json")
    command = [
        *ANALYZE,
        str(tree),
        "-q",
        "--ledger",
        str(ledger),
        "--report",
        "json",
        "-o",
        str(output),
        *more,
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    document = json.loads(output.read_text())
    return {
        "runs": document["runs"],
        "problems": document["problems"],
        "insight": document["insight"],
    }, document["audit"]


def kills(tree: Path, times: int = 10) -> None:
    """Kill an audit at random moments; the one that ends must say what an undisturbed one says."""
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        expected, _ = result(tree, Path(scratch, "whole.sqlite"))
        whole = time.perf_counter() - start
        ledger, rng = Path(scratch, "killed.sqlite"), random.Random()
        for _ in range(times):
            moment = rng.uniform(0.1, max(2.0, whole / 4))
            process = subprocess.Popen(
                [*ANALYZE, str(tree), "-q", "--ledger", str(ledger)],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                process.wait(moment)
                said = "ended before"
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                said = "killed"
            print(f"after {moment:5.1f} s: {said}, {known(ledger)} bundles in the ledger", flush=True)
        found, work = result(tree, ledger)
        print(f"then {work}")
        print("the same as undisturbed:", found == expected, len(found["runs"]), "runs")


def known(ledger: Path) -> int:
    import sqlite3

    try:
        return int(sqlite3.connect(ledger).execute("SELECT count(*) FROM bundles").fetchone()[0])
    except sqlite3.Error:
        return 0


def dask(tree: Path) -> None:
    """An audit by a scheduler and two workers on this machine, one of them killed half-way."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    program = [shutil.which("dask", path=str(Path(sys.executable).parent)) or "dask"]
    with tempfile.TemporaryDirectory() as scratch:
        expected, work = result(tree, Path(scratch, "whole.sqlite"))
        cluster = [subprocess.Popen([*program, "scheduler", "--host", address, "--no-dashboard"], **quiet)]
        for _ in range(2):
            worker = [
                *program,
                "worker",
                address,
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
                "--local-directory",
                scratch,
            ]
            cluster.append(subprocess.Popen(worker, cwd=ROOT, **quiet))
        try:
            ledger = Path(scratch, "dask.sqlite")
            options = ["--engine", "dask", "--scheduler", address]
            audit = subprocess.Popen(
                [*ANALYZE, str(tree), "-q", "--ledger", str(ledger), *options],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
            )
            while audit.poll() is None and known(ledger) < work["found"] / 2:
                time.sleep(0.1)
            done, alive = known(ledger), audit.poll() is None
            cluster[-1].send_signal(signal.SIGKILL)
            code = audit.wait()
            print(
                f"worker killed at {done} of {work['found']} bundles, the audit {'was' if alive else 'was not'} running; exit code {code}"
            )
            found, work = result(tree, ledger)
            print("the same as without a cluster:", found == expected, len(found["runs"]), "runs,", work)
        finally:
            for process in cluster:
                process.kill()


# --------------------------------------------------------------------------- overheads


def nothing(size: int) -> bytes:
    return bytes(size)


def overheads(count: int = 1000, size: int = 100_000) -> None:
    """What a task, a run in the ledger and a look at an unchanged run cost by themselves, in ms."""
    import joblib

    from analyzer.auditing.ledger import open_ledger
    from analyzer.auditing.supervise import Crew
    from analyzer.auditing.tasks import Bundle, Judge, Kept, Outcome, Settings

    with closing(Crew(Settings(), 1)) as crew:
        tasks = [Judge(str(k), ()) for k in range(count)]
        list(crew.outcomes(tasks[:10]))
        print(
            f"task handed to a process here and answered: {_each(lambda: list(crew.outcomes(tasks)), count):.3f}"
        )
    calls = [joblib.delayed(nothing)(size) for _ in range(count)]
    client = __import__("distributed").Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with client, joblib.parallel_config("dask"):
        parallel = joblib.Parallel(return_as="generator_unordered")
        list(parallel(calls[:10]))
        print(
            f"task handed out and back, dask, {size // 1000} kB: {_each(lambda: list(parallel(calls)), count):.3f}"
        )
    kept = Kept("x" * 1500, os.urandom(5000), os.urandom(2500))
    with tempfile.TemporaryDirectory() as scratch, open_ledger(Path(scratch, "l")) as ledger:

        def put() -> None:
            for k in range(count):
                ledger.put(Bundle(f"some/where/run{k}"), Outcome(str(k), runs=(kept,)), "reader", "rules")
            ledger.commit()

        print(f"run put into the ledger: {_each(put, count):.3f}")


def _each(action: Callable[[], object], count: int) -> float:
    """Wall time of one of ``count``, in ms."""
    start = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("make", "cost", "growth", "cores", "kills", "dask", "overheads"))
    parser.add_argument("tree", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    tree = given.tree and given.tree.resolve()
    actions = {
        "make": lambda: make(tree, given.runs), "cost": lambda: cost(tree, given.jobs), "cores": lambda: cores(tree),
        "growth": lambda: growth(given.sizes, given.jobs), "kills": lambda: kills(tree), "dask": lambda: dask(tree),
        "overheads": overheads,
    }  # fmt: skip
    actions[given.what]()


if __name__ == "__main__":
    main()
