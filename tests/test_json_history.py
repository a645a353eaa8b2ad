"""Histories in one JSON document, in each shape that training scripts write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analyzer.errors import IngestError
from analyzer.ingest import json_history
from analyzer.model import Reading, Series


def read(tmp_path: Path, data: object, name: str = "history.json") -> Reading:
    path = tmp_path / name
    path.write_text(json.dumps(data))
    assert json_history.claims(path, path.read_bytes()[:4096])
    return json_history.read(path)


def curves(reading: Reading) -> dict[str, Series]:
    return {series.tag: series for series in reading.series}


def test_keras_history_counts_epochs_from_zero(tmp_path: Path) -> None:
    found = curves(read(tmp_path, {"loss": [3, 2, 1], "val_loss": ["3.5", "2.5", "1.5"]}))
    assert found["val_loss"].values.tolist() == [3.5, 2.5, 1.5]
    assert found["loss"].steps.tolist() == [0, 1, 2] and found["loss"].axis == "epoch"


def test_an_epoch_list_gives_the_steps(tmp_path: Path) -> None:
    found = curves(read(tmp_path, {"epochs": [1, 2, 3], "loss": [3, None, float("nan")]}))
    assert found["loss"].steps.tolist() == [1, 3]
    assert np.isnan(found["loss"].values[1])
    assert set(found) == {"loss"}


def test_nested_histories_keep_their_names_and_settings(tmp_path: Path) -> None:
    data = {"config": {"optim": {"lr": 0.1}}, "history": {"train": {"loss": [2, 1]}, "val": {"loss": [3, 2]}}}
    reading = read(tmp_path, data)
    assert set(curves(reading)) == {"train/loss", "val/loss"}
    assert reading.hyperparameters == {"optim.lr": 0.1}


def test_per_step_and_per_epoch_lists_share_the_step_axis(tmp_path: Path) -> None:
    found = curves(read(tmp_path, {"train_loss": list(range(100)), "val_loss": [3, 2, 1, 0]}))
    assert found["val_loss"].steps.tolist() == [24, 49, 74, 99]
    assert found["train_loss"].axis == found["val_loss"].axis == "step"


def test_a_list_of_rows_uses_its_step_or_epoch(tmp_path: Path) -> None:
    found = curves(read(tmp_path, [{"epoch": e, "train_loss": 1.0 - e / 10} for e in range(3)]))
    assert found["train_loss"].steps.tolist() == [0, 1, 2] and found["train_loss"].axis == "epoch"
    rows = [{"main/loss": 1.0, "epoch": e, "iteration": 300 * e, "elapsed_time": 5.0 * e} for e in (1, 2)]
    found = curves(read(tmp_path, rows, "log"))  # Chainer's LogReport
    assert found["main/loss"].steps.tolist() == [300, 600]
    assert found["epoch"].values.tolist() == [1, 2]
    assert found["main/loss"].wall_times is not None


def test_mappings_that_count_their_epochs(tmp_path: Path) -> None:
    found = curves(
        read(tmp_path, {"10": {"loss": 1.0}, "2": {"loss": 3.0}, "1": {"loss": 4.0}}, "train_log.json")
    )
    assert found["loss"].steps.tolist() == [1, 2, 10] and found["loss"].values.tolist() == [4, 3, 1]
    found = curves(
        read(tmp_path, {"loss": {"0": 3.0, "1": 2.0}, "val_loss": {"0": 4.0, "1": 5.0}})
    )  # DataFrame
    assert found["val_loss"].values.tolist() == [4, 5]


def test_sacred_metrics_have_steps_and_times(tmp_path: Path) -> None:
    times = ["2019-05-01T10:00:00", "2019-05-01T10:00:30"]
    data = {"train.loss": {"steps": [10, 20], "timestamps": times, "values": [2.0, 1.0]}}
    (loss,) = read(tmp_path, data, "metrics.json").series
    assert (loss.tag, loss.steps.tolist(), loss.values.tolist()) == ("train.loss", [10, 20], [2, 1])
    assert loss.wall_times is not None and np.diff(loss.wall_times).tolist() == [30]
    assert loss.source


def test_allennlp_writes_one_point_a_file(tmp_path: Path) -> None:
    data = {"best_epoch": 2, "training_duration": "0:29", "epoch": 3, "training_epochs": 3,
            "training_loss": 0.36, "validation_loss": 0.58, "best_validation_loss": 0.5}  # fmt: skip
    found = curves(read(tmp_path, data, "metrics_epoch_3.json"))
    assert set(found) == {"training_loss", "validation_loss"}
    assert found["validation_loss"].steps.tolist() == [3] and found["validation_loss"].axis == "epoch"


def test_tensorboard_download(tmp_path: Path) -> None:
    data = [[1.6e9, 0, 2.0], [1.6e9 + 5, 10, 1.0]]
    (loss,) = read(tmp_path, data, "run-train-tag-loss.json").series
    assert (loss.tag, loss.steps.tolist(), loss.values.tolist()) == ("loss", [0, 10], [2, 1])


def test_final_results_are_no_curve(tmp_path: Path) -> None:
    reading = read(tmp_path, {"eval_loss": 0.45, "epoch": 3.0}, "all_results.json")
    assert not reading.series
    assert [(p.kind, p.message) for p in reading.problems] == [
        ("no-series", "holds final results only, no curve")
    ]


def test_an_empty_document_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(IngestError) as caught:
        read(tmp_path, {}, "metrics.json")
    assert caught.value.kind == "empty"


def test_a_document_that_breaks_off_keeps_what_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text('{"loss": [3.0, 2.0, 1.0], "val_loss": [4.0, 3.5, 3.2')
    reading = json_history.read(path)
    assert curves(reading)["val_loss"].values.tolist() == [4.0, 3.5]  # 3.2 may have been 3.25
    assert [problem.kind for problem in reading.problems] == ["truncated"]


@pytest.mark.parametrize(
    ("name", "head", "claimed"),
    [
        ("anything.json", b'{"loss": [0.5, 0.4', True),
        ("config.json", b'{"lr": 0.1, "betas": [0.9, 0.999]}', False),
        ("config.json", b'{"loss": "bce", "layers": [64, 64]}', False),
        ("data.json", b'[{"id": 1, "text": "x"}]', False),
        ("wandb-summary.json", b'{"loss": 0.5}', True),
        ("log", b'[\n {"main/loss": 1.9, "epoch": 1}', True),
        ("run7.json", b'{"1": {"train_loss": 2.5, "val_acc": 0.3}, "2": {"train_loss": 2.0', True),
        ("run7.json", b'{"1": {"name": "a", "height": 2.5}, "2": {"name": "b"', False),
        ("training_history.json", b'{"variant A": [2.5, 2.25, 2.0], "variant B": [2.0', True),
        ("history.json", b'{"visited": [17, 4, 2], "page": "home"', False),
    ],
)
def test_claims(name: str, head: bytes, claimed: bool) -> None:
    assert json_history.claims(Path(name), head) is claimed
