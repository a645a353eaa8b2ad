"""Checkpoints against each other: a pair's difference, or the path of a run, as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.model import Checkpoint, TensorChange, TensorPath
from analyzer.report import terminal, wording
from analyzer.report.checkpoint import facts
from analyzer.report.csv_report import cell
from analyzer.report.json_report import SCHEMA_VERSION, dumps
from analyzer.report.sparkline import sparkline

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ROWS = 40
NAMED = 8
STATUS_WORDS = {
    "changed": "changed", "identical": "identical", "added": "only in the second", "removed": "only in the first",
    "reshaped": "of another shape",
}  # fmt: skip
Looks = dict[str, Any]


def render(
    held: Sequence[Checkpoint],
    changes: Sequence[TensorChange],
    paths: Sequence[TensorPath],
    form: str | None = None,
    **look: Any,
) -> str:
    """A pair's ``changes`` or the ``paths`` of more, as text or in the ``form`` csv or json."""
    if len(held) == 2:
        if form == "csv":
            return difference_csv(changes)
        before, after = held
        return (
            difference_json(before, after, changes)
            if form
            else difference_text(before, after, changes, **look)
        )
    if form == "csv":
        return trajectory_csv(held, paths)
    return trajectory_json(held, paths) if form else trajectory_text(held, paths, **look)


def matching(names: Iterable[Any], pattern: str | None) -> list[Any]:
    return [item for item in names if pattern is None or fnmatchcase(item.name, pattern)]


# --- two checkpoints -------------------------------------------------------------------------------


def difference_json(before: Checkpoint, after: Checkpoint, changes: Sequence[TensorChange]) -> str:
    """One JSON object: ``before``, ``after`` and ``changes``, field by field as in the model."""
    paths = {"before": before.path, "after": after.path}
    rows = [asdict(change) for change in changes]
    return dumps({"schema_version": SCHEMA_VERSION, **paths, "changes": rows})


def difference_text(
    before: Checkpoint,
    after: Checkpoint,
    changes: Sequence[TensorChange],
    *,
    verbose: bool = False,
    **look: Any,
) -> str:
    """How many tensors changed how, then the most changed ones first."""
    seen, console = _open(verbose, look)
    for word, checkpoint in (("from", before), ("to", after)):
        console.print(seen.line(f"{word:<4} {checkpoint.path}: {facts(checkpoint)}"))
    counts = Counter(change.status for change in changes)
    told = [f"{counts[status]} {words}" for status, words in STATUS_WORDS.items() if counts[status]]
    console.print(seen.line("; ".join(told) or "no tensor of a model in either"))
    for status in ("added", "removed", "reshaped"):
        _name(console, seen, status, [c for c in changes if c.status == status])
    moved = sorted((c for c in changes if c.status == "changed"), key=_most_changed)
    if moved:
        console.print()
        console.print(_changes_table(seen, moved if verbose else moved[:ROWS]))
        if len(moved) > ROWS and not verbose:
            console.print(f"{len(moved) - ROWS} less changed tensors with --verbose")
    same = [c for c in changes if c.status == "identical" and c.parameter]
    if same and moved:
        console.print()
        _name(console, seen, "identical", same)
    return terminal.text_of(console)


def _most_changed(change: TensorChange) -> tuple[bool, float, str]:
    """Undefined changes first: something there is zero or not finite."""
    return (change.relative is not None, -(change.relative or 0.0), change.name)


def _name(console: Console, look: terminal.Look, status: str, changes: Sequence[TensorChange]) -> None:
    if changes:
        names = [
            c.name + (f" {_shape(c.shape_before)} → {_shape(c.shape)}" if status == "reshaped" else "")
            for c in changes
        ]
        rest = len(names) - NAMED
        more = f" and {rest} more" if rest > 0 and not look.verbose else ""
        console.print(
            look.line(f"{STATUS_WORDS[status]}: {', '.join(names if look.verbose else names[:NAMED])}{more}")
        )


