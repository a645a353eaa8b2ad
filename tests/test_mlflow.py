"""MLflow's file store and its SQLite store."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from analyzer.errors import IngestError
from analyzer.ingest import mlflow

RUN = "0123456789abcdef0123456789abcdef"


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / "mlruns" / "1" / RUN / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert mlflow.claims(path, text.encode()[:4096])
    assert mlflow.run_root(path) == tmp_path / "mlruns" / "1" / RUN
    return path


def test_a_metric_with_a_folder_in_its_name(tmp_path: Path) -> None:
    lines = "1675439144265 23.0 720\n1675439176206 nan 1440\n"
    (series,) = mlflow.read(write(tmp_path, "metrics/rollout/ep rew mean", lines)).series
    assert series.tag == "rollout/ep rew mean"
    assert series.steps.tolist() == [720, 1440]
    assert series.values[0] == 23 and np.isnan(series.values[1])
    assert series.wall_times is not None and series.wall_times[0] == 1675439144.265


def test_points_logged_without_steps_count_as_rows(tmp_path: Path) -> None:
    for lines in ("1675439144265 3\n1675439144266 2\n", "1675439144265 3 0\n1675439144266 2 0\n"):
        (series,) = mlflow.read(write(tmp_path, "metrics/loss", lines)).series
        assert (series.axis, series.steps.tolist(), series.values.tolist()) == ("row", [0, 1], [3, 2])


def test_damaged_lines_are_counted_and_located(tmp_path: Path) -> None:
    reading = mlflow.read(write(tmp_path, "metrics/loss", "1675439144265 1 1\noops\n1675439144265 2 2\n"))
    assert reading.series[0].points == 2
    assert [(p.kind, p.offset) for p in reading.problems] == [("damaged", 18)]


def test_parameters_are_numbers_where_they_look_it(tmp_path: Path) -> None:
    for text, value in (("1e-3", 1e-3), ("64", 64), ("adam", "adam"), ("True", True)):
        assert mlflow.read(write(tmp_path, "params/optim.x", text)).hyperparameters == {"optim.x": value}


def test_the_facts_of_a_run(tmp_path: Path) -> None:
    text = f"run_id: {RUN}\nrun_name: brave-cat-1\nstatus: 4\nstart_time: 1\nuser_id: someone\n"
    reading = mlflow.read(write(tmp_path, "meta.yaml", text))
    assert reading.hyperparameters["mlflow.run_name"] == "brave-cat-1"
    assert reading.hyperparameters["mlflow.status"] == "FAILED"
    assert "someone" not in reading.hyperparameters.values()
    assert [problem.kind for problem in reading.problems] == ["crashed"]


def test_what_is_not_a_run_is_not_claimed() -> None:
    assert not mlflow.claims(Path("mlruns/1/meta.yaml"), b"experiment_id: '1'\nname: x\n")
    assert not mlflow.claims(Path("plots/metrics/loss.tsv"), b"step\tloss\n0\t1\n")
    assert not mlflow.claims(Path("src/params/model.py"), b"import os\n")


def store(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(path)
    base.executescript(
        "CREATE TABLE runs (run_uuid TEXT, name TEXT, status TEXT, start_time INTEGER);"
        "CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);"
        "CREATE TABLE metrics (key TEXT, value REAL, timestamp INTEGER, run_uuid TEXT, step INTEGER, is_nan INTEGER);"
    )
    return base


def test_the_runs_of_a_database_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with store(path) as base:
        base.executemany("INSERT INTO runs VALUES (?, ?, 'FINISHED', ?)", [("a", "one", 1), ("b", "one", 2)])
        base.execute("INSERT INTO params VALUES ('lr', '0.1', 'a')")
        rows = [
            ("loss", 3.0, 1000, "a", 0, 0),
            ("loss", 0.0, 2000, "a", 1, 1),
            ("loss", 9.0, 1000, "b", 0, 0),
        ]
        base.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
    base.close()
    before = path.read_bytes()
    readings = mlflow.read_all(path)
    assert list(readings) == ["one", "one (b)"]
    (loss,) = readings["one"].series
    assert loss.steps.tolist() == [0, 1] and np.isnan(loss.values[1])
    assert loss.wall_times is not None and loss.wall_times.tolist() == [1, 2]
    assert readings["one"].hyperparameters["lr"] == 0.1
    assert [series.tag for series in mlflow.read(path).series] == ["one/loss", "one (b)/loss"]
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["mlflow.db"]


def test_other_and_broken_databases_say_so(tmp_path: Path) -> None:
    other = tmp_path / "optuna.db"
    base = sqlite3.connect(other)
    base.execute("CREATE TABLE trials (x)")
    base.commit()
    base.close()
    broken = tmp_path / "mlflow.db"
    broken.write_bytes(other.read_bytes()[:100] + b"\xff" * 5000)
    kinds = []
    for path in (other, broken):
        with pytest.raises(IngestError) as caught:
            mlflow.read(path)
        kinds.append(caught.value.kind)
    assert kinds == ["unsupported", "damaged"]


def test_a_view_in_place_of_a_table_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE runs (run_uuid, name, status, start_time)")
    base.execute(
        "CREATE VIEW metrics AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    )
    base.commit()
    base.close()
    with pytest.raises(IngestError) as caught:
        mlflow.read(path)
    assert caught.value.kind == "unsupported"


def test_a_number_written_over_another_is_no_point(tmp_path: Path) -> None:
    lines = "1675439144265 1.0 1\n1675439144266 175.65.65 2\n1675439144267 10800-0800 3\n"
    reading = mlflow.read(write(tmp_path, "metrics/loss", lines))
    assert reading.series[0].values.tolist() == [1.0]
    assert "2 lines" in reading.problems[0].message
