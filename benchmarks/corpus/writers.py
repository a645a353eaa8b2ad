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
from safetensors.torch import save_file

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
    "odd": {"train_loss": "trn_crit", "val_loss": "dev_crit", "train_acc": "trn_hit"}
    | {"val_acc": "dev_hit", "lr": "eta"},
    "printed": {"train_loss": "train loss", "val_loss": "val loss", "train_acc": "train acc"}
    | {"val_acc": "val acc"},
    "iterations": {"train_loss": "loss", "train_acc": "acc"},
    "transformers": {"train_loss": "loss", "val_loss": "eval_loss", "val_acc": "eval_accuracy"}
    | {"val_recall": "eval_recall", "val_f1": "eval_f1", "lr": "learning_rate"},
}
FORMATS = {
    "csv": ("lightning", "keras", "slashes"),
    "jsonl": ("lightning", "slashes"),
    "events": ("torch", "slashes", "lightning"),
    "trainer_state": ("transformers",),
    "stdout": ("printed", "iterations"),
}


def chosen_rows(record: Record, style: str, columns: Callable[[str], bool]) -> Rows:
    """What one would have logged: rows in the order of writing, of the columns asked for.

    ``epochs``: one row per epoch, means; ``sparse``: every second step-level row of an epoch style;
    ``steps``: step losses, about 300 of them, and a row per epoch; ``every-step``: all of them;
    ``both``: as steps, with the epoch's mean of the training loss beside it under a tag of its own.
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
    if style == "both":
        rows = [renamed(row, "train_loss", "train_loss_step") for row in rows]
        means = [row.get("train_loss") for row in record.epochs]
        held_out = [
            row | ({} if mean is None else {"train_loss_epoch": mean})
            for row, mean in zip(held_out, means, strict=True)
        ]
    merged: Rows = []
    for part in itertools.zip_longest(attempts(rows), attempts(held_out), fillvalue=[]):
        merged += sorted(itertools.chain(*part), key=lambda row: row["step"])
    return [keep(row) for row in merged]


def attempts(rows: Rows) -> list[Rows]:
    """Stretches in which the steps do not go back."""
    cuts = [i + 1 for i, (a, b) in enumerate(itertools.pairwise(rows)) if b["step"] < a["step"]]
    return [rows[i:j] for i, j in itertools.pairwise([0, *cuts, len(rows)])]


def renamed(row: dict[str, float], old: str, new: str) -> dict[str, float]:
    return {new if key == old else key: value for key, value in row.items()}


def write(out: Path, rows: Rows, kind: str, dialect: str, unnamed: bool = False) -> None:
    names = DIALECTS[dialect]
    named = [{names.get(k, k): v for k, v in row.items()} for row in rows]
    if dialect == "keras":
        named = [{k: v for k, v in row.items() if k != "step"} for row in named]
    if kind == "stdout":
        show = printed if dialect == "printed" else iterations
        (out / "train.log").write_text("".join(show(row) + "\n" for row in named))
    elif kind == "csv":
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


def printed(row: dict[str, float]) -> str:
    """epoch 3 | step 120 | train loss 0.5312"""
    head = f"epoch {int(row.get('epoch', 0))} | step {int(row['step'])}"
    rest = [f"{k} {v:.6g}" for k, v in row.items() if k not in ("epoch", "step")]
    return " | ".join([head, *rest])


def iterations(row: dict[str, float]) -> str:
    """[epoch 3, iter 120] loss: 0.5312, lr: 0.001"""
    rest = [f"{k}: {v:.6g}" for k, v in row.items() if k not in ("epoch", "step")]
    return f"[epoch {int(row.get('epoch', 0))}, iter {int(row['step'])}] " + ", ".join(rest)


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


def write_checkpoints(out: Path, record: Record, kind: str) -> None:
    """Weights and optimizer as PyTorch saves them, or the weights alone as safetensors."""
    for state in record.checkpoints:
        path = out / f"step_{state['step']:06d}.{kind}"
        if kind == "safetensors":
            save_file({k: v.contiguous() for k, v in state["model_state_dict"].items()}, path)
        else:
            torch.save(state, path)
