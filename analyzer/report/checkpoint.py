"""One checkpoint as text: what it is, what is wrong with it, its tensors."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from analyzer.model import ActivationStats, Checkpoint, LayerStats, Measurement, RunReport, Scalar
from analyzer.report import layers, terminal, wording
from analyzer.report.csv_report import cell
from analyzer.report.json_report import Document, checkpoint_document, dumps, tensor_document

if TYPE_CHECKING:
    from rich.table import Table

Order = Literal["worst", "name", "size", "depth"]
TENSOR_ROWS = 40
WIDE = 110  # columns of a terminal that has room for every statistic
POOR_FIT = 0.1  # Kolmogorov-Smirnov distance beyond which a tail is no power law
SPECTRAL = ("largest σ", "stable rank", "eff. rank", "tail exp.")
EVIDENCE = {
    "optimizer.layer_ratio": "gradient of early over late layers",
    "update.ratio": "next update over the weights, median",
    "optimizer.never_trained": "parameters without any gradient",
    "optimizer.without_state": "parameters without optimizer state",
    "optimizer.stopped_units": "largest share of units whose gradient stopped",
    "optimizer.stopped_steps_ago": "about so many steps ago",
    "optimizer.missed_steps": "largest share of steps a parameter missed",
    "checkpoint.loss_scale": "loss scale",
    "checkpoint.skipped_steps": "share of skipped steps",
    "weights.inactive_channels": "largest share of batch norm channels that are almost never positive",
    "norm.never_active": "the same, whatever their distribution",
    "norm.off_channels": "largest share of layer norm channels that are switched off",
    "weights.shut_units": "largest share of units that no non-negative input opens",
    "weights.closed_units": "largest share of units that no input between 0 and 1 opens",
    "weights.pinned_units": "largest share of units at a sigmoid's limit for all inputs between -1 and 1",
    "attention.logit_scale": "attention logits for inputs of unit variance, root mean square",
    "weights.effective_rank": "smallest effective rank over the smaller side",
}
FROM_OPTIMIZER = ("optimizer.layer_ratio", "optimizer.stopped_units", "optimizer.never_trained")
CAVEAT = (
    "Gradients are as the optimizer got them: after clipping, and with the weight decay that Adam (not AdamW) "
    "adds; rows of rare tokens and frozen parameters rest by nature."
)
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
    spectral: bool = False,
) -> str:
    """Facts, findings, then the tensors in ``order`` whose name matches ``pattern``."""
    look = terminal.Look(max(terminal.NARROWEST, min(width, terminal.WIDEST)), ascii_only, verbose)
    console = terminal.open_console(look, color)
    terminal.finding_list(console, look, report, facts(report.run.checkpoints[0]))
    shown = select(report.layers, pattern, order)
    if pattern is None and not verbose:
        shown = select(layers.final_weights(report.layers), None, order)
    if verbose:
        for line in evidence(report):
            console.print(look.line(line))
    if report.activations:
        console.print()
        console.print(_activations(look, report.activations))
    if shown:
        console.print()
        console.print(_table(look, shown if verbose else shown[:TENSOR_ROWS], spectral))
    if pattern is not None and not shown:
        console.print(look.line(f"No tensor's name matches {pattern}."))
    hidden = len(report.layers) - min(len(shown), TENSOR_ROWS)
    if pattern is None and hidden and not verbose:
        console.print(f"{hidden} more tensors (optimizer state among them) with --verbose")
    terminal.problem_list(console, look, report.problems)
    return terminal.text_of(console)


def as_csv(report: RunReport, pattern: str | None = None, order: Order = "depth") -> str:
    """One row per tensor, quantiles as columns of their own; unit-wise lists left out."""
    rows = [_flat(tensor_document(layer)) for layer in select(report.layers, pattern, order)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def _flat(document: Document) -> dict[str, str | float | None]:
    row: dict[str, str | float | None] = {}
    for name, value in document.items():
        if name == "shape":
            row[name] = "x".join(map(str, value))
        elif isinstance(value, Mapping):
            row |= {f"{name}_{key}": item for key, item in value.items()}
        elif value is None or isinstance(value, str | int | float):
            row[name] = value
    return row


def facts(checkpoint: Checkpoint) -> str:
    """Container, tensors and parameters, place in training, optimizer."""
    model = [t for t in checkpoint.tensors if t.group == "model"]
    parts = [
        checkpoint.format,
        wording.counted(len(checkpoint.tensors), "tensor"),
        f"{sum(t.count for t in model):,} parameters and buffers of the model" if model else "",
        "" if checkpoint.epoch is None else f"epoch {checkpoint.epoch}",
        "" if checkpoint.step is None else f"step {checkpoint.step}",
    ]
    settings = checkpoint.optimizer
    known = [f"{key} {_setting(settings[key])}" for key in FACTS if key in settings]
    if known:
        parts.append(f"optimizer state ({', '.join(known)})")
    return ", ".join(filter(None, parts))


def _setting(value: Scalar) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def evidence(report: RunReport) -> list[str]:
    """What the optimizer's state and the weights tell of gradients and activations, one line each."""
    found = [(text, report.features.get(name)) for name, text in EVIDENCE.items()]
    lines = [
        f"  {text}: {wording.number(m.value, 3)}{f' ({m.where})' if m.where and m.value else ''}"
        for text, m in found
        if isinstance(m, Measurement)
    ]
    from_optimizer = any(isinstance(report.features.get(name), Measurement) for name in FROM_OPTIMIZER)
    return ["", "evidence:", *lines, *([f"  {CAVEAT}"] if from_optimizer else [])] if lines else []


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


