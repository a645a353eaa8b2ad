"""Checkpoint statistics, side by side with the usual way, in one run on the same files.

    python benchmarks/checkpoint.py                          # 1.5 GB files, a few minutes
    python benchmarks/checkpoint.py --gigabytes 0.2          # a quick look
    python benchmarks/checkpoint.py --memory 4.5             # one more file, for the peak of memory alone
    python benchmarks/checkpoint.py --only spectral --weightwatcher PYTHON

The usual way is ``torch.load`` (or safetensors' ``load_file``) and a line of torch per statistic. Ours is
the command as a user runs it, a fresh process each time: start, imports, cached compiled code, findings
and output included. The pass alone is measured in this process against reading the same bytes with as
many threads. Accuracy is against numpy in double precision on whole tensors. Every file is written to a
temporary folder and removed. ``--weightwatcher`` names an interpreter that can import weightwatcher.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command sets it; for WeightWatcher, too

import numpy as np
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from analyzer.checkpoints import open_checkpoint, spectral  # noqa: E402
from analyzer.checkpoints.onepass import native, scan  # noqa: E402
from analyzer.checkpoints.onepass.quantiles import QUANTILES  # noqa: E402
from analyzer.checkpoints.regions import ArrayBlocks, StoredBlocks  # noqa: E402
from analyzer.checkpoints.statistics import COMPILED_FROM, THREADS, layer_stats  # noqa: E402
from analyzer.model import Checkpoint, LayerStats, TensorRef  # noqa: E402

USUAL = """
import sys, time, torch
torch.set_num_threads(2)
path, ordering = sys.argv[1], 0.0
if path.endswith(".safetensors"):
    from safetensors.torch import load_file
    tensors = list(load_file(path).values())
else:
    content = torch.load(path, map_location="cpu", weights_only=True)
    tensors = []
    def walk(value):
        if torch.is_tensor(value):
            tensors.append(value)
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)
    walk(content)
