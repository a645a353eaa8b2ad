"""Hugging Face trainer_state.json: log_history to series, settings to hyperparameters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analyzer.errors import IngestError
from analyzer.ingest import trainer_state


def state(history: list[dict[str, object]], **settings: object) -> dict[str, object]:
    return {"best_metric": None, "log_history": history, "is_world_process_zero": True, **settings}


def write(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def test_training_and_evaluation_rows_become_curves_on_the_step_axis(tmp_path: Path) -> None:
    rows = [{"epoch": s / 100, "loss": 3.0 - s / 100, "learning_rate": 1e-5, "step": s} for s in (50, 100)]
    rows += [{"epoch": 1.0, "eval_loss": 2.5, "eval_g0_loss": 2.7, "step": 100}]
    rows += [{"epoch": 1.0, "train_loss": 2.2, "train_runtime": 9.0, "step": 100}]
    reading = trainer_state.read(write(tmp_path / "trainer_state.json", state(rows, num_train_epochs=1)))
    curves = {series.tag: series for series in reading.series}
    assert curves["loss"].steps.tolist() == [50, 100]
    assert curves["loss"].values.tolist() == [2.5, 2.0]
    assert curves["eval_g0_loss"].values.tolist() == [2.7]
    assert curves["epoch"].points == 4
    assert curves["train_loss"].points == 1  # the summary is a point of its own, not of loss
    assert all(series.axis == "step" for series in reading.series)
    assert reading.hyperparameters["num_train_epochs"] == 1


def test_a_logged_nan_stays_nan(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text('{"log_history": [{"step": 1, "eval_loss": NaN}, {"step": 2, "eval_loss": 1.0}]}')
    values = trainer_state.read(path).series[0].values
    assert np.isnan(values[0]) and values[1] == 1.0


def test_a_checkpoint_belongs_to_the_run_above_it() -> None:
    assert trainer_state.run_root(Path("out/checkpoint-500/trainer_state.json")) == Path("out")
    assert trainer_state.run_root(Path("out/trainer_state.json")) == Path("out")


def test_a_truncated_state_keeps_its_complete_rows(tmp_path: Path) -> None:
    text = json.dumps(state([{"step": s, "loss": 1.0 / s} for s in range(1, 30)]), indent=2)
    path = tmp_path / "trainer_state.json"
    path.write_text(text[: text.index('"step": 25')])
    reading = trainer_state.read(path)
    loss = next(series for series in reading.series if series.tag == "loss")
    assert loss.steps.tolist() == list(range(1, 25))
    assert [problem.kind for problem in reading.problems] == ["truncated"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer"),
        (b'{"log_history": []}', "empty"),
        (b'{"best_metric": 1}', "no-series"),
        (b"not json at all", "damaged"),
        (b"[" * 100_000, "unsafe"),
    ],
)
def test_what_gives_nothing_says_why(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_bytes(content)
    with pytest.raises(IngestError) as caught:
        trainer_state.read(path)
    assert caught.value.kind == kind
    assert str(path) in str(caught.value)
