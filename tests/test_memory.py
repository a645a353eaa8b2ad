"""Curves in memory: dictionaries, rows, DataFrames."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analyzer.memory import run_of

LOSS = [2.0, 1.5, 1.2, 1.1]


def steps_of(curves: object, tag: str) -> list[float]:
    return next(s for s in run_of(curves).series if s.tag == tag).steps.tolist()


@pytest.mark.parametrize("number", [np.float64, np.float32, np.int64])
def test_rows_may_hold_the_numbers_of_numpy(number: type[np.generic]) -> None:
    rows = [{"step": np.int64(10 * i), "loss": number(value)} for i, value in enumerate([3, 2, 1])]
    (series,) = run_of(rows).series
    assert series.role == "train_loss"
    assert (series.steps.tolist(), series.values.tolist()) == ([0, 10, 20], [3, 2, 1])


def test_a_dictionary_counts_its_values_or_takes_the_steps_given() -> None:
    assert steps_of({"train_loss": LOSS}, "train_loss") == [0, 1, 2, 3]
    (series,) = run_of({"train_loss": LOSS}, steps=[10, 20, 30, 40, 50]).series
    assert series.steps.tolist() == [10, 20, 30, 40] and series.role == "train_loss"


def test_rows_bring_their_own_steps_and_may_lack_keys() -> None:
    rows = [{"loss": 2.0, "step": 10}, {"eval_loss": 2.2, "step": 15}, {"loss": 1.0, "step": 20}]
    found = {s.tag: (s.steps.tolist(), s.role) for s in run_of(rows).series}
    assert found["loss"] == ([10, 20], "train_loss") and found["eval_loss"] == ([15], "val_loss")


def test_a_frame_takes_its_steps_from_a_column_or_its_index() -> None:
    frame = pd.DataFrame({"train_loss": LOSS, "epoch": [1, 2, 3, 4], "note": ["a", "b", "c", "d"]})
    assert steps_of(frame, "train_loss") == [1, 2, 3, 4]
    assert {s.tag for s in run_of(frame).series} == {"train_loss"}
    indexed = pd.DataFrame({"train_loss": LOSS}, index=pd.Index([5, 10, 15, 20], name="step"))
    assert steps_of(indexed, "train_loss") == [5, 10, 15, 20]
    assert steps_of(pd.DataFrame({"train_loss": LOSS}), "train_loss") == [0, 1, 2, 3]


def test_gaps_of_a_sparse_column_are_no_points() -> None:
    frame = pd.DataFrame({"step": range(4), "loss": LOSS, "val_loss": [math.nan, 3.0, math.nan, 2.0]})
    assert steps_of(frame, "val_loss") == [1, 3]


def test_nan_to_the_end_of_a_full_column_was_logged() -> None:
    frame = pd.DataFrame({"step": range(5), "train_loss": [2.0, 1.5, math.nan, math.nan, math.nan]})
    (series,) = run_of(frame).series
    assert series.steps.tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(series.values).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({"loss": ["a", "b"]}, "loss: not all of its values are numbers"),
        ({"loss": [[1.0, 2.0]]}, "loss: a curve has one axis, not 2"),
        ([1.0, 2.0], "rows of dictionaries"),
    ],
)
def test_what_is_no_curve_is_refused_by_name(curves: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_of(curves)
