"""Printed lines: how a number finds its name, and what is a duration, a date or a place instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.errors import IngestError
from analyzer.ingest import stdout
from analyzer.model import Series

VALUES = [3.0, 2.5, 2.1, 1.8, 1.6, 1.5, 1.45, 1.42]


def curves(tmp_path: Path, lines: list[str], name: str = "train.log") -> dict[str, Series]:
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines))
    assert stdout.claims(path, path.read_bytes()[:4096])
    return {series.tag: series for series in stdout.read(path).series}


@pytest.mark.parametrize(
    "duration",
    ["{0}0h0{0}m36s", "{0}m1{0}s", "{0} days, 23:12:0{0}", "0{0}:0{0}:36", "2024-0{0}-1{0} 10:0{0}:11.5"],
)
def test_a_duration_or_a_date_is_one_number_that_is_none(tmp_path: Path, duration: str) -> None:
    lines = [
        f"batch {10 * i} | loss: {v} | took {duration.format(i + 1)} | left {7 - i} days, 1:00:0{i}"
        for i, v in enumerate(VALUES)
    ]
    found = curves(tmp_path, lines)
    assert set(found) == {"loss"}
    assert found["loss"].values.tolist() == VALUES and found["loss"].steps.tolist() == list(range(0, 80, 10))


def test_a_day_less_on_the_clock_is_the_same_kind_of_line(tmp_path: Path) -> None:
    left = ["2 days, 0:25:29", "2 days, 0:05:11", "1 day, 23:57:50", "1 day, 2:00:00", "12:00:01", "0:30:00"]
    lines = [
        f"Train [2024-01-02 10:00:0{i}.12] step: [{i}/6], loss: {v}, eta: {eta}"
        for i, (v, eta) in enumerate(zip(VALUES, left, strict=False))
    ]
    found = curves(tmp_path, lines)
    assert set(found) == {"train_loss"} and found["train_loss"].values.tolist() == VALUES[:6]


def test_a_sentence_before_the_name_is_not_part_of_it(tmp_path: Path) -> None:
    lines = [f"[Iteration {i}] Speed was 40{i}.5 rows/second. Loss is {v}. " for i, v in enumerate(VALUES)]
    assert curves(tmp_path, lines)["loss"].values.tolist() == VALUES


def test_names_and_numbers_in_quotes(tmp_path: Path) -> None:
    lines = [f"iter: {i}, lr: 0.01, 'loss_box': '{v + 1}', 'loss': '{v}'" for i, v in enumerate(VALUES)]
    found = curves(tmp_path, lines)
    assert found["loss"].values.tolist() == VALUES and found["loss_box"].values[0] == 4


def test_a_whole_number_before_the_colon_is_the_place(tmp_path: Path) -> None:
    lines = [f"Validation loss {500 * i}:  {v}" for i, v in enumerate(VALUES)]
    found = curves(tmp_path, lines)["val_loss"]
    assert found.values.tolist() == VALUES and found.steps.tolist() == list(range(0, 4000, 500))


def test_a_scale_that_is_set_is_the_scale_and_its_scaler_no_metric(tmp_path: Path) -> None:
    lines = [f"Overflow, loss scaler 0 reducing loss scale to {2.0**i}" for i in range(8, 0, -1)]
    found = curves(tmp_path, [f"step {i} loss {v}" for i, v in enumerate(VALUES)] + lines)
    assert set(found) == {"loss", "loss_scale"} and found["loss_scale"].values[0] == 256


def test_precision_in_short(tmp_path: Path) -> None:
    lines = [f"Epoch: [5][{100 * i}/900]\tLoss {v} ({v})\tPrec@1 0.{i} (0.{i})" for i, v in enumerate(VALUES)]
    found = curves(tmp_path, lines)
    assert {"loss", "Prec@1"} == set(found) and found["Prec@1"].values[3] == 0.3


def test_what_has_decreased_is_no_metric_of_its_own(tmp_path: Path) -> None:
    lines: list[str] = []
    for i, v in enumerate(VALUES):
        lines += [f"epoch {i} val loss {v}", f"Validation loss decreased ({v + 1} --> {v}).  Saving ..."]
    assert set(curves(tmp_path, lines)) == {"val_loss"}


def test_the_current_value_goes_before_the_mean(tmp_path: Path) -> None:
    lines = [f"Epoch 3 | Iter {i} | Average Loss 2.0 | Current Loss {v} |" for i, v in enumerate(VALUES)]
    found = curves(tmp_path, lines)
    assert set(found) == {"loss"} and found["loss"].values.tolist() == VALUES


@pytest.mark.parametrize("name", ["001_log", "train-log", "log", "log_3"])
def test_names_that_end_in_log(tmp_path: Path, name: str) -> None:
    assert curves(tmp_path, [f"step {i} loss {v}" for i, v in enumerate(VALUES)], name)


@pytest.mark.parametrize("name", ["catalog", "blog", "backlog.py"])
def test_other_names_are_none_of_logs(name: str) -> None:
    assert not stdout.claims(Path(name), b"step 1 loss 2\n")


def test_one_evaluation_within_a_log_is_a_point(tmp_path: Path) -> None:
    lines = [f"iter {10 * i}: loss {v}" for i, v in enumerate(VALUES)]
    lines.insert(5, "step 40: train loss 2.0, val loss 2.25")
    found = curves(tmp_path, lines)
    assert set(found) == {"loss", "val_loss"}
    assert found["val_loss"].values.tolist() == [2.25] and found["val_loss"].steps.tolist() == [40]


@pytest.mark.parametrize(
    "line",
    [
        "the best val loss was 0.31",
        "val_loss_weight: 0.5",
        "keep 3 of the validation set",
        "train loss 0.7",
        "loss 0.7 of all",
    ],
)
def test_one_line_of_something_else_is_none(tmp_path: Path, line: str) -> None:
    lines = [f"iter {10 * i}: loss {v}" for i, v in enumerate(VALUES)]
    assert set(curves(tmp_path, [*lines, line])) == {"loss"}


@pytest.mark.parametrize("line", ["val_loss: 3.0", "epochs: 50, val_loss: 3.0"])
def test_settings_above_the_log_are_no_evaluation(tmp_path: Path, line: str) -> None:
    lines = [f"epoch {i}: loss {v}" for i, v in enumerate(VALUES)]
    assert set(curves(tmp_path, [line, *lines])) == {"loss"}


def test_the_evaluation_of_an_earlier_epoch_above_the_log_is_one(tmp_path: Path) -> None:
    lines = [f"Epoch 48 | Iter {i} | Loss {v} | 20 ms" for i, v in enumerate(VALUES)]
    found = curves(tmp_path, ["Summary | End of Epoch 47 | Valid Loss 2.5", *lines])
    assert found["val_loss"].values.tolist() == [2.5]


def test_a_short_excerpt_of_several_kinds_of_lines(tmp_path: Path) -> None:
    lines = [
        "END epoch:4   train  loss: 9.5 top1:  0.01 cost: 1.7",
        "eval step:10/12  loss: 9.25 top1:  0.02",
        "epoch:5   train step:10/300  lr: 0.1, loss: 9.0 top1:  0.03",
        "epoch:5   train step:20/300  lr: 0.1, loss: 8.5 top1:  0.04",
    ]
    found = curves(tmp_path, lines)
    assert found["val_loss"].values.tolist() == [9.25]
    assert found["train_loss_step"].values.tolist() == [9.0, 8.5]


def test_remarks_about_a_loss_are_no_excerpt(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(
        "At epoch 3 the loss was 2.1\nAfter epoch 10 we saw loss: 0.5\nAfter epoch 12 we saw loss: 0.4\n"
        "With lr 0.1 at epoch 4 accuracy: 0.3\n"
    )
    with pytest.raises(IngestError):
        stdout.read(path)


def test_a_gradient_beside_other_quantities_is_one(tmp_path: Path) -> None:
    lines = [f"step {i} | loss {v} | grad {2 * v}e+04 | lr 0.1" for i, v in enumerate(VALUES)]
    found = curves(tmp_path, lines)
    assert set(found) == {"loss", "grad", "lr"} and found["grad"].values[0] == 6e4


def test_names_within_ornaments_above_bare_numbers(tmp_path: Path) -> None:
    lines: list[str] = []
    for i, v in enumerate(VALUES):
        lines += [
            f"Epoch: 0{i + 1} | took 0m 57s",
            "****train_loss,train_acc,valid_loss****",
            f"{v}\t0.5\t{v + 1}",
        ]
    found = curves(tmp_path, lines)
    assert found["train_loss"].values.tolist() == VALUES and found["valid_loss"].values[0] == 4
    assert found["train_loss"].steps.tolist() == list(range(1, 9))


@pytest.mark.parametrize(
    "line", ["loss, accuracy", "the loss, the accuracy", "accuracy, then loss, then both"]
)
def test_numbers_further_below_are_not_of_those_names(tmp_path: Path, line: str) -> None:
    lines = [f"step {i} score {v}" if i % 2 else "0.5, 0.25" for i, v in enumerate(VALUES)]
    with pytest.raises(IngestError):
        stdout.read(_written(tmp_path, [line, "and so on", *lines[::2]]))


def _written(tmp_path: Path, lines: list[str]) -> Path:
    path = tmp_path / "train.log"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
