"""The order of the stages, and the only place that catches everything.

A file, run or rule that fails costs only itself: it becomes a problem of its run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from analyzer._version import __version__
from analyzer.checkpoints import open_checkpoint
from analyzer.checkpoints.changes import WEIGHTS, difference, trajectory
from analyzer.checkpoints.spectral import with_spectra
from analyzer.checkpoints.statistics import layer_stats
from analyzer.errors import AnalyzerError
from analyzer.features import compute, specs
from analyzer.insight import insight, member, waste
from analyzer.model import (
    SEVERITIES,
    ActivationStats,
    Checkpoint,
    LayerStats,
    Problem,
    Report,
    Rule,
    Run,
    RunReport,
    Series,
    TensorChange,
    TensorPath,
)
from analyzer.reading import Progress, internal, iter_runs
from analyzer.reading import read_runs as read_runs
from analyzer.reading import run_name as run_name
from analyzer.reading import runs_of as runs_of
from analyzer.remote import local_copies, local_file
from analyzer.rulebook import diagnose, load_rules, verdict
from analyzer.rulebook.frameworks import own_first

VERDICTS = (*SEVERITIES, "healthy", "not-assessed")
STATISTICS_BYTES = 4 << 30  # of tensors read per run without being asked for checkpoints


def analyze_paths(
    paths: Sequence[str | Path],
    rules: Sequence[Rule] | None = None,
    roles: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read, measure and diagnose every run below ``paths``: local ones, URLs, archives.

    What was fetched or unpacked for it is gone when this returns, tensors included.
    """
    rules = load_rules() if rules is None else rules
    with local_copies(paths, progress) as copies:
        problems = copies.problems
        reports = [diagnose_run(run, rules) for run in iter_runs(copies.paths, problems, roles, progress)]
        return copies.shown(to_report(reports, problems))


def diagnose_run(
    run: Run, rules: Sequence[Rule], most: int | None = STATISTICS_BYTES, spectral: bool = False
) -> RunReport:
    """Measure one run and apply the rules; ``spectral``: with the spectra of all weights, large ones too."""
    problems = [*run.problems, *(p for c in run.checkpoints for p in c.problems if p not in run.problems)]
    try:
        layers = tuple(checkpoint_layers(run.checkpoints, problems, most, spectral))
        features = compute(run, layers)
        findings, not_applicable, rule_problems = diagnose(rules, features, specs())
        problems += rule_problems
        return RunReport(
            run,
            verdict(findings, rules, not_applicable),
            own_first(findings, run),
            not_applicable,
            tuple(problems),
            features,
            layers,
            waste({f.rule for f in findings}, features),
        )
    except Exception as error:
        return RunReport(run, "not-assessed", problems=(*problems, internal(run.path, error)))


@dataclass(frozen=True, slots=True)
class Forward:
    """A forward pass the user asked for: through their own model, or the graph that the file carries."""

    inputs: Path | None = None
    model: str = ""  # package.module:factory; "" runs the file's own graph


def diagnose_checkpoint(
    given: str | Path, rules: Sequence[Rule], spectral: bool = False, forward: Forward | None = None
) -> RunReport:
    """One checkpoint on its own, all of it read; IngestError where it cannot be.

    Nothing is executed but what ``forward`` asks for; AnalyzerError where that fails.
    """
    with local_file(given) as (path, copies):
        checkpoint = open_checkpoint(path)
        run = Run(path.name, path.as_posix(), checkpoints=(checkpoint,), files=(path.as_posix(),))
        run = replace(run, hyperparameters=checkpoint.hyperparameters)
        if forward is None:
            return copies.shown(diagnose_run(run, rules, None, spectral))
        found, series, problems = _forward(path, checkpoint, forward)
        run = replace(run, series=series, problems=problems)
        return copies.shown(replace(diagnose_run(run, rules, None, spectral), activations=found))


def _forward(
    path: Path, checkpoint: Checkpoint, forward: Forward
) -> tuple[tuple[ActivationStats, ...], tuple[Series, ...], tuple[Problem, ...]]:
    from analyzer import activations  # torch or onnxruntime comes with it

    unfit: tuple[str, ...] = ()
    if not forward.model:
        found = activations.of_file(path, forward.inputs)
    elif forward.inputs is None:
        raise AnalyzerError("--model needs --inputs: a file with a batch to run it on")
    else:
        found, unfit = activations.of_model(forward.model, checkpoint, forward.inputs)
    problems = (Problem(str(path), "unfit", f"loaded into {forward.model}: {text}") for text in unfit)
    return found, activations.as_series(found), tuple(problems)


def compare_checkpoints(
    given: Sequence[str | Path], groups: Collection[str] = WEIGHTS
) -> tuple[list[Checkpoint], list[TensorChange], list[TensorPath]]:
    """Checkpoints in the order given, and how their tensors differ: two as a pair, more as a path.

    Raises AnalyzerError where one of them cannot be read.
    """
    with ExitStack() as opened:
        local = [opened.enter_context(local_file(path)) for path in given]
        held = [open_checkpoint(path) for path, _ in local]
        changes = list(difference(held[0], held[1], groups)) if len(held) == 2 else []
        paths = list(trajectory(held)) if len(held) > 2 else []
        return [copies.shown(c) for c, (_, copies) in zip(held, local, strict=True)], changes, paths


def checkpoint_layers(
    checkpoints: Sequence[Checkpoint],
    problems: list[Problem],
    most: int | None = STATISTICS_BYTES,
    spectral: bool = False,
) -> Iterator[LayerStats]:
    """Statistics of the tensors of the first and of the last checkpoint of a run.

    Where a file holds either weights or optimizer state, of each kind the first and the last.
    Checkpoints with more than ``most`` bytes of tensors are left out; None reads them all.
    The last weights come with their spectra: unless ``spectral``, only small matrices.
    """
    weights = [c for c in checkpoints if any(t.group == "model" for t in c.tensors)]
    states = [c for c in checkpoints if c not in weights]
    for checkpoint in dict.fromkeys([*states[:1], *states[-1:], *weights[:1], *weights[-1:]]):
        size = sum(t.nbytes for t in checkpoint.tensors)
        if most is not None and size > most:
            message = f"{size / 2**30:.1f} GiB of tensors were not read; use `analyze checkpoint` on the file"
            problems.append(Problem(checkpoint.path, "too-large", message))
            continue
        try:
            layers = layer_stats(checkpoint, problems)
            last = checkpoint in weights[-1:]
            yield from with_spectra(checkpoint, layers, spectral) if last else layers
        except Exception as error:
            problems.append(internal(checkpoint.path, error))


def to_report(reports: Iterable[RunReport], problems: Iterable[Problem]) -> Report:
    """Worst runs first: by verdict, then number and confidence of findings, then name."""
    ranked = sorted(reports, key=_badness)
    compared = insight(map(member, ranked)) if len(ranked) > 1 else None
    return Report(tuple(ranked), tuple(problems), __version__, compared)


def _badness(report: RunReport) -> tuple[int, int, float, str]:
    worst = [f for f in report.findings if f.severity == report.verdict and f.explained_by is None]
    top = max((f.confidence for f in worst), default=0.0)
    return (VERDICTS.index(report.verdict), -len(worst), -top, report.run.name)
