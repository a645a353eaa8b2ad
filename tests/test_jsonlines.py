"""JSON Lines: axes, epochs that restart the counter, evaluation rows, and damage by the line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import IngestError
from analyzer.ingest import json_rows, jsonlines
from analyzer.model import Reading, Series
from analyzer.roles import assign_roles

Row = Mapping[str, object]


def read(tmp_path: Path, rows: Iterable[Row] | str, name: str = "metrics.jsonl") -> Reading:
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    path = tmp_path / name
    path.write_text(text)
    return jsonlines.read(path)


def curves(reading: Reading) -> dict[str, Series]:
    return {series.tag: series for series in reading.series}


def mmdet_rows(first: int, last: int, inside: int = 207, every: int = 50) -> list[Row]:
    rows: list[Row] = []
    for epoch in range(first, last + 1):
        for i in range(every, inside + 1, every):
            rows.append({"mode": "train", "epoch": epoch, "iter": i, "lr": 0.02, "loss": 1 / (epoch + i)})
        rows.append({"mode": "val", "epoch": epoch, "iter": inside, "lr": 0.02, "mAP": epoch / 100})
    return rows


def test_nested_rows_with_a_step_become_curves(tmp_path: Path) -> None:
    found = curves(read(tmp_path, [{"step": s, "train": {"loss": s / 2}, "lr": "1e-3"} for s in (0, 5, 10)]))
    assert found["train/loss"].steps.tolist() == [0, 5, 10]
    assert found["train/loss"].values.tolist() == [0, 2.5, 5]
    assert found["lr"].values.tolist() == [1e-3] * 3  # numbers in quotes are numbers
    assert "step" not in found


def test_a_missing_key_or_null_is_a_missing_point_and_nan_a_logged_one(tmp_path: Path) -> None:
    text = '{"step": 0, "loss": 1}\n{"step": 1, "loss": null}\n{"step": 2}\n{"step": 3, "loss": NaN}\n'
    text += '{"step": 4, "loss": nan}\n{"step": 5, "loss": -Infinity}\n'
    loss = curves(read(tmp_path, text))["loss"]
    assert loss.steps.tolist() == [0, 3, 4, 5]
    assert np.isnan(loss.values[1:3]).all() and loss.values[3] == -np.inf


def test_mmdetection_counts_on_across_epochs_and_evaluates_at_their_end(tmp_path: Path) -> None:
    config = "optimizer = dict(type='SGD', lr=0.02)\ntotal_epochs = 3\nf = open('/etc/passwd')\n"
    header = {"env_info": "…", "config": config, "seed": 7, "exp_name": "x.py"}
    reading = read(tmp_path, [header, *mmdet_rows(1, 3)], "20210101_000000.log.json")
    found = curves(reading)
    assert found["train/loss"].steps.tolist() == [e * 207 + i for e in range(3) for i in (50, 100, 150, 200)]
    assert found["val/mAP"].steps.tolist() == [207, 414, 621]
    assert found["epoch"].values.tolist() == [1] * 4 + [2] * 4 + [3] * 4
    assert "val/lr" not in found  # an evaluation only repeats it
    assert reading.hyperparameters["optimizer.lr"] == 0.02
    assert reading.hyperparameters["total_epochs"] == 3
    assert "f" not in reading.hyperparameters


def test_mmdetection_resumed_at_epoch_12_starts_there(tmp_path: Path) -> None:
    found = curves(read(tmp_path, mmdet_rows(12, 13)))
    assert found["train/loss"].steps[0] == 11 * 207 + 50
    assert found["val/mAP"].steps.tolist() == [12 * 207, 13 * 207]


def test_evaluation_rows_that_count_their_own_batches_follow_training(tmp_path: Path) -> None:
    rows: list[Row] = []
    for step in (1000, 2000, 3000):
        rows.append({"mode": "train", "epoch": 1, "iter": step, "loss": 1.0})
        rows.append({"mode": "val", "epoch": 1, "iter": 250, "mIoU": step / 1e4})
    assert curves(read(tmp_path, rows))["val/mIoU"].steps.tolist() == [1000, 2000, 3000]


def test_mmengine_evaluation_rows_hold_the_epoch_as_their_step(tmp_path: Path) -> None:
    rows: list[Row] = []
    for epoch in range(1, 6):
        rows.append({"lr": 0.1, "loss": 1 / epoch, "epoch": epoch, "step": epoch * 101 - 1})
        rows.append({"accuracy/top1": epoch * 10.0, "step": epoch})
    found = curves(read(tmp_path, rows, "scalars.json"))
    assert found["val/accuracy/top1"].steps.tolist() == [100, 201, 302, 403, 504]
    assert found["train/loss"].steps.tolist() == [100, 201, 302, 403, 504]


def test_detectron2_counts_iterations_and_evaluates_in_rows_of_their_own(tmp_path: Path) -> None:
    """Its keys are sorted, the counter stands among them; a size without a box is evaluated as NaN."""
    text = ""
    for i in range(19, 100, 20):
        row = {
            "data_time": 0.01, "eta_seconds": 9.0 - i / 20, "fast_rcnn/cls_accuracy": 0.9, "iteration": i,
            "loss_box_reg": 1 / i, "loss_cls": 2 / i, "loss_rpn_cls": 0.1 / i, "loss_rpn_loc": 0.2 / i, "lr": i / 5000,
            "rank_data_time": 0.01, "roi_head/num_bg_samples": 110.5, "rpn/num_pos_anchors": 12.0, "time": 0.2,
            "total_loss": 3.3 / i,
        }  # fmt: skip
        text += json.dumps(row, sort_keys=True) + "\n"
        if i in (59, 99):
            text += f'{{"bbox/AP": {i / 4}, "bbox/AP-person": 40.5, "bbox/AP50": {i / 3}, "bbox/APs": NaN, "iteration": {i}}}\n'
    reading = read(tmp_path, text, "metrics.json")
    found = curves(reading)
    assert not reading.problems and jsonlines.claims(Path("metrics.json"), text[:4096].encode())
    assert found["total_loss"].steps.tolist() == [19, 39, 59, 79, 99]
    assert found["total_loss"].values.tolist() == [3.3 / i for i in range(19, 100, 20)]
    assert found["bbox/AP"].steps.tolist() == [59, 99] and found["bbox/AP"].values.tolist() == [14.75, 24.75]
    assert np.isnan(found["bbox/APs"].values).all() and found["bbox/APs"].points == 2
    assert "iteration" not in found
    roles = {tag: match.role for tag, match in assign_roles(list(found)).items()}
    assert [roles[tag] for tag in ("total_loss", "loss_cls", "bbox/AP", "lr")] == [
        "train_loss", "train_loss_part", "val_metric", "learning_rate",
    ]  # fmt: skip


def test_git_conflict_markers_cost_nothing_but_the_other_side(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"step": s, "loss": 1.0}) + "\n" for s in range(4))
    reading = read(tmp_path, f"<<<<<<< HEAD\n{rows}=======\n{rows}>>>>>>> origin/master\n", "scalars.json")
    assert curves(reading)["loss"].steps.tolist() == [0, 1, 2, 3]
    (problem,) = reading.problems
    assert problem.kind == "damaged" and "line 1" in problem.message and "4 lines" in problem.message


def test_a_damaged_line_is_skipped_and_located(tmp_path: Path) -> None:
    good = json.dumps({"step": 1, "loss": 1.0})
    reading = read(tmp_path, f"{good}\n\x00garbage\n[1, 2]\n{good}\n")
    assert curves(reading)["loss"].points == 2
    (problem,) = reading.problems
    assert (problem.kind, problem.offset) == ("damaged", len(good) + 1)
    assert "2 lines" in problem.message and "line 2" in problem.message


def test_a_last_line_that_breaks_off_is_truncation(tmp_path: Path) -> None:
    reading = read(tmp_path, '{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    assert [problem.kind for problem in reading.problems] == ["truncated"]


def test_wandb_history_has_wall_times_and_its_own_step(tmp_path: Path) -> None:
    rows = [{"_step": s, "_timestamp": 1.7e9 + s, "_runtime": s, "loss": 1.0} for s in range(3)]
    rows[1]["gradients/fc"] = {"_type": "histogram", "values": [1], "bins": [0, 1]}
    (loss,) = read(tmp_path, rows).series
    assert loss.tag == "loss" and loss.steps.tolist() == [0, 1, 2]
    assert loss.wall_times is not None and loss.wall_times.tolist() == [1.7e9, 1.7e9 + 1, 1.7e9 + 2]


def test_epoch_alone_is_the_axis_and_rows_are_where_nothing_counts(tmp_path: Path) -> None:
    (loss,) = read(tmp_path, [{"epoch": e, "test_loss": 1.0} for e in range(3)]).series
    assert (loss.axis, loss.steps.tolist()) == ("epoch", [0, 1, 2])
    (loss,) = read(tmp_path, [{"loss": 1.0}, {"loss": 2.0}]).series
    assert (loss.axis, loss.steps.tolist()) == ("row", [0, 1])


def test_a_data_set_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(IngestError) as caught:
        read(tmp_path, [{"id": i, "text": "x", "label": 1} for i in range(3)])
    assert caught.value.kind == "no-series"


def test_huge_numbers_and_deep_nesting_do_no_harm(tmp_path: Path) -> None:
    deep = '{"a":' * 5000 + "1" + "}" * 5000
    big = "9" * 400
    reading = read(tmp_path, f'{{"step": 1, "loss": {big}}}\n{deep}\n{{"step": 2, "loss": 1}}\n')
    assert curves(reading)["loss"].values.tolist() == [np.inf, 1.0]


@pytest.mark.parametrize(
    ("name", "head", "claimed"),
    [
        ("metrics.json", b'{"iteration": 19, "loss": 1}\n{"iteration": 39, "loss": 1}\n', True),
        ("log.txt", b'{"epoch": 0, "loss": 1}\n{"epoch": 1, "loss": 1}\n', True),
        ("scalars.json", b'<<<<<<< HEAD\n{"loss": 1}\n{"loss": 2}\n', True),
        ("x.log.json", b'{"env_info": "', True),
        ("config.json", b'{"lr": 0.1}\n', False),
        ("config.json", b'{\n  "lr": 0.1\n}\n', False),
        ("notes.txt", b"loss: 0.5\nloss: 0.4\n", False),
    ],
)
def test_claims(name: str, head: bytes, claimed: bool) -> None:
    assert jsonlines.claims(Path(name), head) is claimed


LINE = st.sampled_from(
    ['{"step": 1, "loss": 0.5}', '{"loss": 0.25, "step": 2, "note": "x"}', '{"loss": NaN}', '{"loss": nan}',
     '{"a": {"b": 1}}', '{"a": 1, "a/b": 2, "a": {"b": 3}}', "", "  ", '{"loss": 1}, {"loss": 2}', '{"a": [{"x": 1}',
     '{"b": 1}]}', "[1, 2]", "0", '{"loss": 1', '"b": 2}', '{"loss": 99999999999999999999999}', '{"loss": "0.5"}',
     '{"mode": "val", "loss": 1}', "garbage", '{"note": "\\ud800", "loss": 3}', "<<<<<<< HEAD", "=======",
     ">>>>>>> main", '{"loss": true}', '{"loss": null, "acc": 1}']
)  # fmt: skip


def numbers(row: dict[str, object]) -> list[tuple[str, float | None]]:
    return [(tag, json_rows.number(value)) for tag, value in json_rows.flatten(row)]


@pytest.mark.parametrize("fast", [True, False])
@given(lines=st.lists(LINE, max_size=12), ended=st.booleans())
def test_lines_parsed_together_give_what_each_gives_alone(
    tmp_path_factory: pytest.TempPathFactory, fast: bool, lines: list[str], ended: bool
) -> None:
    if fast:
        pytest.importorskip("orjson")
    text = ("\n".join(lines) + "\n" * ended).encode()
    path = tmp_path_factory.mktemp("lines") / "metrics.jsonl"
    path.write_bytes(text)
    together, alone = jsonlines.Lines(), jsonlines.Lines()
    with pytest.MonkeyPatch.context() as patch:
        if not fast:
            patch.setattr(jsonlines, "_fast_parser", lambda: None)
        found = list(jsonlines._rows(path, together))
        expected = list(jsonlines._one_by_one(text, 0, alone))
    assert repr([numbers(row) for row in found]) == repr([numbers(row) for row in expected])
    if not alone.conflicts:
        assert (together.bad, together.first_bad, together.first_bad_offset) == (
            alone.bad,
            alone.first_bad,
            alone.first_bad_offset,
        )


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.sampled_from([1, 2.5, "3", None, True, [1], {"d": 4.0}]))
    )
)
def test_columns_hold_every_number_of_every_row(rows: list[dict[str, object]]) -> None:
    table = json_rows.Rows()
    json_rows.add_rows(table, rows)
    expected: dict[str, list[tuple[int, float]]] = {}
    for i, row in enumerate(rows):
        for tag, value in json_rows.flatten(row):
            if (figure := json_rows.number(value)) is not None:
                expected.setdefault(tag, []).append((i, figure))
    found = {tag: json_rows.points(table, tag) for tag in table.columns}
    assert {tag: list(zip(r.tolist(), v.tolist(), strict=True)) for tag, (r, v) in found.items()} == expected


def test_a_damaged_block_costs_only_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "BLOCK", 256)
    lines = [json.dumps({"step": i, "loss": i / 8}) for i in range(200)]
    lines[77] = lines[77][:9]
    reading = read(tmp_path, "\n".join(lines) + "\n")
    assert curves(reading)["loss"].steps.tolist() == [i for i in range(200) if i != 77]
    (problem,) = reading.problems
    assert problem.kind == "damaged" and "line 78" in problem.message
    assert problem.offset == sum(len(line) + 1 for line in lines[:77])


def test_steps_done_beside_steps_planned(tmp_path: Path) -> None:
    path = tmp_path / "trainer_log.jsonl"
    path.write_text(
        "".join(
            f'{{"current_steps": {10 * i}, "total_steps": 90, "loss": {9 - i}, "epoch": 0.{i}}}\n'
            for i in range(9)
        )
    )
    found = {series.tag: series for series in jsonlines.read(path).series}
    assert found["loss"].steps.tolist() == list(range(0, 90, 10))
