"""Delimited tables: what every dialect's points, steps and times must be."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyzer.errors import IngestError
from analyzer.ingest import delimited, layouts
from analyzer.ingest.tables import cell
from analyzer.model import Reading, Series

REAL = Path(__file__).parents[2] / "shared" / "real_logs"


@pytest.fixture(params=["small table", "large table"], autouse=True)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dialect by both readers: the one for small tables and pandas'."""
    if request.param == "large table":
        monkeypatch.setattr(delimited, "SMALL", 0)


def read(tmp_path: Path, text: str | bytes, name: str = "metrics.csv") -> Reading:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return delimited.read(path)


def curves(reading: Reading) -> dict[str, tuple[list[float], list[float]]]:
    return {s.tag: (s.steps.tolist(), s.values.tolist()) for s in reading.series}


def by_tag(reading: Reading, tag: str) -> Series:
    return next(s for s in reading.series if s.tag == tag)


def claimed(text: str, name: str) -> bool:
    return delimited.claims(Path(name), text.encode()[:4096])


def test_lightning_rows_are_sparse_and_keep_their_steps(tmp_path: Path) -> None:
    text = "epoch,step,train_loss,val_loss\r\n0,49,0.5,\r\n0,99,0.4,\r\n0,99,,0.6\r\n1,149,0.3,\r\n"
    found = curves(read(tmp_path, text))
    assert found["train_loss"] == ([49, 99, 149], [0.5, 0.4, 0.3])
    assert found["val_loss"] == ([99], [0.6])
    assert found["epoch"] == ([49, 99, 99, 149], [0, 0, 0, 1])


