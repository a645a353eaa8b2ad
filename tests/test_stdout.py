"""Plain-text logs: what is a curve, on which axis, under which name; and what is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import IngestError
from analyzer.ingest import stdout
from analyzer.ingest.printed import words
from analyzer.ingest.printed.headings import section_of
from analyzer.model import Reading, Series


def read(tmp_path: Path, text: str, name: str = "train.log") -> Reading:
    path = tmp_path / name
    path.write_text(text, newline="")
    assert stdout.claims(path, path.read_bytes()[:4096])
    return stdout.read(path)


def curves(tmp_path: Path, text: str) -> dict[str, Series]:
    return {series.tag: series for series in read(tmp_path, text).series}


def bar(done: int, total: int, before: str = "", after: str = "") -> str:
    tail = f", {after}" if after else ""
    return f"{before}{100 * done // total}%|{'█' * (10 * done // total)}| {done}/{total} [00:01<00:02, 9.1it/s{tail}]"


def test_epoch_lines(tmp_path: Path) -> None:
    text = "".join(
        f"Epoch {e}/20, time 3s - loss: {1 / e:.4f} - val_loss: {2 / e:.4f} - lr: 1e-3\n" for e in (1, 2, 4)
    )
    found = curves(tmp_path, text)
    assert set(found) == {"loss", "val_loss", "lr"}
    assert found["loss"].axis == "epoch" and found["loss"].steps.tolist() == [1, 2, 4]
    assert found["val_loss"].values.tolist() == [2, 1, 0.5]


def test_step_lines_and_evaluations_share_an_axis(tmp_path: Path) -> None:
    text = ""
    for i in range(0, 500, 10):
        if i % 100 == 0:
            text += f"step {i}: train loss {5 - i / 100:.4f}, val loss {6 - i / 100:.4f}\n"
        text += f"iter {i}: loss {5 - i / 101:.4f}, time 120.34ms, mfu 12.34%\n"
    found = curves(tmp_path, text)
    assert set(found) == {"loss", "train_loss", "val_loss"}
    assert found["val_loss"].steps.tolist() == [0, 100, 200, 300, 400]
    assert found["loss"].points == 50 and found["loss"].axis == "step"


def test_a_loss_of_the_step_or_the_epoch_is_no_counter(tmp_path: Path) -> None:
    text = "".join(
        f"epoch {i // 4} | step {i} | train_loss_step {2 - i / 9:.4f} | lr 0.004\n"
        + (f"epoch {i // 4} | step {i} | train_loss_epoch {2 - i / 8:.4f}\n" if i % 4 == 3 else "")
        for i in range(12)
    )
    found = curves(tmp_path, text)
    assert set(found) == {"train_loss_step", "train_loss_epoch", "lr"}
    assert found["train_loss_step"].steps.tolist() == list(range(12))
    assert found["train_loss_epoch"].steps.tolist() == [3, 7, 11]


def test_a_loss_scale_is_a_curve_of_its_own(tmp_path: Path) -> None:
    text = "".join(f"[epoch 0, iter {i}] loss: {2 - i / 9:.4f}, loss_scale: {2**i}\n" for i in range(9))
    assert curves(tmp_path, text)["loss_scale"].values.tolist() == [2**i for i in range(9)]


@pytest.mark.parametrize(
    "line",
    [
        "epoch 0 | step {i} | train loss {v} | grad_norm/layers.0.weight {v} | activations/3/zero_fraction {v}",
        "[epoch 0, iter {i}] loss: {v}, grad_norm/layers.0.weight: {v}, grad_norm/4: {v}",
        "step={i} loss={v} grads/fc1.weight={v} dead_relu/relu2={v}",
    ],
)
def test_what_was_measured_of_single_layers_is_read(tmp_path: Path, line: str) -> None:
    found = curves(tmp_path, "".join(line.format(i=i, v=f"{0.9 - i / 20:.3f}") + "\n" for i in range(9)))
    assert len(found) == line.count("{v}")
    assert all(np.allclose(series.values, 0.9 - np.arange(9) / 20) for series in found.values())


def test_step_word_value_lines(tmp_path: Path) -> None:
    text = "".join(
        f"{i} train {9 - i}\n" + (f"{i} val {9.5 - i}\n{i} hella 0.2{i}\n" if i % 2 == 0 else "")
        for i in range(6)
    )
    found = curves(tmp_path, text)
    assert found["val_loss"].steps.tolist() == [0, 2, 4]
    assert found["train_loss"].points == 6 and found["hella"].points == 3


def test_the_number_of_a_layer_within_a_name_is_no_value(tmp_path: Path) -> None:
    text = "".join(
        f"[iter {i}] loss: 2.{9 - i}, activations/1/zero_fraction: 0.4{i}, activations/3/zero_fraction: 1\n"
        for i in range(1, 8)
    )
    found = curves(tmp_path, text)
    assert found["activations/1/zero_fraction"].values.tolist() == pytest.approx(
        [0.40 + i / 100 for i in range(1, 8)]
    )
    assert found["activations/3/zero_fraction"].values.tolist() == [1.0] * 7


def test_batches_that_restart_each_epoch_count_on(tmp_path: Path) -> None:
    text = "".join(
        f"EPOCH {e}:\n  batch 250 loss: 0.5{e}\n  batch 500 loss: 0.4{e}\nLOSS train 0.4{e} valid 0.6{e}\n"
        for e in range(20, 24)
    )
    found = curves(tmp_path, text)
    assert found["loss"].steps.tolist() == [(e - 1) * 500 + b for e in range(20, 24) for b in (250, 500)]
    assert found["train_loss"].steps.tolist() == [e * 500 for e in range(20, 24)]
    assert found["val_loss"].values[0] == 0.62


def test_phases_name_the_section_and_batches_of_an_evaluation_are_no_curve(tmp_path: Path) -> None:
    text = ""
    for e in range(4):
        stamp = f"2018-01-27 1{e}:00:00,500 INFO    : "
        text += "".join(f"{stamp}train --- Current batch:{b}/1600  loss:[ 0.{e + 1}]\n" for b in (800, 1600))
        text += f"{stamp}Epoch [{e}]/[3] \t Training Phase Loss: 0.0{e + 1} \t Accuracy: 0.5{e}\n"
        text += "".join(f"{stamp}val --- Current batch:{b}/400  loss:[ 0.9]\n" for b in (200, 400))
        text += f"{stamp}Epoch [{e}]/[3] \t Validation Phase Loss: 0.0{e + 2} \t Accuracy: 0.6{e}\n"
    found = curves(tmp_path, text)
    assert set(found) == {"train_loss_step", "train_loss_epoch", "train_accuracy", "val_loss", "val_accuracy"}
    assert found["train_loss_step"].steps.tolist() == [800, 1600, 2400, 3200, 4000, 4800, 5600, 6400]
    assert found["val_accuracy"].steps.tolist() == [1600, 3200, 4800, 6400]
    wall = found["val_loss"].wall_times
    assert wall is not None and np.diff(wall).tolist() == [3600] * 3


def test_trainer_dicts(tmp_path: Path) -> None:
    text = ""
    for s in range(1, 5):
        loss = "nan" if s == 3 else f"{1 / s}"
        text += bar(s, 10) + f"{{'loss': {loss}, 'learning_rate': 1e-05, 'epoch': {s / 2}}}\n"
        text += f"{{'eval_loss': '0.{s}', 'eval_f1': array([0.1, 0.2]), 'epoch': {s / 2}}}\n"
    found = curves(tmp_path, text)
    assert set(found) == {"loss", "learning_rate", "eval_loss"}
    assert found["loss"].steps.tolist() == [0.5, 1, 1.5, 2] and found["loss"].axis == "epoch"
    assert np.isnan(found["loss"].values[2])


def test_keras_bars_count_by_their_final_state(tmp_path: Path) -> None:
    text = ""
    for e in range(1, 5):
        text += f"Epoch {e}/4\n"
        text += "".join(
            f"\r{i}/100 [==>....] - ETA: 3s - loss: {9 - i / 50:.3f}\b\b" for i in range(10, 100, 10)
        )
        text += f"\r100/100 [======] - 5s 3ms/step - loss: {1 / e:.3f} - val_loss: {2 / e:.3f}\n"
    found = curves(tmp_path, text)
    assert found["loss"].values.tolist() == [1, 0.5, 0.333, 0.25]
    assert found["loss"].steps.tolist() == found["val_loss"].steps.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("start", ["epoch{}:", "[Epoch{}/9]", "E{}:", "ep{} |", "step{},"])
def test_a_counter_may_stand_close_to_its_number(tmp_path: Path, start: str) -> None:
    text = "".join(f"{start.format(e)} tr_loss={1 / e:.3f} te_loss={2 / e:.3f}\n" for e in range(1, 7))
    found = curves(tmp_path, text)
    assert found["tr_loss"].steps.tolist() == found["te_loss"].steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert found["te_loss"].values.tolist() == [2, 1, 0.667, 0.5, 0.4, 0.333]


@pytest.mark.parametrize("bar", ["[==============================]", "━━━━━━━━━━━━━━━━━━━━"])
def test_keras_bars_of_which_only_the_final_state_is_left(tmp_path: Path, bar: str) -> None:
    losses = ["2.0", "0.5", "nan", "nan"]
    text = "".join(
        f"Epoch {e}/4\n66/66 {bar} 5s 7ms/step - loss: {loss} - val_loss: {loss}\n"
        for e, loss in enumerate(losses, start=1)
    )
    found = curves(tmp_path, text)
    assert found["loss"].steps.tolist() == found["val_loss"].steps.tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(found["loss"].values, [2.0, 0.5, np.nan, np.nan])


def test_tqdm_bars_count_by_their_final_state(tmp_path: Path) -> None:
    text = "".join(
        "".join("\r" + bar(i, 100, f"Epoch {e}: ", f"loss={2 / (e + 1) + (100 - i) / 100:.3f}") for i in range(0, 101, 20)) + "\n"
        for e in range(4)
    )  # fmt: skip
    found = curves(tmp_path, text)
    assert found["loss"].values.tolist() == [2, 1, 0.667, 0.5]
    assert found["loss"].steps.tolist() == [0, 1, 2, 3]


def test_a_bar_that_was_cut_off_is_no_epoch(tmp_path: Path) -> None:
    text = "".join("\r" + bar(i, 10, f"Epoch {e}: ", "loss=1.0") + "\n" for e in range(4) for i in (5, 10))
    text += "\r" + bar(5, 10, "Epoch 4: ", "loss=77.0")
    assert curves(tmp_path, text)["loss"].values.tolist() == [1, 1, 1, 1]


def test_one_bar_over_all_steps_is_the_curve(tmp_path: Path) -> None:
    found = curves(
        tmp_path, "".join("\r" + bar(i, 1000, "", f"loss={5 - i / 250:.3f}") for i in range(0, 1001, 50))
    )
    assert found["loss"].steps.tolist() == list(range(0, 1001, 50))


def test_bars_of_two_lengths_under_one_name_are_not_mixed(tmp_path: Path) -> None:
    text = "".join(
        "".join(bar(i, 400, "loss: 0.5 ||: ") + "\n" for i in (200, 400))
        + "".join(bar(i, 8, "loss: 0.9 ||: ") + "\n" for i in (4, 8))
        for _ in range(4)
    )
    reading = read(tmp_path, text)
    assert [series.values.tolist() for series in reading.series] == [[0.5] * 4]
    assert [problem.kind for problem in reading.problems] == ["unsure"]


@pytest.mark.parametrize(
    ("line", "tags", "steps"),
    [
        ("(epoch: {e}, iters: {i}, time: 0.1, data: 0.2) D_A: 0.3 G_GAN: 0.{i}", {"D_A", "G_GAN"}, "restart"),
        ("Epoch [{e}/10], Step [{i}/300], Loss: 0.{i}", {"Loss"}, "restart"),
        ("Epoch: [{e}][{i}/300]\tTime 0.5 ( 0.6)\tLoss 0.{i} (0.5)\tAcc@1 5.0 (6.0)", {"Loss", "Acc@1"}, "restart"),
        ("| epoch {e} | {i}/ 300 batches | lr 20.00 | ms/batch 5.1 | loss 0.{i} | ppl 3.1", {"loss", "ppl", "lr"}, "restart"),
        ("I0705 11:05:58.025000 465377 train.py:123] step = {g}, loss = 0.{i} (0.5 sec)", {"loss"}, "global"),
        ("2021-03-11 17:00:00,123 - mmdet - INFO - Epoch [{e}][{i}/300]\tlr: 1.0e-03, eta: 1:00:00, memory: 9, loss: 0.{i}",
         {"lr", "loss"}, "restart"),
        ("[07/05 11:05:58 d2.utils.events]:  eta: 0:36:37  iter: {g}  total_loss: 0.{i}  lr: 1e-05  max_mem: 3M",
         {"total_loss", "lr"}, "global"),
        (" iteration {g}/ 900 | consumed samples: 80 | lm loss: 9.{i}E+00 | grad norm: 2.1 |", {"lm_loss", "grad_norm"}, "global"),
    ],
)  # fmt: skip
def test_known_layouts(tmp_path: Path, line: str, tags: set[str], steps: str) -> None:
    counts = [(e, i) for e in (1, 2, 3) for i in (100, 200, 300)]
    text = "".join(
        line.replace("{e}", str(e)).replace("{i}", str(i)).replace("{g}", str((e - 1) * 300 + i)) + "\n"
        for e, i in counts
    )
    found = {tag.lower(): series for tag, series in curves(tmp_path, text).items()}
    assert set(found) == {tag.lower() for tag in tags}
    for series in found.values():
        assert series.axis == "step", steps
        assert series.steps.tolist() == [(e - 1) * 300 + i for e, i in counts]


def test_the_mean_of_the_last_batch_is_the_result_of_an_evaluation(tmp_path: Path) -> None:
    text = "".join(
        "".join(f"Train: {e} [{i}/100 (0%)]  Loss: 1.0 (2.0)\n" for i in (0, 50))
        + "".join(f"Test: [{i}/40]  Loss: 9.0 ({e}.{i})\n" for i in (0, 20, 40))
        for e in range(4)
    )
    found = curves(tmp_path, text)
    assert found["test_loss"].values.tolist() == [0.40, 1.40, 2.40, 3.40]
    assert found["train_loss"].points == 8


def test_means_so_far_count_once_an_epoch(tmp_path: Path) -> None:
    text = "".join(
        "".join(f"Epoch {e}, Step {i}, avg loss so far is 0.{e}{i}\n" for i in (25, 50, 75))
        + f"Epoch {e}, val loss is 0.5, val mse is 0.{e}1.\n"
        for e in range(4)
    )
    found = curves(tmp_path, text)
    assert found["loss"].values.tolist() == [0.075, 0.175, 0.275, 0.375]
    assert found["val_mse"].values.tolist() == [0.01, 0.11, 0.21, 0.31]


@pytest.mark.parametrize(
    "text",
    [
        "The loss of 3 people was mourned.\nWe reached an accuracy of 93% in 2019.\nIn 2020 the loss was 0.1\n",
        "def step(x):\n    loss = 0.5 * x\n    acc = 1.0\n    return loss\n" * 1,
        "Downloading 35%\nDownloading 75%\nDownloading 99%\n",
        "conv1 (64, 3, 7, 7)\nconv2 (64, 64, 3, 3)\nconv3 (64, 64, 3, 3)\nconv4 (1, 2, 3, 4)\n",
        "a.jpg,1 1177 1795\nb.jpg,2 1710 1976\nc.jpg,3 17 19\n",
        "epoch 1 done\nepoch 2 done\nepoch 3 done\n",
        "Epoch 1: val_loss improved from inf to 0.4, saving\nEpoch 2: val_loss improved from 0.4 to 0.3, saving\n"
        "Epoch 3: val_loss improved from 0.3 to 0.2, saving\n",
        "epoch 1 loss 0.5\nepoch 2 loss 0.4\n",  # two lines are no curve
    ],
)
def test_prose_code_and_tables_are_no_curves(tmp_path: Path, text: str) -> None:
    with pytest.raises(IngestError) as caught:
        read(tmp_path, text)
    assert caught.value.kind == "no-series"


def test_a_crash_is_reported_cut_and_cleaned(tmp_path: Path) -> None:
    trace = 'Traceback (most recent call last):\n  File "x.py", line 3, in <module>\n    main()\n'
    reading = read(tmp_path, trace + f"torch.cuda.OutOfMemoryError: out\x1b[31m of \x07memory {'x' * 500}\n")
    (problem,) = reading.problems
    assert problem.kind == "crashed" and len(problem.message) == 200
    assert problem.message.startswith("torch.cuda.OutOfMemoryError: out of memory")


def test_a_traceback_quoted_in_prose_is_no_crash(tmp_path: Path) -> None:
    quoted = "Arrays have no truth value::\n\n  Traceback (most recent call last):\n  ValueError: ambiguous\n\nAsk any() 1 time.\n"
    with pytest.raises(IngestError, match="no training curve"):
        read(tmp_path, quoted)


def test_a_traceback_amid_a_long_text_without_a_curve_is_no_crash(tmp_path: Path) -> None:
    session = ">>> sqrt(-1)\nTraceback (most recent call last):\nValueError: math domain error\n"
    with pytest.raises(IngestError, match="no training curve"):
        read(tmp_path, session + "and so on\n" * 200)


def test_training_that_went_on_after_a_traceback_did_not_crash(tmp_path: Path) -> None:
    text = "Traceback (most recent call last):\nValueError: ignored\n"
    reading = read(tmp_path, text + "".join(f"epoch {e} loss 0.{e}\n" for e in range(1, 6)))
    assert reading.series[0].points == 5 and not reading.problems


def test_nan_that_was_printed_stays(tmp_path: Path) -> None:
    found = curves(tmp_path, "".join(f"epoch {e} train_loss: {'nan' if e > 2 else 1.5}\n" for e in range(5)))
    assert np.isnan(found["train_loss"].values[3:]).all() and found["train_loss"].points == 5


def test_utf16_and_escape_sequences(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_bytes(
        "".join(f"\x1b[1mepoch {e}\x1b[0m loss: 0.{e}\r\n" for e in range(1, 5)).encode("utf-16")
    )
    assert stdout.claims(path, path.read_bytes()[:4096])
    assert stdout.read(path).series[0].steps.tolist() == [1, 2, 3, 4]


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    bomb = "{'loss': " + "(" * 3000 + "1" + ")" * 3000 + "}\n"
    code = "{'loss': __import__('os').system('touch pwned'), 'epoch': 1}\n"
    text = bomb + code * 4 + "0" * 300_000 + "\n" + "loss " * 5000 + "\n" + "epoch 1 loss 1e999999\n" * 4
    reading = read(tmp_path, text)
    assert np.isinf(next(s for s in reading.series if s.tag == "loss").values).all()
    assert not (Path.cwd() / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "head", "claimed"),
    [
        ("train.log", b"epoch 1", True),
        ("stdout", b"epoch 1", True),
        ("slurm-123.out", b"epoch 1", True),
        ("job.err", b"epoch 1", True),
        ("log", b"epoch 1", True),
        ("model.py", b"loss = 1", False),
        ("weights.log", b"\x00\x01\x02", False),
        ("debug-internal.log", b"2024", False),
        ("requirements.txt", b"numpy==1.0", False),
    ],
)
def test_claims(name: str, head: bytes, claimed: bool) -> None:
    assert stdout.claims(Path(name), head) is claimed


PIECE = st.sampled_from(
    ["loss", "loss:", "val loss", "top5", "acc@1", "Epoch", "[", "]", "/", "(", ")", " ", "  ", "\t", ",", "|", "-", ".",
     "=", "ms", "%", "e", "nan", "inf", "iter", "step", "3", "-2", "0.5", "1e-4", "+7", "5.", ".5", "12", "4.5s"]
)  # fmt: skip


@given(st.lists(st.lists(PIECE, min_size=2, max_size=10).map("".join), min_size=1, max_size=6))
def test_a_line_is_read_the_same_however_often_its_kind_came_before(lines: list[str]) -> None:
    learning, plain = words.Templates(), words.Templates()
    for at, line in enumerate(lines * words.OFTEN * 2):
        line = line.replace("12", str(10 + at))
        expected = words._taken_apart(line, at, None, plain)
        plain.shapes.clear()
        assert repr(words.entry_of_words(line, at, None, learning)) == repr(expected)


def test_numbers_in_a_dict_may_be_wrapped_in_their_type(tmp_path: Path) -> None:
    text = "".join(
        f"{{'loss': np.float64({9 - i}.5), 'grad_norm': tensor({i}.25, device='cuda:0'), 'epoch': {i}}}\n"
        for i in range(4)
    )
    found = curves(tmp_path, text)
    assert found["loss"].values.tolist() == [9.5, 8.5, 7.5, 6.5]
    assert found["grad_norm"].values.tolist() == [0.25, 1.25, 2.25, 3.25]


def test_a_table_of_commas_below_a_preamble(tmp_path: Path) -> None:
    text = "Using cache found in /somewhere\nResize(size=240)\nEpoch, Precision, FScore\n"
    text += "".join(f"{e}, {e / 8}, 0.{e}5\n" + ("saved\n" if e == 2 else "") for e in range(6))
    found = curves(tmp_path, text)
    assert found["Precision"].values.tolist() == [e / 8 for e in range(6)]
    assert found["FScore"].axis == "epoch" and found["FScore"].steps.tolist() == list(range(6))


def test_a_table_of_white_space_with_gaps(tmp_path: Path) -> None:
    text = "epoch     train_loss  valid_loss  accuracy  time\n"
    text += "".join(
        f"{e}         {3 - e / 4}         {4 - e / 4}       0.{e}     00:0{e}\n" for e in range(5)
    )
    found = curves(tmp_path, text)
    assert set(found) == {"train_loss", "valid_loss", "accuracy"}
    assert found["valid_loss"].values.tolist() == [4 - e / 4 for e in range(5)]


@pytest.mark.parametrize(
    "show",
    [lambda done: f"{25 * done}%|{'█' * done}| {done}/4 [00:01<00:02,  3.1it/s]",
     lambda done: f"{25 * done}% {'━' * done}{'─' * (4 - done)} {done}/4 3.1it/s 0.{done}s<1.0s"],
)  # fmt: skip
def test_the_bar_of_a_detector_with_its_losses_below_their_names(
    tmp_path: Path, show: Callable[[int], str]
) -> None:
    text = ""
    for epoch in range(1, 6):
        text += "\n      Epoch    GPU_mem   box_loss   cls_loss  Instances       Size\n"
        for done in range(5):
            text += f"        {epoch}/5      2.26G      {9 - epoch}.{4 - done}      0.{epoch}         45        640: {show(done)}\r"
        ran = (
            ": 100% ━━━━━━━━━━━━ 2/2 1.6s/it 3.2s" if epoch % 2 else ""
        )  # newer ones let a bar run behind the names
        text += f"\n                 Class     Images  Instances      Box(P          R      mAP50  mAP50-95){ran}\n"
        text += f"                   all        128        929      0.5{epoch}      0.5      0.6{epoch}      0.3\n"
        text += "                   cat         28         29      0.1      0.1      0.1      0.1\n"
    found = curves(tmp_path, text)
    assert found["box_loss"].values.tolist() == [8, 7, 6, 5, 4]
    assert found["box_loss"].steps.tolist() == [1, 2, 3, 4, 5]
    assert found["cls_loss"].points == 5
    assert found["mAP50"].values.tolist() == [0.61, 0.62, 0.63, 0.64, 0.65]
    assert found["mAP50-95"].steps.tolist() == [1, 2, 3, 4, 5]


def test_names_above_words_are_no_table(tmp_path: Path) -> None:
    text = "epoch, loss and so on\n" + "the loss, as of epoch 3, is a matter of taste\n" * 5
    with pytest.raises(IngestError):
        read(tmp_path, text)


def by_run(tmp_path: Path, text: str) -> dict[str, dict[str, list[float]]]:
    path = tmp_path / "train.log"
    path.write_text(text)
    return {
        run: {series.tag: series.values.tolist() for series in reading.series}
        for run, reading in stdout.read_all(path).items()
    }


def epochs(losses: list[float], label: str = "Epoch") -> str:
    return "".join(f"{label} {e} | loss: {v} | val_loss: {v + 1}\n" for e, v in enumerate(losses, start=1))


@pytest.mark.parametrize(
    "banner", ["Training: net v{}b", "=== Model: {} ===", "Fold {}/3", "--- Starting run {} ---"]
)
def test_models_or_folds_under_banners_are_runs(tmp_path: Path, banner: str) -> None:
    losses = {"1": [5.0, 4.0], "2": [3.0, 2.0, 1.0], "3": [9.0]}
    text = "".join(
        f"{banner.format(name)}\nTraining samples: 504\n{epochs(values)}Training time: {name}.5s\n"
        for name, values in losses.items()
    )
    found = by_run(tmp_path, text)
    assert [name.strip("/3netvb ") or "3" for name in found] == ["1", "2", "3"]
    assert [curves["loss"] for curves in found.values()] == list(losses.values())
    assert [curves["val_loss"][0] for curves in found.values()] == [6, 4, 10]


def test_a_second_phase_with_its_own_word_for_the_epoch_is_a_run(tmp_path: Path) -> None:
    text = epochs([5.0, 4.0, 3.0, 2.0]) + "Unfreezing\n" + epochs([1.0, 0.5, 0.25], "Fine-Tune Epoch")
    found = by_run(tmp_path, text)
    assert list(found) == ["", "Fine-Tune"]
    assert found[""]["loss"] == [5, 4, 3, 2] and found["Fine-Tune"]["loss"] == [1, 0.5, 0.25]


@pytest.mark.parametrize(
    "text",
    [
        epochs([4.0, 3.0, 2.0]) + "Training on cuda\n" + epochs([3.5, 2.5, 1.5]),
        "Training on cuda\n" + epochs([4.0, 3.0, 2.0]) + "Training on cuda\n" + epochs([3.5, 2.5, 1.5]),
        "Fold 1\nEpoch 1 | loss: 2.0\nEpoch 2 | loss: 1.5\nFold 2\nEpoch 3 | loss: 1.0\nEpoch 4 | loss: 0.5\n",
        "".join(f"Train Epoch {e} | loss: {9 - e}\nTest Epoch {e} | loss: {9.5 - e}\n" for e in range(5)),
        "".join(f"Train Epoch {e} | loss: {9 - e}\n" for e in range(5))
        + "".join(f"Test Epoch {e} | loss: {9 - e}\n" for e in range(5)),
    ],
)
def test_without_two_witnesses_a_log_is_one_run(tmp_path: Path, text: str) -> None:
    assert list(by_run(tmp_path, text)) == [""]


def falling(count: int = 8) -> list[float]:
    return [3 / (i + 1) for i in range(count)]


def test_scores_beside_a_loss_are_no_losses(tmp_path: Path) -> None:
    text = "".join(
        f"Epoch: {i:03d}, Loss: {v:.4f}, Train: {90 - 9 * v:.2f}%, Val: {80 - 8 * v:.2f}%, Test: {v:.2f}%\n"
        for i, v in enumerate(falling())
    )
    assert set(curves(tmp_path, text)) == {"loss", "train_score", "val_score", "test"}


def test_an_estimators_evaluation_is_no_training(tmp_path: Path) -> None:
    text = "".join(
        f"INFO:tensorflow:loss = {v:.4f}, step = {100 * i} (1.5 sec)\n"
        + (f"INFO:tensorflow:Saving dict for global step {100 * i}: global_step = {100 * i}, loss = {v + 1:.4f}\n" if i % 2 else "")
        for i, v in enumerate(falling())
    )  # fmt: skip
    found = curves(tmp_path, text)
    assert found["loss"].steps.tolist() == [100 * i for i in range(8)] and found["loss"].values[0] == 3
    assert found["val_loss"].steps.tolist() == [100, 300, 500, 700] and found["val_loss"].values[0] == 2.5


def test_a_dict_over_several_lines(tmp_path: Path) -> None:
    text = "".join(
        f"INFO:tensorflow:Step {100 * i} per-step time 0.5s\n{{'Loss/total': {v:.4f},\n 'learning_rate': 0.01}}\n"
        for i, v in enumerate(falling())
    )
    found = curves(tmp_path, text)
    assert set(found) == {"Loss/total", "learning_rate"}
    assert found["Loss/total"].steps.tolist() == [100 * i for i in range(8)]


def test_a_number_and_a_colon_begin_a_line_of_boosting(tmp_path: Path) -> None:
    text = "".join(
        f"{10 * i}:\tlearn: {v:.4f}\ttest: {v + 1:.4f}\tbest: {v + 1:.4f} ({10 * i})\ttotal: 9ms\tremaining: 2s\n"
        for i, v in enumerate(falling())
    )
    found = curves(tmp_path, text)
    assert found["train_loss"].steps.tolist() == found["test_loss"].steps.tolist() == list(range(0, 80, 10))
    assert found["test_loss"].values[0] == 4


def test_names_behind_the_numbers_of_darknet(tmp_path: Path) -> None:
    text = "".join(
        f" {i + 1}: {v:.4f}, {v + 0.5:.4f} avg loss, 0.0010{i} rate, 2.5 seconds, 64 images, 3.5 hours left\n"
        for i, v in enumerate(falling())
    )
    found = curves(tmp_path, text)
    assert found["loss"].steps.tolist() == [1, 2, 3, 4, 5, 6, 7, 8] and found["loss"].values[0] == 3
    assert found["avg_loss"].values[0] == 3.5 and found["lr"].values[7] == 0.00107


@pytest.mark.parametrize(
    "rate",
    ["lr=[{}, 0.5], mom=[(0.9, 0.95)]", "lr(Cosine): {}, top5: 0.9", "10.1/s, 5.1/s/gpu LR: {} Scale: 14.2"],
)
def test_learning_rates_in_other_words(tmp_path: Path, rate: str) -> None:
    text = "".join(
        f"step={10 * i}, skipped=0, {rate.format(0.01 * i)} loss: {v:.4f}\n" for i, v in enumerate(falling())
    )
    assert curves(tmp_path, text)["lr"].values.tolist() == pytest.approx([0.01 * i for i in range(8)])


def test_a_line_announces_the_data_of_those_below(tmp_path: Path) -> None:
    text = "".join(
        f"Epoch {i} - Evaluation time: 3.2 - Train metrics:\n\tLoss: {v:.3f}\n"
        f"Epoch {i} - Evaluation time: 1.2 - Test metrics:\n\tLoss: {v + 1:.3f}\n"
        for i, v in enumerate(falling())
    )
    found = curves(tmp_path, text)
    assert found["train_loss"].values[0] == 3 and found["test_loss"].values[0] == 4
    assert found["train_loss"].steps.tolist() == found["test_loss"].steps.tolist() == list(range(8))


def test_a_tree_of_training_and_validation(tmp_path: Path) -> None:
    text = "".join(
        f"SUMMARY OF EPOCH {i}\n├── Train\n│   └── Loss = {v:.3f}\n└── Validation\n    └── Loss = {v + 1:.3f}\n\n"
        for i, v in enumerate(falling())
    )
    found = curves(tmp_path, text)
    assert found["train_loss"].values[0] == 3 and found["val_loss"].values[0] == 4


def test_an_announced_evaluation_ends_where_training_counts_on(tmp_path: Path) -> None:
    text = "".join(
        f" --> STEP: {50 * i}/400\n     | > loss: {v:.3f}  ({v:.3f})\n > EVALUATION \n     | > avg_loss: {v + 1:.3f}\n"
        for i, v in enumerate(falling())
    )
    found = curves(tmp_path, text)
    assert found["loss"].values[0] == 3 and found["val_avg_loss"].values[0] == 4
    assert found["loss"].steps.tolist() == found["val_avg_loss"].steps.tolist() == list(range(0, 400, 50))


def test_a_folder_of_a_printed_table_announces_nothing(tmp_path: Path) -> None:
    text = "".join(
        f"-----------\n| rollout/ | |\n| ep_rew_mean | {i} |\n| time/ | |\n| total_timesteps | {i * 64} |\n"
        f"| train/ | |\n| loss | {v:.3f} |\n-----------\n"
        for i, v in enumerate(falling())
    )
    found = curves(tmp_path, text)
    assert set(found) == {"ep_rew_mean", "loss"} and found["ep_rew_mean"].points == 8


@pytest.mark.parametrize(
    "line", ["the loss of training", "see data/train", "Start training", "mode: train", "retrain:"]
)
def test_prose_announces_no_section(line: str) -> None:
    assert section_of(line) == ""


def test_names_of_columns_with_a_blank_in_them(tmp_path: Path) -> None:
    heading = "E    #       LOSS TOK2VEC  LOSS NER  ENTS_F  SCORE \n---  ------  ------------  --------  ------  ------\n"
    rows = [
        f"  {i // 3}    {200 * i:4d}    {9 - i}.50   {90 - i}.25   {50 + i}.0    0.{50 + i}\n"
        for i in range(8)
    ]
    found = curves(tmp_path, heading + "".join(rows))
    assert found["LOSS NER"].values.tolist() == [90.25 - i for i in range(8)]
    assert found["ENTS_F"].steps.tolist() == [200 * i for i in range(8)]


def test_two_readings_of_a_heading_are_told_by_the_rows(tmp_path: Path) -> None:
    rows = "".join(f"       {i}        {9 - i}.5        1.{i}s\n" for i in range(1, 8))
    found = curves(tmp_path, "      Iter       Train Loss   Remaining Time \n" + rows)
    assert found["Train Loss"].values.tolist() == [9.5 - i for i in range(1, 8)]
    assert found["Train Loss"].steps.tolist() == list(range(1, 8))


def test_rows_that_leave_a_cell_out_are_read_by_their_columns(tmp_path: Path) -> None:
    heading = "  epoch    train_loss    valid_loss    cp     dur\n-------  ------------  ------------  ----  ------\n"
    rows = [
        f"      {i}        {9 - i}.5000        {8 - i}.2500     {' +'[i % 2]}  0.0321\n" for i in range(1, 8)
    ]
    found = curves(tmp_path, heading + "".join(rows))
    assert found["train_loss"].steps.tolist() == list(range(1, 8))
    assert found["valid_loss"].values.tolist() == [8.25 - i for i in range(1, 8)]


def test_lines_of_two_kinds_are_one_curve_in_their_order(tmp_path: Path) -> None:
    kinds = ["short of memory, ", "", "", "short of memory, ", "", "", "", "short of memory, "]
    text = "".join(
        f"{kind}step: {10 * i}, loss: {v:.3f}\n"
        for i, (kind, v) in enumerate(zip(kinds, falling(), strict=True))
    )
    found = curves(tmp_path, text)["loss"]
    assert found.steps.tolist() == list(range(0, 80, 10))
    assert np.all(np.diff(found.values) < 0)


def test_a_log_that_begins_within_an_epoch_keeps_the_headings_above_their_numbers(tmp_path: Path) -> None:
    values = falling()
    text = f"loss = {values[0]:.3f}, seen\n" + "".join(
        f"Epoch {i}/40\nloss = {v:.3f}, seen\n" for i, v in enumerate(values[1:], start=22)
    )
    found = curves(tmp_path, text)["loss"]
    assert found.steps.tolist() == [21, 22, 23, 24, 25, 26, 27, 28]
    assert found.values[0] == 3


def test_epochs_named_below_their_numbers_stay_so_where_the_last_is_unfinished(tmp_path: Path) -> None:
    values = falling()
    text = "".join(f"loss = {v:.3f}, seen\nEpoch {i} done\n" for i, v in enumerate(values[:-1], start=1))
    found = curves(tmp_path, text + f"loss = {values[-1]:.3f}, seen\n")["loss"]
    assert found.steps.tolist()[:7] == [1, 2, 3, 4, 5, 6, 7]


def test_numbers_just_above_their_counter_are_of_its_step(tmp_path: Path) -> None:
    text = "".join(
        f"entropy = {v + 1:.3f}, accuracy = 0.{i}\nloss = {v:.3f}, step = {100 * i}\nsaved, and went on\n"
        for i, v in enumerate(falling())
    )
    found = curves(tmp_path, text)
    assert found["accuracy"].steps.tolist() == found["loss"].steps.tolist() == list(range(0, 800, 100))


def test_numbers_below_their_counter_stay_with_it(tmp_path: Path) -> None:
    text = "accuracy = 0.1\n" + "".join(
        f"loss = {v:.3f}, step = {100 * i}\naccuracy = 0.{i}\n" for i, v in enumerate(falling())
    )
    found = curves(tmp_path, text)
    assert found["accuracy"].steps.tolist()[1:] == found["loss"].steps.tolist()
