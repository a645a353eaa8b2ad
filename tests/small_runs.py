"""Small training logs on disk, for the tests that are about where files lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

Curve = Callable[[float], float]


def falling(x: float) -> float:
    return float(2 * np.exp(-x / 15) + 0.1)


def rising_late(x: float) -> float:
    """The validation loss of a run that overfits from step 20 on."""
    return falling(x) + 0.15 + max(0.0, x - 20) * 0.05


def table(
    path: Path, columns: Mapping[str, Curve] | None = None, rows: int = 60, index: str = "epoch"
) -> Path:
    """A CSV of curves over ``index``; of a training loss that falls unless told otherwise."""
    columns = columns or {"loss": falling}
    lines = [",".join([index, *columns])]
    lines += [",".join([str(i), *(f"{curve(i):.6f}" for curve in columns.values())]) for i in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def overfitting(path: Path) -> Path:
    return table(path, {"loss": falling, "val_loss": rising_late})


def events(
    folder: Path, tags: Sequence[str] = ("loss",), steps: Sequence[int] = range(30), curve: Curve = falling
) -> Path:
    """An event file by PyTorch's writer."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step in steps:
            for tag in tags:
                writer.add_scalar(tag, curve(step), step)
    return folder


def trainer_state(path: Path, last: int, every: int = 10, scale: float = 1.0) -> Path:
    """The Hugging Face Trainer's log up to step ``last``."""
    steps = range(every, last + 1, every)
    history: list[dict[str, float]] = [
        {"epoch": s / 100, "loss": scale * falling(s / 10), "learning_rate": 1e-4, "step": s} for s in steps
    ]
    history += [
        {"epoch": s / 100, "eval_loss": falling(s / 10) + 0.1, "step": s} for s in range(100, last + 1, 100)
    ]
    history.sort(key=lambda row: row["step"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"global_step": last, "is_world_process_zero": True, "log_history": history}))
    return path