def test_lightning_writer_round_trip(tmp_path: Path) -> None:
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    logger = loggers.CSVLogger(tmp_path, name="run", version=0)
    for step in range(20):
        logger.log_metrics({"train_loss": 1.0 / (step + 1), "epoch": step // 10}, step=step)
        if step % 10 == 9:
            logger.log_metrics({"val_loss": 2.0 / (step + 1), "epoch": step // 10}, step=step)
    logger.save()
    found = curves(delimited.read(tmp_path / "run" / "version_0" / "metrics.csv"))
    assert found["train_loss"] == (list(range(20)), [1.0 / (s + 1) for s in range(20)])
    assert found["val_loss"] == ([9, 19], [0.2, 0.1])


def test_keras_log_counts_epochs(tmp_path: Path) -> None:
    text = "epoch,accuracy,loss,val_loss\n0,0.5,1.2,1.3\n1,0.6,1.0,1.25\n"
    reading = read(tmp_path, text, "training.log")
    assert claimed(text, "training.log")
    assert {s.axis for s in reading.series} == {"epoch"}
    assert curves(reading)["loss"] == ([0, 1], [1.2, 1.0])
    assert "epoch" not in curves(reading)


def test_ultralytics_padding_and_elapsed_time(tmp_path: Path) -> None:
    text = (
        "                  epoch,                   time,         train/box_loss  ,   metrics/mAP50(B)\n"
        "                      1,                  12.5 ,               1.5      ,                0.1\n"
        "                      2,                  25.25,               1.25     ,                0.2\n"
    )
    reading = read(tmp_path, text, "results.csv")
    assert curves(reading) == {
        "train/box_loss": ([1, 2], [1.5, 1.25]),
        "metrics/mAP50(B)": ([1, 2], [0.1, 0.2]),
    }
    walls = by_tag(reading, "train/box_loss").wall_times
    assert walls is not None and walls.tolist() == [12.5, 25.25]


def test_missing_cells_are_no_points_but_nan_is(tmp_path: Path) -> None:
    text = "step,loss,lr\n0,1.0,0.1\n1,nan,\n2,,NaN\n3,inf,0.1\n4,-Infinity,None\n5,2.0,_\n"
    found = curves(read(tmp_path, text))
    steps, values = found["loss"]
    assert steps == [0, 1, 3, 4, 5]
    assert values[0] == 1.0 and math.isnan(values[1]) and values[2:] == [math.inf, -math.inf, 2.0]
    assert found["lr"][0] == [0, 2, 3] and math.isnan(found["lr"][1][1])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", "  ", ", "])
def test_delimiters(tmp_path: Path, delimiter: str) -> None:
    lines = [("step", "loss", "acc"), ("0", "2.5", "0.1"), ("10", "2.25", "0.2"), ("20", "2.0", "0.3")]
    text = "".join(delimiter.join(line) + "\n" for line in lines)
    found = curves(read(tmp_path, text))
    assert found == {"loss": ([0, 10, 20], [2.5, 2.25, 2.0]), "acc": ([0, 10, 20], [0.1, 0.2, 0.3])}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "époque,step,loss\n1,0,2.5\n1,1,2.0\n".encode(encoding)
    assert curves(read(tmp_path, text))["loss"] == ([0, 1], [2.5, 2.0])


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("names", [["epoch", "loss"], ["epoch", "train_loss", "val_loss"]])
def test_decimal_commas_in_every_number(tmp_path: Path, delimiter: str, names: list[str]) -> None:
    rows = [delimiter.join([str(e), *[f"0,{9 - e}5"] * (len(names) - 1)]) for e in range(1, 7)]
    found = curves(read(tmp_path, "\n".join([delimiter.join(names), *rows]) + "\n"))
    assert found == {name: ([1, 2, 3, 4, 5, 6], [0.85, 0.75, 0.65, 0.55, 0.45, 0.35]) for name in names[1:]}


def test_decimal_commas(tmp_path: Path) -> None:
    text = "epoch;loss;acc\n1;0,75;0,5\n2;0,5;0,625\n3;nan;0,75\n"
    found = curves(read(tmp_path, text))
    assert found["acc"] == ([1, 2, 3], [0.5, 0.625, 0.75])
    assert found["loss"][1][:2] == [0.75, 0.5] and math.isnan(found["loss"][1][2])


def test_thousands_in_quotes(tmp_path: Path) -> None:
    text = 'step,loss,tokens\n1,0.5,"1,000"\n2,0.4,"12,000"\n3,0.3,"1,234,567"\n'
    assert curves(read(tmp_path, text))["tokens"][1] == [1000, 12000, 1234567]


def test_monitor_rows_are_episodes(tmp_path: Path) -> None:
    text = '#{"t_start": 1614946034.69, "env_id": "X"}\nr,l,t\n-99.5,110,5.0\n-80.0,43,5.6\n-70.5,60,7.0\n'
    first, third = read(tmp_path, text, "0.monitor.csv"), read(tmp_path, text, "3.monitor.csv")
    assert curves(first) == {"r": ([0, 1, 2], [-99.5, -80, -70.5]), "l": ([0, 1, 2], [110, 43, 60])}
    assert first.series[0].axis == "episode"
    assert first.series[0].wall_times is not None and first.series[0].wall_times.tolist() == [5.0, 5.6, 7.0]
    assert [s.tag for s in third.series] == ["r[3]", "l[3]"]  # beside the first, not over it


def test_lines_before_the_header(tmp_path: Path) -> None:
    found = curves(read(tmp_path, "k=2\n\nepoch, loss, f1\n0 0.5 0.1\n1 0.4 0.2\n2 0.3 0.3\n"))
    assert found == {"loss": ([0, 1, 2], [0.5, 0.4, 0.3]), "f1": ([0, 1, 2], [0.1, 0.2, 0.3])}


def test_header_in_a_comment(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "loss.txt", [[0, 2.5], [1, 2.0], [2, 1.5]], header="epoch loss")
    assert curves(delimited.read(tmp_path / "loss.txt")) == {"loss": ([0, 1, 2], [2.5, 2.0, 1.5])}


def test_repeated_headers_of_appended_runs(tmp_path: Path) -> None:
    reading = read(tmp_path, "epoch,loss\n0,2.0\n1,1.0\nepoch,loss\n0,2.5\n1,1.5\n2,1.25\n")
    assert curves(reading) == {"loss": ([0, 1, 0, 1, 2], [2.0, 1.0, 2.5, 1.5, 1.25])}
    assert reading.problems == ()


@given(
    st.lists(
        st.lists(st.sampled_from(["0.5", "nan", "-inf", "True", "1e-3", "12"]), min_size=2, max_size=2),
        min_size=1,
    )
)
def test_no_unmistakable_table_is_taken_for_prose(rows: list[list[str]]) -> None:
    lines = ["loss,lr\n", *(",".join(row) + "\n" for row in rows)]
    layout = layouts.find_layout(lines)
    assert layout is not None and layouts.unmistakable(layout, lines, "log")
    assert not layouts.prose(lines)


def test_prose_is_told_without_parting_its_lines() -> None:
    assert layouts.prose(["The loss fell, and then it rose,\n"] * 40)


def test_index_and_text_columns_are_no_curves(tmp_path: Path) -> None:
    text = ",epoch,loss,time,note\n0,1,0.5,00:12,good\n1,2,0.4,00:11,bad\n2,3,0.3,00:13,good\n"
    assert list(curves(read(tmp_path, text))) == ["loss"]


def test_duplicate_names_stay_apart(tmp_path: Path) -> None:
    found = curves(read(tmp_path, "step,loss,loss\n0,1,5\n1,2,6\n2,3,7\n"))
    assert found["loss"][1] == [1, 2, 3] and found["loss.1"][1] == [5, 6, 7]


def test_cells_shift_back_under_their_names(tmp_path: Path) -> None:
    """Flair writes an empty cell that its header does not name."""
    header = "EPOCH\tTIMESTAMP\tLEARNING_RATE\tTRAIN_LOSS\tTRAIN_F1\tDEV_LOSS\tDEV_F1\n"
    rows = "".join(
        f"{e}\t11:17:1{e}\t0.1000\t{0.5 - e / 10:.2f}\t\t_\t{0.7 - e / 10:.2f}\t0.8\n" for e in range(3)
    )
    found = curves(read(tmp_path, header + rows, "loss.tsv"))
    assert found["TRAIN_LOSS"] == ([0, 1, 2], [0.5, 0.4, 0.3])
    assert found["DEV_LOSS"] == ([0, 1, 2], [0.7, 0.6, 0.5])
    assert found["DEV_F1"][1] == [0.8, 0.8, 0.8]
    assert "TRAIN_F1" not in found


def test_trailing_delimiters(tmp_path: Path) -> None:
    found = curves(read(tmp_path, "step,loss\n0,1.5,\n1,1.25,\n2,1.0,\n"))
    assert found == {"loss": ([0, 1, 2], [1.5, 1.25, 1.0])}


def test_unnamed_row_numbers_before_the_header_begins(tmp_path: Path) -> None:
    found = curves(read(tmp_path, "step loss\n1 10 1.5\n2 20 1.25\n3 30 1.0\n", "metrics.csv"))
    assert found == {"loss": ([10, 20, 30], [1.5, 1.25, 1.0])}


def test_ragged_rows_lose_only_themselves(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i / 2},{i / 4}\n" for i in range(3, 20))
    reading = read(tmp_path, "step,loss,acc\n0,0,0\n1,0.5\n2,1,0.5,9,9\n" + rows)
    found = curves(reading)
    assert found["loss"][0] == [0, 1, *range(3, 20)]
    assert found["acc"][0] == [0, *range(3, 20)]
    assert [p.kind for p in reading.problems] == ["damaged"] and "1 line" in reading.problems[0].message


def test_a_row_cut_while_being_written(tmp_path: Path) -> None:
    reading = read(tmp_path, "step,loss,acc\n0,2.5,0.1\n1,2.25,0.2\n2,2.1")
    assert curves(reading)["loss"] == ([0, 1], [2.5, 2.25])  # 2.1 may have gone on
    assert [p.kind for p in reading.problems] == ["truncated"]


def test_last_row_without_a_newline_counts(tmp_path: Path) -> None:
    reading = read(tmp_path, "step,loss\n0,2.5\n1,2.25")
    assert curves(reading)["loss"] == ([0, 1], [2.5, 2.25]) and reading.problems == ()


def test_garbage_cells_are_reported(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i / 2}\n" for i in range(50))
    reading = read(tmp_path, "step,loss\n" + rows + "50,oops\n51,\0\0\0\n52,26.0\n")
    assert curves(reading)["loss"][0] == [*range(50), 52]
    assert reading.problems[0].kind == "damaged" and "'loss'" in reading.problems[0].message
    assert "oops" in reading.problems[0].message


def test_open_quote_does_not_swallow_the_rest(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i / 2},ok\n" for i in range(20))
    reading = read(tmp_path, "step,loss,note\n" + rows + '20,10.0,"cut\n21,10.5,ok\n22,11.0,ok\n')
    assert curves(reading)["loss"][0] == list(range(23))


def test_lists_in_cells_become_series(tmp_path: Path) -> None:
    text = (
        'epoch,recall,f1\n0,[0.92 0.34],"[0.5, 0.25]"\n1,[0.9  0.55],"[0.75, 0.5]"\n2,[1. nan],"[1.0, 0.5]"\n'
    )
    found = curves(read(tmp_path, text))
    assert found["recall[0]"] == ([0, 1, 2], [0.92, 0.9, 1.0])
    assert found["recall[1]"][1][:2] == [0.34, 0.55] and math.isnan(found["recall[1]"][1][2])
    assert found["f1[1]"][1] == [0.25, 0.5, 0.5]


def test_percentages_tensors_and_booleans(tmp_path: Path) -> None:
    text = (
        "step,acc,loss,overflow\n"
        "0,93.5%,\"tensor(0.5, device='cuda:0')\",True\n"
        '1,94 %,"tensor(0.25, grad_fn=<NllLossBackward0>)",False\n'
        "2,95%,tensor(nan),False\n"
    )
    found = curves(read(tmp_path, text))
    assert found["acc"][1] == [93.5, 94.0, 95.0]
    assert found["loss"][1][:2] == [0.5, 0.25] and math.isnan(found["loss"][1][2])
    assert found["overflow"][1] == [1.0, 0.0, 0.0]


def test_tensorboard_download_is_named_after_its_file(tmp_path: Path) -> None:
    text = "Wall time,Step,Value\n1748300829.5,2048,-1.5\n1748300830.5,3072,-1.25\n"
    series = read(tmp_path, text, "PPO_entropy.csv").series
    assert [(s.tag, s.steps.tolist(), s.values.tolist()) for s in series] == [
        ("PPO_entropy", [2048, 3072], [-1.5, -1.25])
    ]
    assert series[0].wall_times is not None and series[0].wall_times[0] == 1748300829.5
    named = read(tmp_path, text, "run-validation-tag-epoch_loss.csv").series[0]
    assert named.tag == "validation/epoch_loss"
    assert read(tmp_path, text, "run-.-tag-Loss_train.csv").series[0].tag == "Loss_train"


def test_dvclive_metric_is_named_after_its_folders(tmp_path: Path) -> None:
    text = "step\tloss\n0\t0.5\n1\t0.25\n"
    name = "dvclive/plots/metrics/train/loss.tsv"
    assert curves(read(tmp_path, text, name)) == {"train/loss": ([0, 1], [0.5, 0.25])}
    assert delimited.run_root(tmp_path / name) == tmp_path / "dvclive"
    assert delimited.run_root(tmp_path / "lightning_logs/version_0/metrics.csv").name == "version_0"


def test_held_out_file_keeps_its_curves_apart(tmp_path: Path) -> None:
    text = "epoch,loss,acc\n0,1.0,0.5\n1,0.9,0.6\n"
    assert list(curves(read(tmp_path, text, "val_metrics.csv"))) == ["val/loss", "val/acc"]
    assert list(curves(read(tmp_path, text, "train_metrics.csv"))) == ["loss", "acc"]
    told = "epoch,train_loss,val_loss\n0,1.0,0.5\n1,0.9,0.6\n"
    assert list(curves(read(tmp_path, told, "eval_log.csv"))) == ["train_loss", "val_loss"]
    assert list(curves(read(tmp_path, text, "b_val.csv"))) == ["loss", "acc"]  # perhaps another run's


def test_parts_of_one_run_say_so() -> None:
    parts = ["val_metrics.csv", "eval.csv", "3.monitor.csv", "run-.-tag-loss.csv"]
    whole = ["metrics.csv", "train_metrics.csv", "b_val.csv", "0.monitor.csv", "run_2.csv"]
    assert all(delimited.shares_folder(Path(name)) for name in parts)
    assert not any(delimited.shares_folder(Path(name)) for name in whole)


def test_wandb_chart_export(tmp_path: Path) -> None:
    head = '"Step","a - train/loss","a - train/loss__MIN","a - train/loss__MAX"'
    rows = '"0","1.5","1","2"\n"1","1.25","1","2"\n'
    assert curves(read(tmp_path, f"{head}\n{rows}")) == {"train/loss": ([0, 1], [1.5, 1.25])}
    two = '"Step","a - loss","a - loss__MIN","b - loss"\n"0","1.5","1","2"\n"1","1.25","1","3"\n'
    assert list(curves(read(tmp_path, two))) == ["loss [run=a]", "loss [run=b]"]


def test_total_timesteps_before_iterations(tmp_path: Path) -> None:
    text = "time/iterations,rollout/ep_rew_mean,time/total_timesteps,time/time_elapsed\n1,-5,2048,3\n2,-4,4096,6\n"
    reading = read(tmp_path, text, "progress.csv")
    assert curves(reading)["rollout/ep_rew_mean"] == ([2048, 4096], [-5, -4])
    walls = reading.series[0].wall_times
    assert walls is not None and walls.tolist() == [3, 6]


def test_step_that_stands_still_gives_way_to_the_epoch(tmp_path: Path) -> None:
    reading = read(tmp_path, "step,epoch,loss\n" + "".join(f"100,{e},{1 / (e + 1)}\n" for e in range(5)))
    assert by_tag(reading, "loss").axis == "epoch" and by_tag(reading, "loss").steps.tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_batches_that_start_anew_each_epoch_count_on(tmp_path: Path) -> None:
    rows = "".join(f"{e},{b},{10 - e - b / 100}\n" for e in range(3) for b in range(0, 40, 10))
    loss = by_tag(read(tmp_path, "epoch,batch,loss\n" + rows), "loss")
    assert loss.steps.tolist() == list(range(0, 120, 10))


def test_resumed_steps_are_left_as_written(tmp_path: Path) -> None:
    steps = [0, 1, 2, 3, 2, 3, 4, 5]
    rows = "".join(f"{s},{1 / (i + 1)},{0 if s < 3 else 1}\n" for i, s in enumerate(steps))
    assert by_tag(read(tmp_path, "step,loss,epoch\n" + rows), "loss").steps.tolist() == steps


def test_many_rows_an_epoch_count_rows(tmp_path: Path) -> None:
    rows = "".join(f"{e},{5 - e - b / 10}\n" for e in range(3) for b in range(4))
    reading = read(tmp_path, "epoch,loss\n" + rows)
    assert by_tag(reading, "loss").axis == "row"
    assert by_tag(reading, "loss").steps.tolist() == list(range(12))
    assert by_tag(reading, "epoch").values.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_nothing_that_counts_means_rows(tmp_path: Path) -> None:
    loss = by_tag(read(tmp_path, "loss,acc\n3.0,0.1\n2.0,0.2\n1.0,0.3\n"), "loss")
    assert loss.axis == "row" and loss.steps.tolist() == [0, 1, 2]


def test_seconds_per_epoch_are_a_curve_not_a_clock(tmp_path: Path) -> None:
    reading = read(tmp_path, "epoch,loss,time\n0,3,12.5\n1,2,11.0\n2,1,12.0\n")
    assert curves(reading)["time"][1] == [12.5, 11.0, 12.0]
    assert by_tag(reading, "loss").wall_times is None


def test_milliseconds_since_1970(tmp_path: Path) -> None:
    reading = read(tmp_path, "step,loss,timestamp\n0,3,1700000000000\n1,2,1700000001500\n")
    walls = by_tag(reading, "loss").wall_times
    assert walls is not None and walls.tolist() == [1700000000.0, 1700000001.5]


def test_long_form_with_splits(tmp_path: Path) -> None:
    text = "epoch,phase,loss\n0,train,2.0\n0,val,2.5\n1,train,1.0\n1,val,2.25\n"
    found = curves(read(tmp_path, text))
    assert found == {"train/loss": ([0, 1], [2.0, 1.0]), "val/loss": ([0, 1], [2.5, 2.25])}


def test_long_form_with_metric_names(tmp_path: Path) -> None:
    text = "step,metric,value\n0,loss,2.0\n0,acc,0.5\n10,loss,1.0\n10,acc,0.75\n"
    assert curves(read(tmp_path, text)) == {"loss": ([0, 10], [2.0, 1.0]), "acc": ([0, 10], [0.5, 0.75])}


def test_exported_metrics_with_times(tmp_path: Path) -> None:
    text = (
        '"metricName","metricValue","step","epoch","timestamp"\n'
        '"loss","0.5","0","0","1700000000000"\n"loss","0.25","1","0","1700000001000"\n'
        '"acc","0.75","1","0","1700000001000"\n'
    )
    reading = read(tmp_path, text)
    assert curves(reading) == {"loss": ([0, 1], [0.5, 0.25]), "acc": ([1], [0.75])}
    walls = by_tag(reading, "loss").wall_times
    assert walls is not None and walls.tolist() == [1700000000.0, 1700000001.0]


def test_appended_run_with_other_columns(tmp_path: Path) -> None:
    reading = read(tmp_path, "step,loss\n0,1.0\n1,0.5\nstep,loss,acc\n0,2.0,0.1\n1,1.5,0.2\n2,1.25,0.3\n")
    assert curves(reading) == {
        "loss": ([0, 1, 0, 1, 2], [1.0, 0.5, 2.0, 1.5, 1.25]),
        "acc": ([0, 1, 2], [0.1, 0.2, 0.3]),
    }
    assert reading.problems == ()


def test_value_beside_its_running_mean(tmp_path: Path) -> None:
    text = (
        "epoch,loss,acc\n1/3,0.5 (0.75),0.1 ± 0.02\n2/3,0.25 (0.5),0.2 ± 0.01\n3/3,0.125 (0.25),0.3 ± 0.01\n"
    )
    assert curves(read(tmp_path, text)) == {
        "loss": ([1, 2, 3], [0.5, 0.25, 0.125]),
        "acc": ([1, 2, 3], [0.1, 0.2, 0.3]),
    }


def test_rules_beneath_a_header(tmp_path: Path) -> None:
    text = "Epoch  Train_Loss  Val_Loss\n-----  ----------  --------\n1      0.5         0.6\n2      0.4         0.5\n3 0.3 0.4\n"
    assert claimed(text, "train.txt")
    assert curves(read(tmp_path, text)) == {
        "Train_Loss": ([1, 2, 3], [0.5, 0.4, 0.3]),
        "Val_Loss": ([1, 2, 3], [0.6, 0.5, 0.4]),
    }


def test_runs_in_one_table(tmp_path: Path) -> None:
    rows = "".join(f"{run},{s},{s + k}\n" for k, run in enumerate(("a", "b")) for s in range(4))
    found = curves(read(tmp_path, "run,step,loss\n" + rows))
    assert found == {
        "loss [a]": ([0, 1, 2, 3], [0, 1, 2, 3]),
        "loss [b]": ([0, 1, 2, 3], [1, 2, 3, 4]),
    }


def test_seeds_in_one_table(tmp_path: Path) -> None:
    rows = "".join(f"{seed},{e},{e + seed}\n" for seed in (1, 7) for e in range(4))
    found = curves(read(tmp_path, "seed,epoch,loss\n" + rows))
    assert found["loss [7]"] == ([0, 1, 2, 3], [7, 8, 9, 10])


def test_models_and_settings_in_one_table_are_runs(tmp_path: Path) -> None:
    rows = "".join(
        f"{model},{edges},cora,{e},{1 / (e + k + 1)}\n"
        for k, (model, edges) in enumerate((("gat", "full"), ("gat", "knn"), ("gcn", "knn")))
        for e in range(0, 12, 3)
    )
    path = tmp_path / "log.csv"
    path.write_text("Model,Edges,Data,Epoch,Train Loss\n" + rows)
    found = delimited.read_all(path)
    assert list(found) == ["gat, full", "gat, knn", "gcn, knn"]
    assert curves(found["gat, knn"]) == {"Train Loss": ([0, 3, 6, 9], [1 / (e + 2) for e in (0, 3, 6, 9)])}
    assert found["gcn, knn"].hyperparameters == {"Model": "gcn", "Edges": "knn", "Data": "cora"}


def test_printed_lines_under_a_tables_name_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "".join(f"Epoch {e}/9, train loss: {1 / e:.3f} - val loss: {2 / e:.3f}\n" for e in range(1, 10))
    )
    (reading,) = delimited.read_all(path).values()
    assert {s.points for s in reading.series} == {9}


def test_words_that_change_within_a_run_name_none(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "epoch,loss,best\n" + "".join(f"{e},{1 / (e + 1)},{'yes' if e % 2 else 'no'}\n" for e in range(8))
    )
    assert list(delimited.read_all(path)) == [""]


def test_table_of_runs_is_no_curve(tmp_path: Path) -> None:
    text = (
        "Name,Runtime(Sec),batch_size,epochs,learning_rate\nfire-23,71,128,10,1e-6\nsnow-17,58,32,20,1e-5\n"
    )
    reading = read(tmp_path, text)
    assert reading.series == () and [p.kind for p in reading.problems] == ["no-series"]
    assert "'Name'" in reading.problems[0].message


def test_final_results_are_no_curve(tmp_path: Path) -> None:
    reading = read(tmp_path, "mse,rmse,r2\n0.1,0.3,0.9\n", "test_metrics.csv")
    assert reading.series == () and "final results" in reading.problems[0].message


def test_numbers_without_a_header(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "train_loss.csv", [2.5, 2.0, 1.5])
    assert curves(delimited.read(tmp_path / "train_loss.csv")) == {"train_loss": ([0, 1, 2], [2.5, 2.0, 1.5])}
    assert curves(read(tmp_path, "10,2.5\n20,2.0\n30,1.5\n", "loss.csv")) == {
        "loss": ([10, 20, 30], [2.5, 2.0, 1.5])
    }


def test_the_number_of_the_epoch_before_every_batch_is_no_curve(tmp_path: Path) -> None:
    rows = [f"{1 + i // 20},{2.5 - 0.01 * i:.2f}\n" for i in range(60)]
    loss = by_tag(read(tmp_path, "".join(rows), "loss.csv"), "loss")
    assert loss.points == 60 and loss.values[0] == 2.5 and np.all(np.diff(loss.values) < 0)


def test_a_score_that_stands_still_beside_another_is_no_epoch(tmp_path: Path) -> None:
    rows = "".join(f"{3 - i % 2},{0.5 + 0.01 * i:.2f}\n" for i in range(30))
    assert [s.tag for s in read(tmp_path, rows, "loss.csv").series] == ["loss[0]", "loss[1]"]


def test_columns_without_names_are_told_by_their_values(tmp_path: Path) -> None:
    count = [0, 0, *range(1, 20)]
    loss = [8 * 0.9**i for i in range(21)]
    rows = [f"{n},{v!r},{math.exp(v)!r},{3e-6 * n!r}" for n, v in zip(count, loss, strict=True)]
    reading = read(tmp_path, "\n".join(rows) + "\n", "train.csv")
    assert [s.tag for s in reading.series] == ["loss", "perplexity", "lr"]
    assert reading.series[0].values.tolist() == loss and reading.series[0].steps.tolist() == count
    assert "no names" in reading.problems[0].message


def bare_columns(count: int = 12) -> str:
    return "".join(f"{10 * i} {0.4 + 2 / (i + 1):.5f} {0.9 - 0.6 / (i + 1):.5f}\n" for i in range(count))


@pytest.mark.parametrize("name", ["train_log.txt", "run.log", "history.txt"])
def test_bare_columns_in_a_log_are_a_counter_and_curves(tmp_path: Path, name: str) -> None:
    assert claimed(bare_columns(), name)
    reading = read(tmp_path, bare_columns(), name)
    assert [s.tag for s in reading.series] == ["loss", "accuracy"]
    assert by_tag(reading, "accuracy").steps.tolist() == list(range(0, 120, 10))
    assert "no names" in reading.problems[0].message


def test_bare_columns_that_do_not_say_what_they_are_stay_unnamed(tmp_path: Path) -> None:
    text = "".join(f"{i}\t{5 + i % 3}.5\t{i % 4}.25\n" for i in range(9))
    assert [s.tag for s in read(tmp_path, text, "log.txt").series] == ["log[0]", "log[1]"]


@pytest.mark.parametrize("name", ["points.txt", "table.dat", "train.txt"])
def test_columns_of_numbers_under_another_name_are_no_log(name: str) -> None:
    assert not claimed(bare_columns(), name)


def test_a_counter_that_falls_back_heads_no_bare_columns() -> None:
    boxes = "".join(f"{i % 3} 0.{i}1 0.{i}2 0.1{i} 0.2{i}\n" for i in range(9))
    assert not claimed(boxes, "labels.log")


@pytest.mark.parametrize("first", ["", ","])
def test_one_line_of_numbers_is_one_curve(tmp_path: Path, first: str) -> None:
    found = curves(read(tmp_path, first + "2.5,1.5,1.25,1.0,nan,0.5\n", "losses.csv"))
    assert found["losses"][0] == [0, 1, 2, 3, 4, 5]
    assert found["losses"][1][:4] == [2.5, 1.5, 1.25, 1.0] and math.isnan(found["losses"][1][4])


def test_a_line_for_each_curve(tmp_path: Path) -> None:
    text = "loss,2.5,1.5,1.25,1.0,0.5\nval_loss,2.75,1.75,1.5,1.25,1.0\n"
    found = curves(read(tmp_path, text, "fit.csv"))
    assert found == {
        "loss": ([0, 1, 2, 3, 4], [2.5, 1.5, 1.25, 1.0, 0.5]),
        "val_loss": ([0, 1, 2, 3, 4], [2.75, 1.75, 1.5, 1.25, 1.0]),
    }


def test_an_unnamed_column_that_counts_in_strides_is_the_step(tmp_path: Path) -> None:
    found = curves(read(tmp_path, ",loss\n0,1.5\n2,1.25\n4,1.0\n", "losses.csv"))
    assert found == {"loss": ([0, 2, 4], [1.5, 1.25, 1.0])}


def test_learning_rates_of_several_groups_in_one_cell(tmp_path: Path) -> None:
    text = "EPOCH\tLEARNING_RATE\tTRAIN_LOSS\n" + "".join(
        f"{e}\t0.000{e},0.00{e}0\t{1 / e:.2f}\n" for e in (1, 2, 4)
    )
    found = curves(read(tmp_path, text, "loss.tsv"))
    assert found["LEARNING_RATE[0]"] == ([1, 2, 4], [0.0001, 0.0002, 0.0004])
    assert found["LEARNING_RATE[1]"] == ([1, 2, 4], [0.001, 0.002, 0.004])


@pytest.mark.parametrize(
    ("content", "kind", "word"),
    [
        (b"", "empty", "empty"),
        (b"\r\n", "empty", "empty"),
        (b"\0" * 5000, "empty", "empty"),
        (b"epoch,loss\n", "empty", "no rows"),
        (b"epoch,time,loss\n1,2", "empty", "no rows"),  # the only row is cut short
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "unreadable", "binary"),
        (b"PK\x03\x04\x14\0\0\0", "unreadable", "binary"),
        (b"once upon a time, there was\na log, that was none\nat all, ever\n", "unreadable", "not a table"),
        (b"3.5,2.5,1.5,0.5,0.25,0.125\n", "unreadable", "one line"),
        (b"3.5,2.5,1.5\n", "unreadable", "one line"),
        (b"name,city\nann,rome\nbob,oslo\ncyd,bonn\n", "unreadable", "not a table"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "pointer", "git lfs pull"),
    ],
)
def test_what_is_no_table_says_so(tmp_path: Path, content: bytes, kind: str, word: str) -> None:
    with pytest.raises(IngestError) as caught:
        read(tmp_path, content, "bad.csv")
    assert caught.value.kind == kind and word in caught.value.message and "bad.csv" in str(caught.value)


def test_more_columns_than_any_log_has(tmp_path: Path) -> None:
    wide = ",".join(f"c{i}" for i in range(20_000)) + "\n" + ",".join(["1"] * 20_000) + "\n"
    with pytest.raises(IngestError) as caught:
        read(tmp_path, wide * 2)
    assert caught.value.kind == "too-large"


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01 10:00:00,123 INFO loss: 0.5\n2024-01-01 10:00:01,456 INFO loss: 0.4\n" * 5,
        "Epoch 1/10 loss 0.5 acc 0.1\nEpoch 2/10 loss 0.4 acc 0.2\nEpoch 3/10 loss 0.3 acc 0.3\n",
        "0 val 10.93\n0 hella 0.24\n0 train 10.93\n1 train 10.88\n",
        '{"loss": 0.5, "step": 1}\n{"loss": 0.4, "step": 2}\n',
        "Resize(size=240, interpolation=bilinear)\nCenterCrop(size=(224, 224))\n0, 0.5\n1, 0.4\n2, 0.3\n",
        "img_1.jpg,1 1177 1795 1737 2292\nimg_2.jpg,2 1710 1976 1764 2104\n",
        "1.0 2.0 3.0\n4.0 5.0 6.0\n7.0 8.0 9.0\n",
    ],
)
def test_other_text_is_left_to_others(text: str) -> None:
    assert not claimed(text, "train.log")
    assert not claimed(text, "output.txt")


