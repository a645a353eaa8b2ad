"""Samples that the real writers made: every value that went in comes out, on its step.

``benchmarks/make_format_samples.py`` made them and wrote down beside each what it gave to the writer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analyzer
from analyzer.ingest import HEAD_BYTES, ingestor_for
from analyzer.model import Series

SAMPLES = Path(__file__).with_name("formats")
TRUTHS: dict[str, dict[str, Any]] = {
    path.parent.name: json.loads(path.read_text()) for path in sorted(SAMPLES.glob("*/truth.json"))
}
FILES = [(name, file) for name, truth in TRUTHS.items() for file in truth["files"]]


def series_of(path: Path) -> list[Series]:
    with path.open("rb") as file:
        ingestor = ingestor_for(path, file.read(HEAD_BYTES))
    assert ingestor is not None
    read_all = getattr(ingestor, "read_all", None)
    readings = list(read_all(path).values()) if read_all else [ingestor.read(path)]
    assert not [p for reading in readings for p in reading.problems]
    return [series for reading in readings for series in reading.series]


@pytest.mark.parametrize(("name", "file"), FILES, ids=["/".join(pair) for pair in FILES])
def test_every_value_that_was_written_is_read(name: str, file: str) -> None:
    found = {series.tag: series for series in series_of(SAMPLES / name / file)}
    for tag, curve in TRUTHS[name]["files"][file].items():
        assert tag in found, sorted(found)
        np.testing.assert_allclose(found[tag].values, curve["values"], rtol=1e-9, atol=1e-12)
        if "steps" in curve:
            np.testing.assert_array_equal(found[tag].steps, curve["steps"])


@pytest.mark.parametrize("name", list(TRUTHS))
def test_a_sample_s_folder_is_read_without_damage(name: str) -> None:
    runs = analyzer.read(SAMPLES / name)
    assert any(series.role.endswith(("loss", "reward", "metric")) for run in runs for series in run.series)
    kinds = {problem.kind for run in runs for problem in run.problems}
    assert kinds <= {"no-series", "unsupported"}


def test_catboost_s_folder_is_one_run() -> None:
    runs = {run.name.rpartition("/")[2]: run for run in analyzer.read(SAMPLES / "catboost" / "run")}
    assert len(runs) == 1
    (run,) = runs.values()
    assert {s.tag: s.role for s in run.series if "Logloss" in s.tag} == {
        "learn/Logloss": "train_loss",
        "test/Logloss": "val_loss",
    }


def test_settings_that_transformers_logs_as_text_are_the_run_s() -> None:
    (run,) = analyzer.read(SAMPLES / "transformers" / "runs")
    assert run.hyperparameters["learning_rate"] == 0.05
    assert run.hyperparameters["per_device_train_batch_size"] == 40