def _table(look: terminal.Look, shown: Sequence[LayerStats], spectral: bool) -> Table:
    """A row a tensor; a narrow terminal gets the largest magnitude for minimum and maximum.

    ``spectral`` columns take the place of mean, spread and zeros.
    """
    from rich.table import Table

    wide = look.width >= WIDE
    names = ("tensor", "shape", *(("dtype",) if wide else ()), *(() if spectral else ("mean", "std")))
    names += (*(("min", "max") if wide else ("|max|",)), *(SPECTRAL if spectral else ("zeros",)), "NaN/Inf")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in names:
        text = name in ("tensor", "shape", "dtype")
        table.add_column(name, justify="left" if text else "right", no_wrap=name != "tensor", overflow="fold")
    for layer in shown:
        bad = layer.nan + layer.inf
        zeros = wording.percent(layers.share(layer.zeros, layer)) if layer.zeros else ""
        bounds = (layer.min, layer.max) if wide else (layer.abs_max,)
        table.add_row(
            look.line(layers.label(layer)),
            look.line("×".join(map(str, layer.shape)) or "scalar"),
            *((layer.dtype,) if wide else ()),
            *(
                look.line(wording.number(v, 3))
                for v in (*(() if spectral else (layer.mean, layer.std)), *bounds)
            ),
            *(map(look.line, _spectrum(layer)) if spectral else (zeros,)),
            str(bad) if bad else "",
            style="bold red" if bad else "",
        )
    return table


OUTPUTS = ("output of", "kind", "mean", "std", "|max|", "zeros", "pinned", "dead units", "NaN/Inf")


def _activations(look: terminal.Look, found: Sequence[ActivationStats]) -> Table:
    """Every layer's output in the order of the forward pass; columns in which something is."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    rows = [_activation(look, layer) for layer in found]
    used = [k for k, name in enumerate(OUTPUTS) if any(row[k] for row in rows)]
    for name in (OUTPUTS[k] for k in used):
        text = name in ("output of", "kind")
        table.add_column(
            name, justify="left" if text else "right", no_wrap=name != "output of", overflow="fold"
        )
    for layer, row in zip(found, rows, strict=True):
        table.add_row(*(row[k] for k in used), style="bold red" if layer.nan + layer.inf else "")
    return table


def _activation(look: terminal.Look, layer: ActivationStats) -> tuple[str, ...]:
    bad = layer.nan + layer.inf
    largest = None if layer.min is None or layer.max is None else max(-layer.min, layer.max)
    return (
        look.line(layer.layer),
        look.line(layer.kind),
        *(look.line(wording.number(v, 3)) for v in (layer.mean, layer.std, largest)),
        wording.percent(layer.zeros) if layer.zeros else "",
        "" if layer.saturated is None else wording.percent(layer.saturated),
        f"{layer.dead_units}/{layer.units}" if layer.dead_units else "",
        f"{bad} begins here" if layer.origin else str(bad) if bad else "",
    )


def _spectrum(layer: LayerStats) -> tuple[str, ...]:
    """Cells of the spectral columns; a tail that fits no power law is in brackets."""
    found = layer.spectrum
    if found is None:
        return ("",) * len(SPECTRAL)
    side = min(found.rows, found.columns)
    tail = wording.number(found.tail_exponent, 3) if found.tail_exponent else ""
    fits = (found.tail_distance or 0) <= POOR_FIT
    rank = f"{wording.number(found.effective_rank, 3)}/{side}"
    return (
        wording.number(found.largest, 3),
        wording.number(found.stable_rank, 3),
        rank if found.exact else f"~{rank}",
        tail if fits else f"({tail})",
    )
