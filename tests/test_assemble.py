"""How the files of a run become its series: rewinds, restarts, repeats, placeholders, roles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import events, falling, table, trainer_state

from analyzer.assemble import join, ordered
from analyzer.model import Axis, Run, Series
from analyzer.pipeline import read_runs


def curve(
    steps: object, values: object, role: str = "train_loss", axis: Axis = "step", walls: object = None
) -> Series:
    wall_times = None if walls is None else np.asarray(walls, dtype=np.float64)
    return Series(
        "loss",
        np.asarray(steps, dtype=np.float64),
        np.asarray(values, dtype=np.float64),
        wall_times,
        axis=axis,
        role=role,
    )


def runs_of(*paths: Path) -> dict[str, Run]:
    return {run.name: run for run in read_runs(paths)[0]}


def by_tag(run: Run) -> dict[str, Series]:
    return {series.tag: series for series in run.series}


# --- one series -----------------------------------------------------------------------------------


def test_a_series_in_order_is_left_as_it_is() -> None:
    series = curve([0, 1, 2, 5], [4, 3, 2, 1], walls=[0, 1, 2, 3])
    assert ordered(series).steps.tolist() == [0, 1, 2, 5]
    assert ordered(series).superseded == 0 and ordered(series).rewinds == ()


def test_of_a_step_written_twice_the_later_write_counts() -> None:
    steps = [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7]
    values = [9, 8, 7, 6, 5, 4, 60, 50, 40, 30, 20]
    series = ordered(curve(steps, values, walls=range(11)))
    assert series.steps.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert series.values.tolist() == [9, 8, 7, 60, 50, 40, 30, 20]
    assert series.wall_times is not None and series.wall_times.tolist() == [0, 1, 2, 6, 7, 8, 9, 10]
    assert series.superseded == 3 and series.rewinds == (3.0,)


def test_points_that_are_told_twice_alike_are_no_overwriting() -> None:
    steps, values = [0, 1, 2, 3, 2, 3, 4], [9, 8, np.nan, 6, np.nan, 6, 5]
    series = ordered(curve(steps, values))
    assert series.steps.tolist() == [0, 1, 2, 3, 4]
    assert series.superseded == 0 and series.rewinds == ()


def test_points_out_of_order_are_put_in_order() -> None:
    series = ordered(curve([0, 2, 1, 4, 3], [10, 12, 11, 14, 13]))
    assert series.values.tolist() == [10, 11, 12, 13, 14] and series.superseded == 0


def test_many_points_of_one_step_are_counted_by_row() -> None:
    steps = np.repeat(np.arange(5), 10)  # ten batches an epoch
    series = ordered(curve(steps, np.linspace(5, 1, 50), axis="epoch"))
    assert series.axis == "row" and series.points == 50
    assert series.steps.tolist() == list(range(50)) and series.superseded == 0


def test_points_without_a_step_are_left_out() -> None:
    series = ordered(curve([0, np.nan, 1, np.inf, 2], [5, 4, 3, 2, 1]))
    assert series.steps.tolist() == [0, 1, 2] and series.values.tolist() == [5, 3, 1]


def test_a_series_without_any_step_is_empty_and_not_an_error() -> None:
    assert ordered(curve([np.nan, np.nan], [1, 2])).points == 0


@pytest.mark.parametrize(
    ("values", "role", "expected"),
    [
        ([0, 0, 3, 2, 1], "val_loss", 2),
        ([0, 0, 3, 2, 1], "val_loss_part", 2),
        ([0, 0, 3, 2, 1], "val_accuracy", 0),  # an accuracy may start at zero
        ([0, 0, 3, 0, 1], "val_loss", 0),  # zero is a value like others here
        ([0, 0, 0, 0], "val_loss", 0),
        ([3, 0, 0, 1], "val_loss", 0),
        ([0, 0, np.nan, np.nan], "val_loss", 2),
    ],
)
def test_zeros_before_a_loss_was_computed_are_counted(values: list[float], role: str, expected: int) -> None:
    series = ordered(curve(range(len(values)), values, role))
    assert series.leading_zeros == expected and series.points == len(values)


def test_files_are_joined_by_the_time_of_their_first_point() -> None:
    later = curve([5, 6], [2, 1], walls=[50, 60])
    earlier = curve([0, 1], [4, 3], walls=[0, 10])
    joined = join([later, earlier])
    assert joined.steps.tolist() == [0, 1, 5, 6]
    assert joined.wall_times is not None and joined.wall_times.tolist() == [0, 10, 50, 60]


def test_rows_of_several_files_are_counted_on() -> None:
    first, second = curve([0, 1], [4, 3], axis="row"), curve([0, 1], [2, 1], axis="row")
    joined = ordered(join([first, second]))
    assert joined.steps.tolist() == [0, 1, 2, 3] and joined.superseded == 0


# --- a run resumed, and a run started again -------------------------------------------------------


def test_a_resumed_run_is_one_run_that_went_back(tmp_path: Path) -> None:
    events(tmp_path / "exp", steps=range(0, 30))
    events(tmp_path / "exp", steps=range(20, 50), curve=lambda x: falling(x) + 1)
    run = runs_of(tmp_path)["exp"]
    series = run.series[0]
    assert series.steps.tolist() == list(range(50))
    assert series.values[19] == pytest.approx(falling(19), rel=1e-6)
    assert series.values[20] == pytest.approx(falling(20) + 1, rel=1e-6)
    assert series.superseded == 10 and series.rewinds == (20.0,)
    assert run.problems == ()


def test_a_log_that_starts_over_is_a_run_for_each_attempt(tmp_path: Path) -> None:
    events(tmp_path / "exp", tags=("loss", "lr"), steps=range(20))
    events(tmp_path / "exp", tags=("loss", "lr"), steps=range(30), curve=lambda x: falling(x) + 1)
    runs = runs_of(tmp_path)
    assert set(runs) == {"exp#1", "exp#2"}
    assert [len(by_tag(runs[f"exp#{i}"])["loss"].values) for i in (1, 2)] == [20, 30]
    assert by_tag(runs["exp#2"])["lr"].points == 30 and by_tag(runs["exp#1"])["lr"].points == 20
    assert all(s.superseded == 0 for run in runs.values() for s in run.series)
    assert [p.kind for run in runs.values() for p in run.problems] == ["restarted"]


def test_where_logs_were_appended_the_last_may_be_short(tmp_path: Path) -> None:
    rows = [(attempt, epoch) for attempt, epochs in enumerate((10, 10, 2)) for epoch in range(epochs)]
    text = "".join(json.dumps({"epoch": e, "train_loss": falling(e) + 0.1 * a}) + "\n" for a, e in rows)
    (tmp_path / "metrics.jsonl").write_text(text)
    runs = read_runs([tmp_path])[0]
    losses = [by_tag(run)["train_loss"] for run in runs]
    assert [series.points for series in losses] == [10, 10, 2]
    assert losses[1].values[0] == pytest.approx(falling(0) + 0.1)
    assert all(series.superseded == 0 for series in losses)


def test_a_curve_logged_too_rarely_to_tell_is_cut_by_the_clock(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for attempt in (0, 1):
        with SummaryWriter(str(tmp_path / "exp")) as writer:
            for step in range(20):
                at = 1e9 + attempt * 1000 + step
                writer.add_scalar("train/loss", falling(step) + attempt, step, walltime=at)
                if step % 10 == 9:
                    writer.add_scalar("val/loss", falling(step) + attempt, step, walltime=at)
    runs = runs_of(tmp_path)
    assert [by_tag(runs[f"exp#{i}"])["val/loss"].points for i in (1, 2)] == [2, 2]
    assert by_tag(runs["exp#2"])["val/loss"].superseded == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("begins", "goes_on"), [(0.052, True), (0.1, False)])
def test_an_attempt_goes_on_that_begins_where_the_one_before_ended(
    tmp_path: Path, seed: int, begins: float, goes_on: bool
) -> None:
    rng = np.random.default_rng(seed)
    first = 0.05 + 0.05 * np.exp(-np.arange(30) / 5) + rng.normal(0, 2e-4, 30)
    second = begins - 2e-4 * np.arange(15) + rng.normal(0, 2e-4, 15)
    rows = [*enumerate(first), *enumerate(second)]
    (tmp_path / "log.csv").write_text("epoch,loss\n" + "".join(f"{i},{v:.6f}\n" for i, v in rows))
    *_, last = read_runs([tmp_path])[0]
    assert last.name.endswith("#2")
    assert ("continued" in {problem.kind for problem in last.problems}) == goes_on


def test_what_only_one_attempt_logged_goes_with_the_last(tmp_path: Path) -> None:
    events(tmp_path / "exp", steps=range(20))
    events(tmp_path / "exp", tags=("loss", "extra"), steps=range(20), curve=lambda x: falling(x) + 1)
    runs = runs_of(tmp_path)
    assert "extra" in by_tag(runs["exp#2"]) and "extra" not in by_tag(runs["exp#1"])


def test_a_first_attempt_of_two_points_is_an_overwritten_start(tmp_path: Path) -> None:
    events(tmp_path / "exp", steps=range(2), curve=lambda x: 9.0)
    events(tmp_path / "exp", steps=range(20))
    runs = runs_of(tmp_path)
    assert set(runs) == {"exp"}
    assert runs["exp"].series[0].superseded == 2


def test_copies_of_the_history_are_no_attempts(tmp_path: Path) -> None:
    for step in (500, 1000, 1500):
        trainer_state(tmp_path / "out" / f"checkpoint-{step}" / "trainer_state.json", step)
    trainer_state(tmp_path / "out" / "trainer_state.json", 1500)
    runs = runs_of(tmp_path)
    assert set(runs) == {"out"}
    assert all(s.superseded == 0 and s.rewinds == () for s in runs["out"].series)
    assert by_tag(runs["out"])["loss"].steps[-1] == 1500


def test_histories_that_differ_are_attempts(tmp_path: Path) -> None:
    trainer_state(tmp_path / "out" / "checkpoint-500" / "trainer_state.json", 500, scale=2.0)
    trainer_state(tmp_path / "out" / "checkpoint-1000" / "trainer_state.json", 1000)
    runs = runs_of(tmp_path)
    assert set(runs) == {"out#1", "out#2"}
    assert [by_tag(runs[f"out#{i}"])["loss"].points for i in (1, 2)] == [50, 100]


# --- several formats, several runs ----------------------------------------------------------------


def test_formats_that_tell_the_same_run_are_kept_side_by_side(tmp_path: Path) -> None:
    events(tmp_path / "exp", tags=("loss",), steps=range(60))
    table(tmp_path / "exp" / "results.csv", {"loss": falling, "val_loss": falling})
    run = runs_of(tmp_path)["exp"]
    assert sorted(s.tag for s in run.series) == ["loss", "loss", "val_loss"]
    assert all(s.superseded == 0 for s in run.series)
    assert {Path(s.source).suffix for s in run.series if s.tag == "loss"} >= {".csv"}


def test_the_damage_beside_a_store_of_runs_is_told(tmp_path: Path) -> None:
    from analyzer.assemble import assemble
    from analyzer.discover import Group, LogFile
    from analyzer.errors import IngestError
    from analyzer.model import Reading

    class Store:
        NAME, SUMMARY, ORDER = "store", "", 0

        @staticmethod
        def claims(path: Path, head: bytes) -> bool:
            return True

        @staticmethod
        def read(path: Path) -> Reading:
            raise AssertionError("read_all is asked")

        @staticmethod
        def read_all(path: Path) -> dict[str, Reading]:
            if path.name == "broken":
                raise IngestError(str(path), "is broken", "damaged")
            return {part: Reading(series=(curve(range(5), range(5)),)) for part in ("one", "two")}

    logs = [LogFile(tmp_path / name, Store) for name in ("a", "b", "broken")]  # type: ignore[arg-type]
    runs = assemble(Group(tmp_path, logs), "db")
    assert [run.name for run in runs] == ["db:one", "db:two", "db:one", "db:two"]  # of both files
    assert [p.message for run in runs for p in run.problems] == ["is broken"]


# --- roles ----------------------------------------------------------------------------------------


def test_a_role_given_by_hand_is_taken(tmp_path: Path) -> None:
    table(tmp_path / "exp" / "metrics.csv", {"odd thing": falling, "loss": falling})
    (run,) = read_runs([tmp_path], {"odd thing": "val_loss"})[0]
    assert {s.tag: s.role for s in run.series} == {"odd thing": "val_loss", "loss": "train_loss"}


def test_settings_in_logs_win_over_files_and_files_over_checkpoints(tmp_path: Path) -> None:
    import torch

    table(tmp_path / "metrics.csv")
    (tmp_path / "hparams.yaml").write_text("lr: 0.5\n")
    state = {"state_dict": {"w": torch.zeros(2)}, "hyper_parameters": {"lr": 0.1, "depth": 3}}
    torch.save(state, tmp_path / "model.ckpt")
    (run,) = read_runs([tmp_path])[0]
    assert run.hyperparameters == {"lr": 0.5, "depth": 3}


def test_checkpoints_are_ordered_by_step_not_by_name(tmp_path: Path) -> None:
    import torch

    table(tmp_path / "metrics.csv")
    for step in (900, 1000, 20):
        torch.save({"model": {"w": torch.zeros(2)}, "global_step": step}, tmp_path / f"step{step}.pt")
    (run,) = read_runs([tmp_path])[0]
    assert [c.step for c in run.checkpoints] == [20, 900, 1000]


POINTS = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from([1.0, 2.0, 3.0, float("nan"), float("inf")])), max_size=40
)


@given(POINTS)
def test_putting_in_order_loses_no_step_and_keeps_the_last_word(points: list[tuple[int, float]]) -> None:
    steps, values = [p[0] for p in points], [p[1] for p in points]
    series = ordered(curve(steps, values, role="val_accuracy"))
    if series.axis == "row":
        assert series.values == pytest.approx(values, nan_ok=True)
        return
    last = dict(points)
    assert series.steps.tolist() == sorted(last)
    assert series.values == pytest.approx([last[step] for step in sorted(last)], nan_ok=True)
    assert series.superseded <= len(points) - len(last)
    assert bool(series.rewinds) <= bool(series.superseded)