levels = torch.tensor([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
for t in tensors:
    t = t.float()
    row = [t.mean().item(), t.std().item(), t.min().item(), t.max().item(), t.abs().max().item()]
    row += [t.abs().sum().item(), t.norm().item(), (t == 0).sum().item()]
    row += [torch.isnan(t).sum().item(), torch.isinf(t).sum().item()]
    row += [((t != 0) & (t.abs() < torch.finfo(torch.float32).tiny)).sum().item()]
    centred = (t - t.mean()) / t.std()
    row += [(centred**3).mean().item(), (centred**4).mean().item() - 3]
    row += [(centred.abs() > 6).float().mean().item()]
    if t.ndim > 1:
        norms = t.flatten(1).norm(dim=1)
        row += [norms.min().item(), norms.median().item(), (norms == 0).sum().item()]
    start = time.perf_counter()
    if t.numel() < 1 << 24:  # torch.quantile takes no more
        row += torch.quantile(t.flatten(), levels).tolist()
    else:
        ordered = t.flatten().sort().values
        row += ordered[(levels.double() * (len(ordered) - 1)).long()].tolist()
    ordering += time.perf_counter() - start
    print(row)
print(ordering)
"""
LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
last = child.stdout.read().splitlines()[-1:]
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - start
work = usage.ru_utime + usage.ru_stime
print(json.dumps([status, seconds, work, usage.ru_maxrss / 1024, last[0].decode() if last else ""]))
"""


# --- files -------------------------------------------------------------------------------------------


def weights(gigabytes: float, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A transformer's state dict of about that size, with a few zeros, a dead unit and an outlier."""
    left, tensors = int(gigabytes * 1e9 / dtype.itemsize), {}
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "attn.in_proj": (3072, 1024),
        "attn.out": (1024, 1024),
        "fc1": (4096, 1024),
        "fc2": (1024, 4096),
    }
    vocabulary = max(1000, min(50_000, left // 6 // 1024))
    tensors["embed.weight"] = torch.randn(vocabulary, 1024, generator=generator).mul_(0.02).to(dtype)
    left -= vocabulary * 1024
    for layer in range(1000):
        for name, shape in shapes.items():
            tensor = torch.randn(shape, generator=generator).mul_(0.02)
            tensor[0] = 0
            tensor[1, :3] = torch.tensor([1.5, 0.0, -1e-40])
            tensors[f"layers.{layer}.{name}.weight"] = tensor.to(dtype)
            tensors[f"layers.{layer}.{name}.bias"] = torch.zeros(shape[0], dtype=dtype)
            left -= tensor.numel()
        tensors[f"layers.{layer}.ln.weight"] = torch.ones(1024, dtype=dtype)
        if left <= 0:
            break
    return tensors


def with_adam(gigabytes: float) -> dict[str, object]:
    model = weights(gigabytes / 3, torch.float32)
    generator = torch.Generator().manual_seed(1)
    state = {}
    for i, tensor in enumerate(model.values()):
        moments = [torch.randn(tensor.shape, generator=generator) for _ in range(2)]
        state[i] = {
            "step": torch.tensor(1000.0),
            "exp_avg": moments[0].mul_(1e-4),
            "exp_avg_sq": moments[1].square_().mul_(1e-6),
        }
    group = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "params": list(state)}
    return {"model": model, "optimizer": {"state": state, "param_groups": [group]}, "global_step": 1000}


def write(kind: str, gigabytes: float, folder: Path) -> Path:
    path = folder / ("file.safetensors" if kind == "safetensors" else "file.pt")
    if kind == "safetensors":
        save_file(weights(gigabytes, torch.float32), str(path))
    elif kind == "fp32 + Adam":
        torch.save(with_adam(gigabytes), path)
    else:
        torch.save(weights(gigabytes, torch.float32 if kind == "fp32" else torch.bfloat16), path)
    return path


# --- times and memory --------------------------------------------------------------------------------


def process(command: list[str]) -> tuple[float, float, float, str]:
    """Seconds of a fresh process, its seconds of processor time, its peak of memory in MB, its last line.

    Started by a small process: a child's peak begins at what its parent held when it forked. Compiled
    bytecode is used and written, as it is where the package is installed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    launched = [sys.executable, "-c", LAUNCHER, *command]
    done = subprocess.run(launched, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    status, wall, work, peak, last = json.loads(done.stdout)
    if status:
        raise SystemExit(f"{command} failed: {done.stderr}")
    return wall, work, peak, last


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def clocked(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of processor time of all threads."""
    work = time.process_time()
    wall = seconds(action)
    return wall, time.process_time() - work


def read_plainly(checkpoint: Checkpoint) -> None:
    """The tensors' bytes into a buffer for each thread, in the pieces and blocks of the pass."""
    runs = [piece.blocks for ref in checkpoint.tensors for piece in scan.pieces(ref)]

    def work(part: int) -> None:
        buffer = memoryview(bytearray(scan.BLOCK))
        for run in runs[part::THREADS]:
            assert isinstance(run, StoredBlocks)
            size = run.shape[0] * np.dtype(scan.DTYPES[run.dtype].raw).itemsize
            with scan.Reader(run.region) as reader:
                for done in range(0, size, scan.BLOCK):
                    reader.fill(run.offset + done, buffer[: min(scan.BLOCK, size - done)])

    threads = [threading.Thread(target=work, args=(part,)) for part in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_turn(*actions: Callable[[], object], rounds: int = 9) -> list[tuple[float, float]]:
    """The best of several rounds of each action, taken alternately: a busy machine slows all alike."""
    times = [[clocked(action) for action in actions] for _ in range(rounds)]
    return [(min(c[0] for c in column), min(c[1] for c in column)) for column in zip(*times, strict=True)]


def compare(kind: str, gigabytes: float, folder: Path) -> None:
    path = write(kind, gigabytes, folder)
    size = path.stat().st_size / 1e9
    command = [sys.executable, "-m", "analyzer", "checkpoint", str(path)]
    ours = [process(command) for _ in range(4)][1:]
    usual, usual_work, usual_memory, ordering = process([sys.executable, "-c", USUAL, str(path)])
    ours += [process(command) for _ in range(3)]
    plain = usual - float(ordering)
    best, work, peak = (column(row[k] for row in ours) for k, column in enumerate((min, min, max)))
    checkpoint = open_checkpoint(path)
    (reading, reading_work), (passing, passing_work) = in_turn(
        lambda: read_plainly(checkpoint), lambda: list(layer_stats(checkpoint))
    )
    print(
        f"{kind:12} {size:5.2f} GB | {usual:7.1f} s {usual_memory:6.0f} MB  without quantiles {plain:6.1f} s | "
        f"{best:6.2f} s {peak:5.0f} MB {usual / best:5.0f}x {plain / best:5.0f}x | "
        f"processor {usual_work:6.1f} s, {work:5.2f} s {usual_work / work:5.0f}x\n"
        f"{'':12} pass {passing:6.3f} s, read {reading:6.3f} s: {reading / passing:4.0%}; "
        f"processor {passing_work:6.3f} s, {reading_work:6.3f} s: {reading_work / passing_work:4.0%}",
        flush=True,
    )
    print(f"{'':12} {accuracy(checkpoint)}", flush=True)
    path.unlink()


def memory(gigabytes: float, folder: Path) -> None:
    path = write("fp32", gigabytes, folder)
    wall, work, peak, _ = process([sys.executable, "-m", "analyzer", "checkpoint", str(path)])
    print(
        f"memory: {path.stat().st_size / 1e9:.2f} GB in {wall:.2f} s, processor {work:.2f} s, peak {peak:.0f} MB",
        flush=True,
    )
    path.unlink()


# --- accuracy ----------------------------------------------------------------------------------------


def accuracy(checkpoint: Checkpoint, most: int = 12) -> str:
    """Worst relative errors against numpy in double precision, over the largest and some other tensors."""
    chosen = sorted(range(len(checkpoint.tensors)), key=lambda i: -checkpoint.tensors[i].count)
    chosen = [*chosen[:2], *chosen[2 :: max(1, len(chosen) // most)]]
    found = list(layer_stats(checkpoint))
    exact, std, moments, quantile = True, 0.0, 0.0, 0.0
    for i in chosen:
        got, x = (
            found[i],
            np.concatenate([b.astype(np.float64) for b in checkpoint.tensors[i].blocks(1 << 24)]),
        )
        exact &= _exact(got, x)
        std = max(std, abs((got.std or 0) - x.std()) / max(x.std(), 1e-300))
        if x.std() > 0 and got.kurtosis is not None:
            moments = max(moments, abs(got.kurtosis - (((x - x.mean()) / x.std()) ** 4).mean() + 3))
        x.sort()
        quantile = max(
            quantile, *(_quantile_error(got.quantiles[name], x, q) for name, q in QUANTILES.items())
        )
    return (
        f"{len(chosen)} tensors against float64: counts, minimum and maximum "
        f"{'exact' if exact else 'WRONG'}; std {std:.0e}, kurtosis {moments:.0e}, quantiles {quantile:.1e}"
    )


def _quantile_error(got: float, ordered: np.ndarray, q: float) -> float:
    """How far it lies outside the order statistics on both sides, relative to the larger."""
    rank = q * (len(ordered) - 1)
    low, high = float(ordered[math.floor(rank)]), float(ordered[math.ceil(rank)])
    return max(low - got, got - high, 0.0) / max(abs(low), abs(high), 1e-300)


def _exact(got: LayerStats, x: np.ndarray) -> bool:
    counts = (int((x == 0).sum()), int(np.isnan(x).sum()), int(np.isinf(x).sum()))
    return (got.zeros, got.nan, got.inf) == counts and (got.min, got.max) == (x.min(), x.max())


# --- spectra -----------------------------------------------------------------------------------------

WATCHER = """
import contextlib, io, json, sys, time, logging
import numpy as np, torch
import weightwatcher
logging.getLogger("weightwatcher").setLevel(logging.ERROR)
matrix = np.load(sys.argv[1])
model = torch.nn.Sequential(torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=False))
model[0].weight.data = torch.from_numpy(matrix)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    watcher = weightwatcher.WeightWatcher(model=model)
    start = time.process_time()
    values = watcher.get_ESD(layer=watcher.describe(model=model).layer_id.iloc[0])
    esd = time.process_time() - start
    start = time.process_time()
    details = watcher.analyze(model=model, mp_fit=False, randomize=False, plot=False)
    whole = time.process_time() - start
row = details.iloc[0]
print(json.dumps([esd, float(np.max(values)) ** 0.5, float(np.sum(values) / np.max(values)), whole, float(row.alpha), float(row.D)]))
"""


def full_svd(matrix: np.ndarray) -> tuple[float, float, float, float, float, float]:
    """WeightWatcher's method in few lines, where the package is not there: an SVD and the fit of its tail."""
    start = time.process_time()
    values = np.sort(np.linalg.svd(matrix, compute_uv=False).astype(np.float64) ** 2)
    esd = time.process_time() - start
    logs, best = np.log(values), (math.inf, 0.0)
    for i in range(len(values) - 1):
        n = len(values) - i
        exponent = 1 + n / (logs[i:].sum() - n * logs[i])
        theory = 1 - (values[i:] / values[i]) ** (1 - exponent)
        best = min(best, (float(np.abs(theory - np.arange(n) / n).max()), exponent))
    return esd, values[-1] ** 0.5, values.sum() / values[-1], time.process_time() - start, best[1], best[0]


def spectra(interpreter: str | None, folder: Path, sizes: list[int]) -> None:
    """Seconds of processor time, one thread each; the fastest of several turns of ours."""
    print("\nspectra: other is " + ("WeightWatcher" if interpreter else "WeightWatcher's method, a full SVD"))
    for rows, columns in [(size, size) for size in sizes] + [(4096, 1024), (1024, 4096)]:
        for name, matrix in matrices(rows, columns):
            path = folder / "matrix.npy"
            np.save(path, matrix)
            if interpreter:
                done = subprocess.run(
                    [interpreter, "-c", WATCHER, str(path)], capture_output=True, text=True, check=True
                )
                other = tuple(json.loads(done.stdout.splitlines()[-1]))
            else:
                other = full_svd(matrix)
            show(name, matrix, other)


def matrices(rows: int, columns: int) -> Iterator[tuple[str, np.ndarray]]:
    """A flat spectrum, as at initialisation, and one with a heavy tail, as after long training."""
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((rows, columns), np.float32) / np.float32(math.sqrt(columns))
    yield "flat", flat
    yield "heavy tail", flat * rng.pareto(2.5, columns).astype(np.float32)


def show(name: str, matrix: np.ndarray, other: tuple[float, ...]) -> None:
    esd, largest, stable, whole, exponent, distance = other
    ref = TensorRef("w", matrix.shape, "float32", matrix.nbytes, "model", ArrayBlocks(matrix))
    quick = min(clocked(lambda: spectral.largest_and_stable_rank(ref))[1] for _ in range(5))
    top, rank = spectral.largest_and_stable_rank(ref) or (0.0, 0.0)
    full = min(clocked(lambda: spectral.spectrum(ref))[1] for _ in range(2))
    found = spectral.spectrum(ref)
    assert found is not None
    print(
        f"{matrix.shape[0]:5} x {matrix.shape[1]:4} {name:10} | largest and stable rank {esd:6.2f} s,"
        f" ours {quick:6.4f} s"
        f" {esd / quick:5.0f}x, off by {abs(top / largest - 1):.0e} and {abs(rank / stable - 1):.0e} | "
        f"tail {whole:6.2f} s, ours {full:5.2f} s {whole / full:4.1f}x:"
        f" {exponent:.3f} (D {distance:.3f}), ours {found.tail_exponent:.3f} (D {found.tail_distance:.3f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument(
        "--memory", type=float, metavar="GIGABYTES", help="measure the peak on a file this large"
    )
    parser.add_argument("--only", choices=("files", "spectral", "memory"))
    parser.add_argument("--kinds", nargs="*", default=["fp32", "bf16", "fp32 + Adam", "safetensors"])
    parser.add_argument("--sizes", nargs="*", type=int, default=[1024, 2048, 4096])
    parser.add_argument("--weightwatcher", metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.only in (None, "files"):
            print(
                f"compiled from {COMPILED_FROM >> 20} MB on; the compiled code {'is there' if native.kernels() else 'is missing'}"
            )
            for kind in options.kinds:
                compare(kind, options.gigabytes, Path(folder))
        if options.memory:
            memory(options.memory, Path(folder))
        if options.only in (None, "spectral"):
            spectra(options.weightwatcher, Path(folder), options.sizes)


if __name__ == "__main__":
    main()
