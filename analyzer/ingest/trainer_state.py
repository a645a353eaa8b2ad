"""The Hugging Face Trainer's ``trainer_state.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from analyzer.errors import IngestError
from analyzer.ingest.json_history import load
from analyzer.ingest.json_rows import Rows, add_rows, table_series
from analyzer.model import Reading, Scalar

NAME = "trainer_state"
SUMMARY = "Hugging Face Trainer state (trainer_state.json)"
ORDER = 10

CHECKPOINT = re.compile(r"checkpoint-\d+")
SETTINGS = (
    "num_train_epochs",
    "max_steps",
    "train_batch_size",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "best_metric",
    "best_global_step",
    "best_model_checkpoint",
)


def claims(path: Path, head: bytes) -> bool:
    """By the name, or by the keys at the top of a renamed copy."""
    if path.suffix.lower() != ".json":
        return False
    return path.name == "trainer_state.json" or (
        b'"log_history"' in head and b'"is_world_process_zero"' in head
    )


def run_root(path: Path) -> Path:
    """The folder above ``checkpoint-500``: every checkpoint holds the history of its run so far."""
    return path.parent.parent if CHECKPOINT.fullmatch(path.parent.name) else path.parent


def read(path: Path) -> Reading:
    """``log_history`` as series; the summary at the end of training is a single point of its own tags."""
    data, problems = load(path)
    if not isinstance(data, dict) or not isinstance(data.get("log_history"), list):
        raise IngestError(str(path), "no log_history in it", "no-series")
    table = Rows()
    add_rows(table, (row for row in data["log_history"] if isinstance(row, dict)))
    if not table.columns:
        raise IngestError(str(path), "its log_history is empty: nothing was logged", "empty")
    return Reading(
        series=table_series(table, str(path)), hyperparameters=_settings(data), problems=tuple(problems)
    )


def _settings(data: Mapping[str, object]) -> dict[str, Scalar]:
    """Settings that the state repeats; an unlimited number of epochs is stored as 2**63 - 1."""
    kept: dict[str, Scalar] = {}
    for name in SETTINGS:
        value = data.get(name)
        if isinstance(value, str | int | float) and value not in (-1, 2**63 - 1):
            kept[name] = value
    return kept
