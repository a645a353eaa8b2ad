"""For the Hugging Face Trainer: the log history it keeps in memory, with its arguments."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

import analyzer
from analyzer.callbacks import concluded
from analyzer.ingest.json_rows import scalars
from analyzer.memory import run_of
from analyzer.model import Report


class Diagnosis(TrainerCallback):
    """Diagnoses the run at the end of ``train``, on the main process."""

    def __init__(self) -> None:
        self.report: Report | None = None

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        history, settings = state.log_history, scalars(args.to_dict())
        self.report = concluded(
            lambda: analyzer.analyze(run_of(history, hyperparameters=settings, name=str(args.output_dir)))
        )
