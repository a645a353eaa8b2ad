"""For Keras: the history that ``fit`` collects."""

from __future__ import annotations

from typing import Any

import keras

import analyzer
from analyzer.callbacks import concluded
from analyzer.memory import run_of
from analyzer.model import Report


class Diagnosis(keras.callbacks.Callback):
    """Diagnoses the run at the end of ``fit``."""

    def __init__(self) -> None:
        super().__init__()
        self.report: Report | None = None
        self._epochs: list[dict[str, Any]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._epochs = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epochs.append({"epoch": epoch, **(logs or {})})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.report = concluded(lambda: analyzer.analyze(run_of(self._epochs, name=str(self.model.name))))
