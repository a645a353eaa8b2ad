"""Which files are one run, and what is said of the others."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from small_runs import events, falling, overfitting, table, trainer_state

from analyzer.model import Problem, Run
from analyzer.pipeline import read_runs


def found(*paths: Path) -> tuple[dict[str, Run], list[Problem]]:
    """Runs by name, and the problems that belong to none."""
    runs, problems = read_runs(paths)
    assert len({run.name for run in runs}) == len(runs)
    return {run.name: run for run in runs}, problems


def the_run(*paths: Path) -> Run:
    runs, problems = found(*paths)
    assert len(runs) == 1, (sorted(runs), problems)
    return next(iter(runs.values()))


def roles(run: Run) -> dict[str, str]:
    return {series.tag: series.role for series in run.series}


def names(files: Sequence[str]) -> list[str]:
    return sorted(Path(file).name for file in files)


# --- event files ----------------------------------------------------------------------------------


def test_the_event_files_of_one_folder_are_one_run(tmp_path: Path) -> None:
    events(tmp_path / "exp", steps=range(0, 20))
    events(tmp_path / "exp", steps=range(20, 40))
    run = the_run(tmp_path)
    assert run.name == "exp" and len(run.files) == 2
    assert run.series[0].steps.tolist() == list(range(40))


def test_the_folder_of_add_hparams_belongs_to_the_run_it_was_called_on(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "exp")) as writer:
        for step in range(10):
            writer.add_scalar("loss", falling(step), step)
        writer.add_hparams({"lr": 0.5, "optimizer": "sgd"}, {"hparam/accuracy": 0.5})
    assert len([p for p in (tmp_path / "exp").iterdir() if p.is_dir()]) == 1  # it did make a folder
    run = the_run(tmp_path)
    assert run.hyperparameters == {"lr": 0.5, "optimizer": "sgd"}
    assert {"loss", "hparam/accuracy"} <= {s.tag for s in run.series}


def test_the_folder_of_add_hparams_may_have_a_name(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "exp")) as writer:
        for step in range(10):
            writer.add_scalar("loss", falling(step), step)
        writer.add_hparams({"lr": 0.5}, {"hparam/accuracy": 0.5}, run_name="summary")
    run = the_run(tmp_path)
    assert (run.name, run.hyperparameters) == ("exp", {"lr": 0.5})


def test_trials_of_a_search_stay_runs(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "search")) as writer:
        writer.add_scalar("best", 0.5, 0)
        for lr in (0.1, 0.2):
            writer.add_hparams({"lr": lr}, {"hparam/accuracy": lr}, run_name=f"lr={lr}")
    runs, _ = found(tmp_path)
    assert {run.hyperparameters.get("lr") for run in runs.values()} == {None, 0.1, 0.2}


@pytest.mark.parametrize(
    ("out", "err"),
    [("slurm-7.out", "slurm-7.err"), ("stdout.log", "stderr.log"), ("job_out.txt", "job_err.txt")],
)
def test_the_two_streams_of_a_program_are_one_run(tmp_path: Path, out: str, err: str) -> None:
    text = "".join(f"epoch {e}: train loss {2 / (e + 1):.3f}, val loss {3 / (e + 1):.3f}\n" for e in range(8))
    (tmp_path / out).write_text(text)
    (tmp_path / err).write_text(text + "Traceback (most recent call last):\nRuntimeError: out of memory\n")
    run = the_run(tmp_path)
    assert [s.points for s in run.series] == [8, 8]  # what both streams tell counts once
    assert [p.kind for p in run.problems] == ["crashed"]


def test_a_bar_on_the_other_stream_is_no_second_loss(tmp_path: Path) -> None:
    text = "".join(f"epoch {e}: train loss {2 / (e + 1):.3f}, val loss {3 / (e + 1):.3f}\n" for e in range(8))
    (tmp_path / "stdout.log").write_text(text)
    bars = "".join(f"{e}: 100%|██| 9/9 [00:01<00:00, loss={2.1 / (e + 1):.3f}]\n" for e in range(8))
    (tmp_path / "stderr.log").write_text(bars)
    assert [s.role for s in the_run(tmp_path).series] == ["train_loss", "val_loss"]


def test_logs_of_two_programs_stay_two_runs(tmp_path: Path) -> None:
    for name in ("slurm-7.out", "slurm-8.out"):
        (tmp_path / name).write_text("".join(f"epoch {e}: loss {2 / (e + 1):.3f}\n" for e in range(8)))
    assert len(found(tmp_path)[0]) == 2


@pytest.mark.parametrize(("main", "folder"), [("Loss", "Loss_val"), ("Loss/epoch", "Loss_epoch_val")])
def test_the_folders_of_add_scalars_belong_to_the_writers_run(tmp_path: Path, main: str, folder: str) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "exp")) as writer:
        for step in range(10):
            writer.add_scalars(main, {"train": falling(step), "val": falling(step) + 1}, step)
            writer.add_scalar("lr", 0.1, step)
    assert (tmp_path / "exp" / folder).is_dir()
    run = the_run(tmp_path)
    assert run.name == "exp"
    assert roles(run) == {"lr": "learning_rate", f"{main}/train": "train_loss", f"{main}/val": "val_loss"}
    by_tag = {s.tag: s for s in run.series}
    assert by_tag[f"{main}/val"].values == pytest.approx(by_tag[f"{main}/train"].values + 1)


def test_add_scalars_alone_leaves_no_complaint_about_the_writers_empty_file(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "exp")) as writer:
        for step in range(10):
            writer.add_scalars("loss", {"train": falling(step), "val": falling(step)}, step)
    run = the_run(tmp_path)
    assert roles(run) == {"loss/train": "train_loss", "loss/val": "val_loss"}
    assert run.problems == () and len(run.files) == 3


def test_runs_below_a_folder_with_events_of_its_own_stay_runs(tmp_path: Path) -> None:
    events(tmp_path / "runs", tags=("loss",))
    events(tmp_path / "runs" / "loss_a", tags=("loss", "accuracy"))  # two tags: not add_scalars
    events(tmp_path / "runs" / "exp_1", tags=("loss",))  # its name does not begin with its tag
    assert set(found(tmp_path)[0]) == {"runs", "runs/loss_a", "runs/exp_1"}


def test_a_folder_named_like_one_of_add_scalars_needs_a_writer_above(tmp_path: Path) -> None:
    events(tmp_path / "loss_a", tags=("loss",))
    events(tmp_path / "loss_b", tags=("loss",))
    runs, _ = found(tmp_path)
    assert set(runs) == {"loss_a", "loss_b"}
    assert all(roles(run) == {"loss": "train_loss"} for run in runs.values())


def test_kerass_train_and_validation_folders_are_one_run(tmp_path: Path) -> None:
    events(tmp_path / "logs" / "train", tags=("epoch_loss",))
    events(tmp_path / "logs" / "validation", tags=("epoch_loss", "evaluation_loss_vs_iterations"))
    run = the_run(tmp_path)
    assert run.name == "logs"
    assert roles(run)["train/epoch_loss"] == "train_loss"
    assert roles(run)["validation/epoch_loss"] == "val_loss"
    assert roles(run)["evaluation_loss_vs_iterations"].startswith("val_loss")  # it says so itself


def test_an_estimators_eval_folder_belongs_to_the_run_around_it(tmp_path: Path) -> None:
    events(tmp_path / "model", tags=("loss",))
    events(tmp_path / "model" / "eval", tags=("loss",))
    assert roles(the_run(tmp_path)) == {"loss": "train_loss", "eval/loss": "val_loss"}


@pytest.mark.parametrize("word", ["train", "test"])
def test_a_lone_folder_named_for_a_split_is_a_run_of_that_name(tmp_path: Path, word: str) -> None:
    events(tmp_path / "runs" / "detect" / word, tags=("train/box_loss", "val/box_loss"))
    events(tmp_path / "runs" / "detect" / "exp2", tags=("train/box_loss",))
    runs, _ = found(tmp_path)
    assert set(runs) == {f"runs/detect/{word}", "runs/detect/exp2"}
    assert set(roles(runs[f"runs/detect/{word}"])) == {"train/box_loss", "val/box_loss"}


# --- tables ---------------------------------------------------------------------------------------


def test_a_folder_of_tables_is_a_run_each(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        table(tmp_path / f"{name}.csv")
    runs, _ = found(tmp_path)
    assert {name: run.files for name, run in runs.items()} == {
        f"{name}.csv": ((tmp_path / f"{name}.csv").as_posix(),) for name in "abc"
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"train_metrics": "loss", "val_metrics": "loss"}, {"train_loss", "val_loss"}),
        ({"train_log": "loss", "test_log": "loss"}, {"train_loss", "val_loss"}),
        ({"cnn_train": "loss", "cnn_val": "loss"}, {"train_loss", "val_loss"}),
        ({"cnn_train": "train_loss", "cnn_val": "val_loss"}, {"train_loss", "val_loss"}),
        ({"train": "loss", "valid": "loss"}, {"train_loss", "val_loss"}),
    ],
)
def test_the_tables_of_the_halves_of_one_run_are_one_run(
    tmp_path: Path, files: dict[str, str], expected: set[str]
) -> None:
    for name, column in files.items():
        table(tmp_path / "exp" / f"{name}.csv", {column: falling})
    run = the_run(tmp_path)
    assert run.name == "exp" and len(run.series) == 2
    assert set(roles(run).values()) == expected


def test_no_tag_says_twice_which_half_it_is_of(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        table(tmp_path / f"{name}_metrics.csv")
    table(tmp_path / "cnn" / "cnn_train.csv", {"train_loss": falling})
    table(tmp_path / "cnn" / "cnn_val.csv", {"val_loss": falling})
    events(tmp_path / "keras" / "train", tags=("loss",))
    table(tmp_path / "keras" / "validation" / "val_metrics.csv")
    runs, _ = found(tmp_path)
    tags = [series.tag for run in runs.values() for series in run.series]
    assert sorted(tags) == [
        "loss", "test/loss", "train/loss", "train_loss", "val/loss", "val/loss", "val_loss"
    ]  # fmt: skip


def test_pairs_of_halves_in_one_folder_are_a_run_a_pair(tmp_path: Path) -> None:
    for name in ("small_train", "small_val", "big_train", "big_val"):
        table(tmp_path / f"{name}.csv")
    runs, _ = found(tmp_path)
    assert sorted(names(run.files) for run in runs.values()) == [
        ["big_train.csv", "big_val.csv"], ["small_train.csv", "small_val.csv"]
    ]  # fmt: skip
    assert all(set(roles(run).values()) == {"train_loss", "val_loss"} for run in runs.values())


def test_a_table_beside_event_files_tells_the_same_run(tmp_path: Path) -> None:
    events(tmp_path / "exp", tags=("train/box_loss",))
    table(tmp_path / "exp" / "results.csv", {"train/box_loss": falling, "val/box_loss": falling})
    run = the_run(tmp_path)
    assert run.name == "exp" and len(run.files) == 2 and len(run.series) == 3


def test_lightnings_version_folder_is_a_run_with_settings_and_checkpoint(tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "lightning_logs" / "version_0"
    table(folder / "metrics.csv", {"train_loss": falling, "val_loss": falling})
    (folder / "hparams.yaml").write_text("lr: 1e-3\nlayers: 2\n")
    (folder / "checkpoints").mkdir()
    state = {"state_dict": {"w": torch.zeros(3)}, "epoch": 9, "global_step": 90}
    torch.save(state, folder / "checkpoints" / "epoch=9-step=90.ckpt")
    run = the_run(tmp_path)
    assert run.name == "lightning_logs/version_0"
    assert run.hyperparameters == {"lr": 0.001, "layers": 2}
    assert [c.step for c in run.checkpoints] == [90]
    assert the_run(folder).name == "version_0"


# --- the Hugging Face Trainer ---------------------------------------------------------------------


def hugging_face(out: Path) -> Path:
    import torch

    for step in (500, 1000):
        folder = out / f"checkpoint-{step}"
        trainer_state(folder / "trainer_state.json", step)
        torch.save({"w": torch.full((4, 4), float(step))}, folder / "pytorch_model.bin")
        state = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
        torch.save(state, folder / "optimizer.pt")
        (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 4}))
        for name in ("generation_config.json", "tokenizer.json", "added_tokens.json"):
            (folder / name).write_text(json.dumps({"version": "1.0", "model": {"vocab": {"a": 1}}}))
        (folder / "vocab.txt").write_text("[PAD]\n[UNK]\nthe\n")
        (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    trainer_state(out / "trainer_state.json", 1000)
    (out / "README.md").write_text("# A model\n")
    (out / "all_results.json").write_text(json.dumps({"eval_loss": 0.1, "train_loss": 0.2}))
    return out


def test_the_trainers_output_folder_is_one_run(tmp_path: Path) -> None:
    out = hugging_face(tmp_path / "out")
    run = the_run(out)
    assert run.name == "out" and run.path == out.as_posix()
    by_role = {series.role: series for series in run.series}
    assert by_role["train_loss"].steps.tolist() == list(range(10, 1001, 10))
    assert by_role["train_loss"].superseded == 0 and by_role["train_loss"].rewinds == ()
    assert run.problems == ()  # the copies in the checkpoints are no restarts
    assert (
        names([c.path for c in run.checkpoints]) == ["pytorch_model.bin"] * 2
    )  # what lies beside them is read with them
    assert run.hyperparameters["model_type"] == "bert"


def test_files_about_the_tokenizer_are_no_problem(tmp_path: Path) -> None:
    _, problems = found(hugging_face(tmp_path / "out"))
    assert [p.kind for p in problems] == ["passed-over"]
    assert "11 files" in problems[0].message


def test_the_trainers_event_files_tell_the_run_of_its_state(tmp_path: Path) -> None:
    out = tmp_path / "out"
    trainer_state(out / "checkpoint-1000" / "trainer_state.json", 1000)
    events(out / "runs" / "Jan01_12-00-00_host", tags=("train/loss", "eval/loss"))
    events(out / "runs" / "Jan01_12-00-00_host" / "1700000000.25", tags=("hp_metric",))
    run = the_run(tmp_path)
    assert run.name == "out"
    assert {"loss", "eval_loss", "train/loss", "eval/loss", "hp_metric"} <= set(roles(run))


def test_event_files_directly_in_runs_tell_the_run_of_the_state_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    trainer_state(out / "trainer_state.json", 1000)
    events(out / "runs", tags=("train/loss", "eval/loss"))
    run = the_run(tmp_path)
    assert run.name == "out"
    assert {"loss", "eval_loss", "train/loss", "eval/loss"} <= set(roles(run))


def test_event_files_in_runs_without_a_trainers_state_are_runs(tmp_path: Path) -> None:
    events(tmp_path / "runs" / "Jan01_12-00-00_host")
    events(tmp_path / "runs" / "Jan02_12-00-00_host")
    table(tmp_path / "metrics.csv")
    runs, _ = found(tmp_path)
    assert len(runs) == 3


def test_checkpoint_folders_without_any_log_are_one_run(tmp_path: Path) -> None:
    import torch

    for step in (500, 1000):
        (tmp_path / "out" / f"checkpoint-{step}").mkdir(parents=True)
        torch.save({"w": torch.zeros(2)}, tmp_path / "out" / f"checkpoint-{step}" / "pytorch_model.bin")
    torch.save({"w": torch.zeros(2)}, tmp_path / "out" / "pytorch_model.bin")
    run = the_run(tmp_path)
    assert run.name == "out" and len(run.checkpoints) == 3


def test_checkpoints_of_two_kinds_in_one_folder_are_two_runs_of_different_names(tmp_path: Path) -> None:
    import torch

    for kind in ("actor", "critic"):
        for step in (1, 2):
            torch.save({"w": torch.zeros(2)}, tmp_path / f"{kind}_{step}.pt")
    runs, _ = found(tmp_path)  # asserts that the names differ
    assert sorted(len(run.checkpoints) for run in runs.values()) == [2, 2]


# --- trackers -------------------------------------------------------------------------------------


def test_an_mlflow_store_is_a_run_for_each_of_its_folders(tmp_path: Path) -> None:
    for name, rate in (("a" * 32, "0.1"), ("b" * 32, "0.2")):
        folder = tmp_path / "mlruns" / "0" / name
        for part in ("metrics", "params", "tags"):
            (folder / part).mkdir(parents=True)
        (folder / "meta.yaml").write_text(f"run_id: {name}\nartifact_uri: x\nstart_time: 1\nstatus: 3\n")
        rows = [f"{1700000000000 + i} {falling(i):.4f} {i}" for i in range(20)]
        (folder / "metrics" / "loss").write_text("\n".join(rows) + "\n")
        (folder / "params" / "lr").write_text(rate)
    runs, _ = found(tmp_path)
    assert [run.hyperparameters["lr"] for _, run in sorted(runs.items())] == [0.1, 0.2]
    assert all(roles(run) == {"loss": "train_loss"} for run in runs.values())


def wandb(folder: Path) -> Path:
    files = folder / "files"
    files.mkdir(parents=True)
    (files / "config.yaml").write_text("lr:\n  desc: null\n  value: 0.01\n_wandb:\n  value: {}\n")
    (files / "wandb-summary.json").write_text(json.dumps({"loss": 0.1, "_step": 19}))
    (files / "requirements.txt").write_text("torch==2.0\nnumpy==1.26\n")
    lines = [f"epoch {i} loss {falling(i):.4f} val_loss {falling(i) + 0.1:.4f}\n" for i in range(20)]
    (files / "output.log").write_text("".join(lines))
    (folder / "logs").mkdir()
    (folder / "logs" / "debug.log").write_text("2024-01-01 INFO MainThread:1 [wandb_init.py:setup():1] x\n")
    return folder


def test_a_wandb_folder_is_a_run_with_its_settings_and_no_complaints(tmp_path: Path) -> None:
    wandb(tmp_path / "wandb" / "run-20240101_000000-abcd")
    run = the_run(tmp_path)
    assert run.name == "wandb/run-20240101_000000-abcd"
    assert run.hyperparameters == {"lr": 0.01}
    assert set(roles(run).values()) == {"train_loss", "val_loss"}
    assert run.problems == ()  # the summary restates the last values
    assert [p.kind for p in found(tmp_path)[1]] == ["passed-over"]


def test_a_summary_with_nothing_beside_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "wandb-summary.json"
    path.write_text(json.dumps({"loss": 0.1}))
    runs, problems = found(path)
    assert not runs and [(p.path, p.kind) for p in problems] == [(str(path), "no-series")]


# --- configurations -------------------------------------------------------------------------------


def test_a_configuration_above_the_only_run_is_that_runs(tmp_path: Path) -> None:
    table(tmp_path / "logs" / "exp" / "metrics.csv")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("lr: 0.1\n")
    assert the_run(tmp_path).hyperparameters == {"lr": 0.1}


def test_configurations_that_may_be_of_any_run_are_given_to_none_and_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        table(tmp_path / "logs" / name / "metrics.csv")
    (tmp_path / "configs").mkdir()
    for name in ("small_config", "big_config"):
        (tmp_path / "configs" / f"{name}.yaml").write_text("lr: 0.1\n")
    runs, problems = found(tmp_path)
    assert all(not run.hyperparameters for run in runs.values())
    assert [(p.kind, p.path) for p in problems] == [
        ("no-logs", str(tmp_path / "configs" / f"{name}.yaml")) for name in ("big_config", "small_config")
    ]


# --- where files lie ------------------------------------------------------------------------------


def test_runs_within_runs_are_runs_of_their_own(tmp_path: Path) -> None:
    table(tmp_path / "exp" / "metrics.csv")
    table(tmp_path / "exp" / "finetune" / "metrics.csv")
    assert set(found(tmp_path)[0]) == {"exp", "exp/finetune"}


def test_hidden_folders_and_environments_are_not_entered(tmp_path: Path) -> None:
    for folder in (".git", ".cache", "node_modules", "venv", "__pycache__"):
        table(tmp_path / folder / "metrics.csv")
    table(tmp_path / "exp" / "metrics.csv")
    assert set(found(tmp_path)[0]) == {"exp"}


def test_loops_of_links_end_and_linked_folders_are_not_entered(tmp_path: Path) -> None:
    table(tmp_path / "exp" / "metrics.csv")
    (tmp_path / "exp" / "loop").symlink_to(tmp_path)
    (tmp_path / "latest").symlink_to(tmp_path / "exp")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert len(the_run(tmp_path).files) == 1


def test_a_linked_folder_that_is_given_is_entered(tmp_path: Path) -> None:
    table(tmp_path / "exp" / "metrics.csv")
    (tmp_path / "latest").symlink_to(tmp_path / "exp")
    assert len(the_run(tmp_path / "latest").series) == 1


def test_a_link_to_a_log_that_is_gone_is_told(tmp_path: Path) -> None:
    table(tmp_path / "exp" / "metrics.csv")
    (tmp_path / "exp" / "old.csv").symlink_to(tmp_path / "gone.csv")
    _, problems = found(tmp_path)
    assert [(Path(p.path).name, p.kind) for p in problems] == [("old.csv", "missing")]


def test_paths_given_twice_by_whatever_name_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path / "logs" / "exp" / "metrics.csv")
    (tmp_path / "link").symlink_to(tmp_path / "logs")
    monkeypatch.chdir(tmp_path)
    parent, child = tmp_path / "logs", tmp_path / "logs" / "exp"
    assert len(the_run(parent, parent).files) == 1
    assert len(the_run(parent, child).files) == 1
    assert len(the_run(child, parent).files) == 1
    assert len(the_run(parent, child / "metrics.csv").files) == 1
    assert len(the_run(Path("logs"), parent, Path("logs/../logs"), Path("link")).files) == 1


@pytest.mark.parametrize(
    "name", ["line\nbreak", "\x1b[31mred", "日本語 🔥", "[bold]x[/bold]", "a'b\"c", "-q"]
)
def test_any_name_is_a_name(tmp_path: Path, name: str) -> None:
    table(tmp_path / name / "metrics.csv")
    assert the_run(tmp_path).name == name


def test_names_that_are_no_unicode_are_names(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    try:
        table(Path(folder) / "metrics.csv")
    except OSError:
        pytest.skip("the file system takes Unicode names only")
    assert the_run(tmp_path).name == "caf\udce9"


# --- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nothing-here", "x" * 300, "nul\0byte"])
def test_a_path_that_leads_nowhere_is_told(tmp_path: Path, name: str) -> None:
    runs, problems = found(tmp_path / name)
    assert not runs and len(problems) == 1
    assert problems[0].path == str(tmp_path / name) and problems[0].kind in ("missing", "unreadable")


def test_what_is_neither_file_nor_folder_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    runs, problems = found(tmp_path / "pipe.csv")
    assert not runs and [p.message for p in problems] == ["neither a file nor a folder"]
    table(tmp_path / "metrics.csv")
    assert len(the_run(tmp_path).files) == 1  # nor does a pipe in a folder block the reading


def test_a_file_that_may_not_be_opened_is_told_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path / "good" / "metrics.csv")
    closed = table(tmp_path / "closed" / "metrics.csv")
    opened = Path.open

    def refuse(self: Path, *args: object, **kwargs: object) -> object:
        if self == closed:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", refuse)
    runs, problems = found(tmp_path)
    assert set(runs) == {"good"}
    assert [(p.path, p.kind, p.message) for p in problems] == [
        (str(closed), "unreadable", "Permission denied")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_listed_is_told(tmp_path: Path) -> None:
    table(tmp_path / "good" / "metrics.csv")
    table(tmp_path / "closed" / "metrics.csv")
    (tmp_path / "closed").chmod(0)
    try:
        runs, problems = found(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert set(runs) == {"good"} and [p.kind for p in problems] == ["unreadable"]


def test_files_about_something_else_are_one_line(tmp_path: Path) -> None:
    overfitting(tmp_path / "exp" / "metrics.csv")
    others = {
        "README.md": "# x", "requirements.txt": "torch", "LICENSE.txt": "free\n", "train.py": "pass",
        "package.json": '{"name": "x"}', "notes.txt": "think about it\nmore of it\n", "data.yaml": "- a\n- b\n",
        "labels.json": '["cat", "dog"]', "curve.png": "png",
    }  # fmt: skip
    for name, text in others.items():
        (tmp_path / "exp" / name).write_text(text)
    runs, problems = found(tmp_path)
    assert runs["exp"].problems == ()
    assert [p.kind for p in problems] == ["passed-over"]
    assert problems[0].path == str(tmp_path / "exp")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("metrics.csv", b"", "empty"),
        ("train.log", b"", "empty"),
        ("train_log.txt", b"", "empty"),
        ("history.json", b"", "empty"),
        ("history.json", b"\x00\x01garbage", "unsupported"),
        ("metrics.csv", bytes(range(256)) * 9, "unreadable"),
        ("model.pt", b"hello\n" * 100, "unsupported"),
        ("events.out.tfevents.1.host", b"no events at all", "unreadable"),
        ("train.log", b"nothing that counts\n" * 20, "no-series"),
        ("training_output.txt", b"nothing that counts\n" * 20, "no-series"),
        ("weights.bin", b"\x07" * 50, "unsupported"),
    ],
)
def test_a_file_that_ought_to_have_been_a_log_is_named(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    table(tmp_path / "good" / "metrics.csv")
    path = tmp_path / "bad" / name
    path.parent.mkdir()
    path.write_bytes(content)
    runs, problems = found(tmp_path)
    assert set(runs) == {"good"}
    assert [(p.path, p.kind) for p in problems] == [(str(path), kind)]


def test_a_file_that_is_given_by_name_is_always_answered_for(tmp_path: Path) -> None:
    for name, text in {"README.md": "# x", "package.json": '{"name": "x"}', "vocab.txt": "a\nb\n"}.items():
        path = tmp_path / name
        path.write_text(text)
        _, problems = found(path)
        assert [p.path for p in problems] == [str(path)], name
        assert problems[0].kind in ("unsupported", "no-series"), name
