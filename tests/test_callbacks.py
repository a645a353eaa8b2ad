"""The verdict at the end of training, with the real trainers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analyzer.callbacks import concluded
from analyzer.model import Report

POINTS = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
LABELS = (POINTS.sum(axis=1, keepdims=True) > 0).astype(np.float32)


def rules(report: Report | None) -> set[str]:
    assert report is not None
    return {finding.rule for finding in report.findings}


def test_a_failing_analysis_never_ends_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Report:
        raise RuntimeError("odd")

    assert concluded(broken) is None
    assert "RuntimeError: odd" in capsys.readouterr().err


def test_keras_prints_what_happened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    from analyzer.callbacks.keras import Diagnosis

    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e30), "mse")  # overflows at once
    diagnosis = Diagnosis()
    model.fit(POINTS, LABELS, epochs=6, verbose=0, callbacks=[diagnosis])
    assert "nan-loss" in rules(diagnosis.report)
    assert "nan-loss" in capsys.readouterr().out


def test_lightning_reads_back_what_its_logger_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lightning = pytest.importorskip("lightning")
    import torch
    from lightning.pytorch.loggers import CSVLogger

    from analyzer.callbacks.lightning import Diagnosis

    class Overflowing(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 1e30)

    data = torch.utils.data.TensorDataset(torch.from_numpy(POINTS), torch.from_numpy(LABELS))
    diagnosis = Diagnosis()
    trainer = lightning.Trainer(
        max_epochs=3, logger=CSVLogger(tmp_path), callbacks=[diagnosis], log_every_n_steps=1,
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Overflowing(), torch.utils.data.DataLoader(data, 16))
    assert {"nan-loss", "nan-weights"} <= rules(diagnosis.report)  # the checkpoint was read too
    assert "nan-loss" in capsys.readouterr().out


def test_transformers_uses_the_history_and_the_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    from analyzer.callbacks.transformers import Diagnosis

    args = transformers.TrainingArguments(str(tmp_path), learning_rate=0.125, report_to=[])
    state = transformers.TrainerState(is_world_process_zero=True)
    falling = [2.0 * 0.7**i for i in range(30)]
    for i, loss in enumerate(falling):
        state.log_history += [
            {"loss": loss, "step": 10 * i, "epoch": i / 3},
            {"eval_loss": max(loss, 0.8) + 0.03 * max(0, i - 8), "step": 10 * i, "epoch": i / 3},
        ]
    diagnosis = Diagnosis()
    diagnosis.on_train_end(args, state, transformers.TrainerControl())
    assert "overfitting" in rules(diagnosis.report)
    assert diagnosis.report is not None
    assert diagnosis.report.runs[0].run.hyperparameters["learning_rate"] == 0.125
    assert "overfitting" in capsys.readouterr().out

    other = Diagnosis()
    state.is_world_process_zero = False
    other.on_train_end(args, state, transformers.TrainerControl())
    assert other.report is None