def test_large_files_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of rows join without a seam, whether a column is full, sparse or part text."""
    monkeypatch.setattr(delimited, "CELLS_AT_ONCE", 4000)
    n = 5000
    with (tmp_path / "metrics.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "loss", "val", "odd", "phase"])
        for i in range(n):
            writer.writerow(
                [i, i / 7, i if i % 100 == 0 else "", "nan" if i == 3000 else i, "warm" if i < 9 else "x"]
            )
    reading = delimited.read(tmp_path / "metrics.csv")
    loss, val, odd = (by_tag(reading, t) for t in ("loss", "val", "odd"))
    assert loss.values.tolist() == [i / 7 for i in range(n)]
    assert val.steps.tolist() == val.values.tolist() == list(range(0, n, 100))
    assert math.isnan(odd.values[3000]) and np.isnan(odd.values).sum() == 1
    assert odd.steps.tolist() == list(range(n))
    assert np.shares_memory(loss.steps, odd.steps)  # one step column for all full curves


@pytest.mark.skipif(not REAL.exists(), reason="the collection of real logs is not here")
def test_real_tables_equal_a_plain_reading() -> None:
    compared = 0
    for path in sorted((REAL / "csv").rglob("metrics.csv")):
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        for series in delimited.read(path).series:
            plain = [float(row[series.tag]) for row in rows if row[series.tag]]
            assert np.array_equal(series.values, plain, equal_nan=True), (path, series.tag)
            compared += 1
    assert compared > 50


CELL = st.one_of(
    st.sampled_from(
        ["", "nan", "NaN", "inf", "-inf", "1.#QNAN", "0.5%", "1_000", "True", " 7 ", "-", "n/a", "tensor(0.5)", '"[1, 2]"',
         '"quoted"', '"1,5"', "ok", "#", "1e400", "0x1f", "'"]
    ),
    st.floats(width=32).map(repr),
    st.integers(-(10**20), 10**20).map(str),
)  # fmt: skip


@given(st.lists(st.lists(CELL, min_size=1, max_size=4), min_size=3, max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_both_readers_see_the_same_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[list[str]]
) -> None:
    text = "step,loss,note,acc\n" + "".join(f"{i},{','.join(row)}\n" for i, row in enumerate(rows))
    found = []
    for limit in (1 << 20, 0):
        monkeypatch.setattr(delimited, "SMALL", limit)
        try:
            found.append(read(tmp_path, text))
        except IngestError as error:
            found.append(Reading(problems=(error.kind,)))  # type: ignore[arg-type]
    small, large = found
    assert [s.tag for s in small.series] == [s.tag for s in large.series]
    assert small.problems == large.problems
    for one, other in zip(small.series, large.series, strict=True):
        np.testing.assert_array_equal(one.steps, other.steps)
        np.testing.assert_allclose(one.values, other.values, rtol=1e-14)


def test_a_logged_nan_among_many_numbers_is_a_point_and_an_empty_cell_is_none(tmp_path: Path) -> None:
    rows = "".join(f"{i},{'nan' if i == 700 else i / 7},{i if i % 3 else ''}\n" for i in range(1000))
    reading = read(tmp_path, "step,loss,acc\n" + rows)
    loss, acc = by_tag(reading, "loss"), by_tag(reading, "acc")
    assert np.flatnonzero(np.isnan(loss.values)).tolist() == [700] and loss.points == 1000
    assert acc.points == 666 and not np.isnan(acc.values).any()


def test_a_padded_header_of_a_later_run_is_found(tmp_path: Path) -> None:
    def table(names: list[str], first: int) -> str:
        rows = [names, *([f"{first + i}", f"{1 / (i + 1):.5f}", "0.5"] for i in range(3))]
        return "".join(",".join(f"{cell:>15}" for cell in row) + "\n" for row in rows)

    text = table(["epoch", "train/box_loss", "lr/pg0"], 0) + table(["epoch", "train/box_loss", "val/map"], 3)
    found = curves(read(tmp_path, text, "results.csv"))
    assert found["val/map"] == ([3, 4, 5], [0.5] * 3)
    assert found["train/box_loss"][0] == [0, 1, 2, 3, 4, 5]


def test_a_number_set_in_bold_is_that_number() -> None:
    assert [cell(text) for text in ("**0.25**", "`3`", "*1e-3*")] == [0.25, 3.0, 1e-3]
    assert cell("**") is None and cell("*best*") == "*best*"