def _changes_table(look: terminal.Look, changes: Sequence[TensorChange]) -> Table:
    table = _columns(("tensor", "shape", "change", "cosine", "|w| before", "|w| after", "largest"))
    for c in changes:
        relative = "undefined" if c.relative is None else wording.percent(c.relative)
        numbers = (wording.number(v, 4) for v in (c.cosine, c.norm_before, c.norm, c.largest))
        name = " ".join(filter(None, [c.name, c.slot, "" if c.group == "model" else f"({c.group})"]))
        table.add_row(
            look.line(name), look.line(_shape(c.shape)), look.line(relative), *map(look.line, numbers)
        )
    return table


def difference_csv(changes: Sequence[TensorChange]) -> str:
    return _csv([asdict(change) for change in changes], list(TensorChange.__dataclass_fields__))


# --- a run's checkpoints -----------------------------------------------------------------------------


def trajectory_json(checkpoints: Sequence[Checkpoint], paths: Sequence[TensorPath]) -> str:
    rows = [asdict(path) for path in paths]
    held = [{"path": c.path, "step": c.step, "epoch": c.epoch} for c in checkpoints]
    return dumps({"schema_version": SCHEMA_VERSION, "checkpoints": held, "trajectory": rows})


def trajectory_text(
    checkpoints: Sequence[Checkpoint], paths: Sequence[TensorPath], *, verbose: bool = False, **look: Any
) -> str:
    """Per tensor: how far it has come from the first checkpoint, and its norm and moves as sparklines."""
    seen, console = _open(verbose, look)
    for checkpoint in checkpoints:
        console.print(seen.line(f"{checkpoint.path}: {facts(checkpoint)}"))
    trained = [path for path in paths if path.parameter or verbose]
    frozen = [path.name for path in trained if path.frozen]
    if frozen:
        more = f" and {len(frozen) - NAMED} more" if len(frozen) > NAMED else ""
        console.print(seen.line(f"never changed: {', '.join(frozen[:NAMED])}{more}"))
    moving = sorted(
        (p for p in trained if not p.frozen),
        key=lambda p: (p.travelled[-1] is not None, -(p.travelled[-1] or 0), p.name),
    )
    table = _columns(("tensor", "shape", "come far", "cosine", "norm", "norm over time", "moves"))
    for path in moving if verbose else moving[:ROWS]:
        come = path.travelled[-1]
        table.add_row(
            seen.line(path.name),
            seen.line(_shape(path.shape)),
            "undefined" if come is None else seen.line(wording.percent(come)),
            *(seen.line(wording.number(v, 4)) for v in (path.cosine[-1], path.norms[-1])),
            _spark(seen, path.norms),
            _spark(seen, path.moved[1:]),
        )
    console.print()
    console.print(table)
    return terminal.text_of(console)


def trajectory_csv(checkpoints: Sequence[Checkpoint], paths: Sequence[TensorPath]) -> str:
    """One row per tensor and checkpoint."""
    fields = ["checkpoint", "step", "tensor", "norm", "travelled", "moved", "cosine"]
    rows = [
        dict(
            zip(
                fields,
                (c.path, c.step, p.name, p.norms[i], p.travelled[i], p.moved[i], p.cosine[i]),
                strict=True,
            )
        )
        for p in paths
        for i, c in enumerate(checkpoints)
    ]
    return _csv(rows, fields)


def _spark(look: terminal.Look, values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return sparkline(np.array(known), min(len(known), 12), look.ascii) if known else ""


# --- both --------------------------------------------------------------------------------------------


def _open(verbose: bool, look: Looks) -> tuple[terminal.Look, Console]:
    width = max(terminal.NARROWEST, min(look.get("width", 100), terminal.WIDEST))
    seen = terminal.Look(width, look.get("ascii_only", False), verbose)
    return seen, terminal.open_console(seen, look.get("color", False))


def _columns(names: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in names:
        left = name in ("tensor", "shape", "norm over time", "moves")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "tensor", overflow="fold")
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _csv(rows: Iterable[dict[str, Any]], fields: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    for row in rows:
        writer.writerow([cell(_flat(row[name])) for name in fields])
    return text.getvalue()


def _flat(value: Any) -> Any:
    return _shape(value) if isinstance(value, tuple) else value
