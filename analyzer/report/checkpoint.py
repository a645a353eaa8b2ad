"""One checkpoint as text: what it is, what is wrong with it, its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from analyzer.model import Checkpoint, LayerStats, RunReport
from analyzer.report import layers, terminal, wording
from analyzer.report.json_report import Document, checkpoint_document, dumps

if TYPE_CHECKING:
    from rich.table import Table

Order = Literal["worst", "name", "size", "depth"]
TENSOR_ROWS = 40
WIDE = 110  # columns of a terminal that has room for every statistic
FACTS = ("optimizer", "lr", "weight_decay", "step")


def as_json(report: RunReport, pattern: str | None = None, order: Order = "depth") -> str:
    """One JSON object with ``tensors`` and ``findings``, see the schema of the run's report."""
    document: Document = checkpoint_document(report)
    chosen = {id(layer) for layer in select(report.layers, pattern, order)}
    kept = [t for layer, t in zip(report.layers, document["tensors"], strict=True) if id(layer) in chosen]
    return dumps({**document, "tensors": kept})


def as_text(
    report: RunReport,
    pattern: str | None = None,
    order: Order = "worst",
    *,
    width: int = 100,
    color: bool = False,
    ascii_only: bool = False,
    verbose: bool = False,
) -> str:
    """Facts, findings, then the tensors in ``order`` whose name matches ``pattern``."""
    look = terminal.Look(max(terminal.NARROWEST, min(width, terminal.WIDEST)), ascii_only, verbose)
    console = terminal.open_console(look, color)
    terminal.finding_list(console, look, report, facts(report.run.checkpoints[0]))
    shown = select(report.layers, pattern, order)
    if pattern is None and not verbose:
        shown = select(layers.final_weights(report.layers), None, order)
    console.print()
    console.print(_table(look, shown if verbose else shown[:TENSOR_ROWS]))
    hidden = len(report.layers) - min(len(shown), TENSOR_ROWS)
    if pattern is None and hidden and not verbose:
        console.print(f"{hidden} more tensors (optimizer state among them) with --verbose")
    terminal.problem_list(console, look, report.problems)
    return terminal.text_of(console)


def facts(checkpoint: Checkpoint) -> str:
    """Container, tensors and parameters, place in training, optimizer."""
    model = [t for t in checkpoint.tensors if t.group == "model"]
    parts = [
        checkpoint.format,
        wording.counted(len(checkpoint.tensors), "tensor"),
        f"{sum(t.count for t in model):,} parameters and buffers of the model",
        "" if checkpoint.epoch is None else f"epoch {checkpoint.epoch}",
        "" if checkpoint.step is None else f"step {checkpoint.step}",
    ]
    known = [f"{key} {checkpoint.optimizer[key]}" for key in FACTS if key in checkpoint.optimizer]
    if known:
        parts.append(f"optimizer state ({', '.join(known)})")
    return ", ".join(filter(None, parts))


def select(found: Sequence[LayerStats], pattern: str | None, order: Order) -> list[LayerStats]:
    """The layers whose name matches the glob, in order."""
    chosen = [layer for layer in found if pattern is None or fnmatchcase(layer.name, pattern)]
    if order == "worst":
        return layers.worst_first(chosen)
    if order == "name":
        return sorted(chosen, key=layers.label)
    if order == "size":
        return sorted(chosen, key=lambda layer: -layer.count)
    return chosen


def _table(look: terminal.Look, shown: Sequence[LayerStats]) -> Table:
    """A row a tensor; a narrow terminal gets the largest magnitude for minimum and maximum."""
    from rich.table import Table

    wide = look.width >= WIDE
    names = ("tensor", "shape", *(("dtype",) if wide else ()), "mean", "std")
    names += (*(("min", "max") if wide else ("|max|",)), "zeros", "NaN/Inf")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in names:
        text = name in ("tensor", "shape", "dtype")
        table.add_column(name, justify="left" if text else "right", no_wrap=name != "tensor", overflow="fold")
    for layer in shown:
        bad = layer.nan + layer.inf
        bounds = (layer.min, layer.max) if wide else (layer.abs_max,)
        table.add_row(
            look.line(layers.label(layer)),
            look.line("×".join(map(str, layer.shape)) or "scalar"),
            *((layer.dtype,) if wide else ()),
            *(look.line(wording.number(v, 3)) for v in (layer.mean, layer.std, *bounds)),
            wording.percent(layers.share(layer.zeros, layer)) if layer.zeros else "",
            str(bad) if bad else "",
            style="bold red" if bad else "",
        )
    return table
