"""Conditions on hyperparameters: what they hold for, and what is said of those that cannot be read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.auditing.where import WhereError, where

RUN = {
    "lr": 0.01,
    "optimizer.name": "AdamW",
    "model/dropout": 0.1,
    "amp": True,
    "batch size": "64",
    "note": None,
    "data.train.lr": 5,
}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("lr > 0.001", True),
        ("lr>=0.01 and lr<=1e-2", True),
        ("lr < 0.01", False),
        ("dropout == 0.1", True),
        ("learning_rate = 0.01", True),
        ("optimizer == adamw", True),
        ("optimizer.name ~ ADAM", True),
        ("name != adamw", False),
        ("amp == true", True),
        ("amp == 1", False),
        ("'batch size' >= 64", True),
        ("missing == 1", False),
        ("missing != 1", False),
        ("not missing == 1", True),
        ("note == None", False),
        ("lr == 1 or lr == 2 or lr == 0.01", True),
        ("lr == 0.01 or lr == 2 and lr == 3", True),
        ("(lr == 0.01 or lr == 2) and lr == 3", False),
        ("not (lr > 1 or amp == false)", True),
        ("optimizer > 3", False),
    ],
)
def test_what_a_condition_holds_for(condition: str, holds: bool) -> None:
    assert where(condition)(RUN) is holds


@pytest.mark.parametrize(
    ("condition", "at", "message"),
    [
        ("lr >", 0, "comparison"),
        ("lr > 1 lr", 7, "not expected"),
        ("(lr > 1", 0, "not closed"),
        ("lr > fast", 5, "no number"),
        ("lr ? 1", 0, "comparison"),
        ("and", 0, "comparison"),
        ("lr > 1 and", 10, "ends"),
        ('lr == "open', 6, "cannot be read"),
    ],
)
def test_a_mistake_is_pointed_at(condition: str, at: int, message: str) -> None:
    with pytest.raises(WhereError) as caught:
        where(condition)
    text, pointer = str(caught.value).split("\n")
    assert text == condition and pointer.index("^") == at and message in pointer


def test_depth_and_length_are_bounded() -> None:
    for condition in (
        "(" * 5000 + "a=1" + ")" * 5000,
        " and ".join(["a = 1"] * 5000),
        "not " * 150 + "a = 1",
    ):
        with pytest.raises(WhereError):
            where(condition)


@given(st.text(alphabet="ab1.<>=!~()'\" andornot\\{}__", max_size=40))
def test_any_text_is_a_condition_or_a_mistake(text: str) -> None:
    with contextlib.suppress(WhereError):
        assert where(text)({"a": 1, "b": "x"}) in (True, False)
