"""From a record to log files, in the formats and under the tags of different frameworks."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.corpus.training import Record
from benchmarks.make_sample_logs import event_log

Rows = list[dict[str, float]]

# Tags of each dialect; a key without an entry is written as it is.
DIALECTS: dict[str, dict[str, str]] = {
    "lightning": {"lr": "lr-AdamW", "train_acc": "train_acc"},
    "keras": {
        "train_loss": "loss",
        "train_acc": "accuracy",
        "val_acc": "val_accuracy",
        "lr": "learning_rate",
    },
    "torch": {"train_loss": "Loss/train", "val_loss": "Loss/val", "train_acc": "Accuracy/train"}
    | {"val_acc": "Accuracy/val", "val_recall": "Recall/val", "val_f1": "F1/val"},
    "slashes": {"train_loss": "train/loss", "val_loss": "val/loss", "train_acc": "train/acc"}
    | {"val_acc": "val/acc", "val_recall": "val/recall", "val_f1": "val/f1", "lr": "train/lr"},
    "transformers": {"train_loss": "loss", "val_loss": "eval_loss", "val_acc": "eval_accuracy"}
    | {"val_recall": "eval_recall", "val_f1": "eval_f1", "lr": "learning_rate"},
}
FORMATS = {
    "csv": ("lightning", "keras", "slashes"),
    "jsonl": ("lightning", "slashes"),
    "events": ("torch", "slashes"),
    "trainer_state": ("transformers",),
}


def chosen_rows(record: Record, style: str, columns: Callable[[str], bool]) -> Rows:
    """What one would have logged: rows in the order of writing, of the columns asked for.

    ``epochs``: one row per epoch, means; ``sparse``: every second step-level row of an epoch style;
    ``steps``: step losses, about 300 of them, and a row per epoch; ``every-step``: all of them.
    """

    def keep(row: dict[str, float]) -> dict[str, float]:
        return {k: v for k, v in row.items() if k in ("step", "epoch") or columns(k)}

    if style == "epochs" and record.epochs:
        return [keep(row) for row in record.epochs]
    every = {"every-step": 1, "sparse": max(1, len(record.steps) // 40)}.get(
        style, max(1, len(record.steps) // 300)
    )
    rows = record.steps[::every]
    held_out = [{k: v for k, v in row.items() if k[:3] in ("ste", "epo", "val")} for row in record.epochs]
    merged = sorted([*enumerate(rows), *enumerate(held_out)], key=lambda item: item[1]["step"])
    return [keep(row) for _, row in merged] if not rewinds(rows) else [keep(r) for r in (*rows, *held_out)]


def rewinds(rows: Rows) -> bool:
    return any(b["step"] < a["step"] for a, b in itertools.pairwise(rows))


def write(out: Path, rows: Rows, kind: str, dialect: str, unnamed: bool = False) -> None:
    names = DIALECTS[dialect]
    named = [{names.get(k, k): v for k, v in row.items()} for row in rows]
    if kind == "csv":
        write_csv(out / "metrics.csv", named, unnamed)
    elif kind == "jsonl":
        (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    elif kind == "trainer_state":
        state = {"global_step": int(rows[-1]["step"]), "log_history": named, "is_local_process_zero": True}
        (out / "trainer_state.json").write_text(json.dumps(state, indent=1))
    else:
        with event_log(out) as log:
            for row in named:
                for tag, value in row.items():
                    if tag != "step":
                        log.add_scalar(tag, value, int(row["step"]))


def write_csv(path: Path, rows: Rows, unnamed: bool) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="")
        if unnamed:  # as a data frame with an index and numbered columns
            print(",".join(["", *(str(i) for i in range(len(columns) - 1))]), file=file)
        else:
            table.writeheader()
        table.writerows(rows)


def write_hparams(out: Path, values: dict[str, Any], kind: str) -> None:
    if kind in ("trainer_state", "jsonl"):
        (out / "config.json").write_text(json.dumps(values))
    else:
        (out / "hparams.yaml").write_text(yaml.safe_dump(values))


def write_checkpoints(out: Path, record: Record) -> None:
    for state in record.checkpoints:
        torch.save(state, out / f"step_{state['step']:06d}.pt")
