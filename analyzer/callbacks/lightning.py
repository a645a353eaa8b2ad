"""For Lightning's Trainer: reads back what its loggers wrote, checkpoints included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import analyzer
from analyzer.callbacks import concluded
from analyzer.model import Report

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:  # the older package of the same project
    from pytorch_lightning.callbacks import Callback  # type: ignore[no-redef,assignment]


class Diagnosis(Callback):
    """Diagnoses the run at the end of ``fit``, or when it is interrupted or fails.

    ``path``: the folder to read instead of the trainer's log folder.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = path
        self.report: Report | None = None

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self._conclude(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._conclude(trainer)

    def _conclude(self, trainer: Any) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.save()
        folder = self.path or trainer.log_dir or trainer.default_root_dir
        self.report = concluded(lambda: analyzer.analyze(folder))
