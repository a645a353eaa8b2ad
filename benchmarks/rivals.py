"""Other post-hoc linters of training logs on the same runs: runmedic, trainspotter and losslint.

Their checks are not our diagnoses, so each check is given every diagnosis it could stand for (``MEANS``), and
where several would do, the one the label asks for is taken. Checks of speed and of memory, which no label
speaks of, count neither for nor against. A tool that cannot read a run has found nothing in it.

    pip install -e '.[bench]'
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType

LIMIT = 60  # seconds for one run

# (check, severity of ours), as the tool reports it
Check = tuple[str, str]

STUCK = (
    "loss-plateau loss-not-decreasing underfitting slow-convergence lr-too-low converged"
    " lr-schedule-decays-early no-early-stopping vanishing-gradients dead-relu saturated-activations"
)
JUMPS = "loss-spikes data-outliers oscillating-loss lr-too-high exploding-gradients unshuffled-data"
RISES = "loss-divergence lr-too-high nan-loss exploding-gradients oscillating-loss exploding-weights"
NORMS = "exploding-gradients lr-too-high bad-initialization data-outliers mixed-precision-instability"
WORSE = "overfitting train-val-mismatch no-early-stopping"
NOT_A_NUMBER = "nan-loss loss-divergence exploding-gradients mixed-precision-instability nan-weights"

MEANS: dict[str, dict[str, str]] = {
    "runmedic": {
        "non_finite": NOT_A_NUMBER,
        "divergence": RISES,
        "loss_spikes": JUMPS,
        "no_learning": STUCK,
        "overfitting": WORSE,
        "val_below_train": "label-leakage",
        "grad_spikes": NORMS + " loss-spikes",
        "constant_lr_plateau": STUCK,
        "log:amp_overflow": "mixed-precision-instability nan-loss",
        "log:nan_loss": NOT_A_NUMBER,
    },
    "trainspotter": {
        "divergence": NOT_A_NUMBER + " " + RISES,
        "spikes": JUMPS,
        "plateau": STUCK,
        "overfitting": WORSE,
        "grad_norm": NORMS + " clipping-saturated",
        "lr_schedule": "lr-too-high lr-schedule-decays-early",
        "loss_floor": "label-leakage",
        "eval_noise": "oscillating-loss train-val-mismatch",
    },
    "losslint": {
        "nan_inf": NOT_A_NUMBER,
        "step_backtrack": "log-damaged",
        "parse": "log-damaged",
        "loss_spike": JUMPS,
        "divergence": RISES,
        "overfit_onset": WORSE,
        "stagnation": STUCK,
    },
}
SEVERITIES = {"error": "critical"}
LOGS = ("events.out.tfevents*", "*.csv", "*.jsonl", "trainer_state.json", "*.log", "*.txt")


def log_file(run: Path) -> Path:
    """The run's log where a tool takes a file; the folder where there is none of the usual ones."""
    if run.is_file():
        return run
    return next((path for pattern in LOGS for path in sorted(run.rglob(pattern))), run)


def runmedic(run: Path) -> Iterator[Check]:
    loaders, roles, checks = (
        importlib.import_module(f"runmedic.{m}") for m in ("loaders", "roles", "checks")
    )
    for read in loaders.load(str(run)):
        for finding in checks.run_checks(read, roles.detect(read, {})):
            yield finding.check, finding.severity


def trainspotter(run: Path) -> Iterator[Check]:
    tool = importlib.import_module("trainspotter")
    path = log_file(run)
    for finding in tool.run_all(tool.load_run(path.parent if "tfevents" in path.name else path)):
        yield finding.detector, finding.severity


def losslint(run: Path) -> Iterator[Check]:
    parsing, checks = (importlib.import_module(f"losslint.{m}") for m in ("parsing", "checks"))
    for finding in checks.run_all_checks(parsing.load_run(log_file(run))):
        yield finding.check, finding.severity


RIVALS: dict[str, Callable[[Path], Iterator[Check]]] = {
    "runmedic": runmedic,
    "trainspotter": trainspotter,
    "losslint": losslint,
}


def installed() -> dict[str, str]:
    """Version of each rival that is there."""
    found = {}
    for name in RIVALS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def findings(name: str, run: Path, preferred: Sequence[str]) -> list[tuple[str, str]] | None:
    """(diagnosis, severity) of each finding of ``name``, the worst first; None where it reads nothing.

    Of the diagnoses a check may stand for, the first that is in ``preferred`` is taken, else its first.
    """
    try:
        with time_limit(LIMIT):
            checks = list(RIVALS[name](run))
    except Exception:  # another program's errors, of any kind
        return None
    chosen = [
        (choose(MEANS[name][c].split(), preferred), SEVERITIES.get(s, s))
        for c, s in checks
        if c in MEANS[name]
    ]
    return sorted(dict.fromkeys(chosen), key=lambda pair: ("critical", "warning", "info").index(pair[1]))


def choose(options: Sequence[str], preferred: Sequence[str]) -> str:
    return next((name for name in preferred if name in options), options[0])


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def preferences(label: Mapping[str, Sequence[str]]) -> list[str]:
    """Diagnoses in the order in which a label would like them: asked for, true, permitted."""
    asked = [name for entry in label["must"] for name in entry.split("|")]
    return [*asked, *label.get("true", ()), *label["may"]]
