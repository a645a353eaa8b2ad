"""Configuration files: flat, typed, inert; and canonical names for the many spellings."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from analyzer.errors import IngestError
from analyzer.hyperparameters import canonical
from analyzer.ingest import hyperparameters
from analyzer.model import Scalar


def read(tmp_path: Path, text: str, name: str = "hparams.yaml") -> dict[str, Scalar]:
    path = tmp_path / name
    path.write_text(text)
    return dict(hyperparameters.read(path).hyperparameters)


def claimed(name: str, text: str) -> bool:
    return hyperparameters.claims(Path(name), text.encode()[:4096])


def test_nested_names_and_types(tmp_path: Path) -> None:
    text = """
model: {hidden: 128, act: relu, dropout: null}
optimizer:
  lr: 1e-3
  betas: [0.9, 0.999]
  eps: "1e-8"
amp: true
tag: "0006"
date: 2024-13-45
long: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
callbacks:
- {class_path: EarlyStopping, init_args: {patience: 5}}
"""
    assert read(tmp_path, text) == {
        "model.hidden": 128,
        "model.act": "relu",
        "model.dropout": None,
        "optimizer.lr": 0.001,
        "optimizer.betas": "[0.9, 0.999]",
        "optimizer.eps": 1e-8,
        "amp": True,
        "tag": "0006",
        "date": "2024-13-45",
        "callbacks.0.class_path": "EarlyStopping",
        "callbacks.0.init_args.patience": 5,
    }


def test_json_toml_and_wandb(tmp_path: Path) -> None:
    assert read(tmp_path, '{"a": {"b": 1.5}, "c": "x"}', "config.json") == {"a.b": 1.5, "c": "x"}
    assert read(tmp_path, "lr = 0.1\n[train]\nepochs = 3\n", "config.toml") == {"lr": 0.1, "train.epochs": 3}
    text = "wandb_version: 1\n_wandb: {desc: null, value: {t: 1}}\nlr: {desc: null, value: 1e-5}\n"
    assert read(tmp_path, text, "config.yaml") == {"lr": 1e-5}


def test_python_objects_become_plain_data(tmp_path: Path) -> None:
    """What PyYAML's own dumper writes for objects, as Lightning's save_hparams does."""
    import collections

    saved = {
        "lr": np.float64(0.125),
        "layers": (64, 32),
        "args": collections.OrderedDict(batch_size=8),
        "path": Path("data/train"),
        "fn": json.dumps,
        "space": SimpleNamespace(depth=3),
    }
    found = read(tmp_path, yaml.dump(saved))
    assert found["lr"] == 0.125
    assert found["layers"] == "[64, 32]"
    assert found["args.batch_size"] == 8
    assert found["path"] == "data/train"
    assert found["fn"] == "json.dumps"
    assert found["space.depth"] == 3


def test_objects_with_insides_give_their_name(tmp_path: Path) -> None:
    text = """
criterion: !!python/object:torch.nn.modules.loss.BCEWithLogitsLoss
  _backward_hooks: !!python/object/apply:collections.OrderedDict
  - []
  training: true
optimizer: !!python/name:torch.optim.adam.Adam ''
lr: 0.01
"""
    assert read(tmp_path, text) == {
        "criterion": "torch.nn.modules.loss.BCEWithLogitsLoss",
        "optimizer": "torch.optim.adam.Adam",
        "lr": 0.01,
    }


def test_nothing_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    text = (
        f"a: !!python/object/apply:os.system ['touch {witness}']\n"
        f"b: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{witness}']]\n"
        f"c: !!python/object/new:subprocess.Popen [[touch, '{witness}']]\n"
        f"lr: 0.5\n"
    )
    assert read(tmp_path, text)["lr"] == 0.5
    assert not witness.exists()


def bomb_of_aliases() -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}, r: *a{i - 1}}}" for i in range(1, 40)]
    return "\n".join(lines)


def bomb_of_merges() -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}, *a{i - 1}]}}" for i in range(1, 40)]
    return "\n".join(lines)


def test_expansion_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(bomb_of_aliases())
    reading = hyperparameters.read(path)
    assert len(reading.hyperparameters) <= hyperparameters.MAX_LEAVES
    assert [p.kind for p in reading.problems] == ["too-large"]
    path.write_text(bomb_of_merges())
    with pytest.raises(IngestError, match="without end"):
        hyperparameters.read(path)


def test_data_that_contains_itself(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &a\n  b: *a\n  lr: 0.5\n")["a.lr"] == 0.5


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("config.yaml", "[" * 100_000, "unsafe"),
        ("config.json", '{"a":' * 100_000, "unsafe"),
        ("config.yaml", "a: [1, 2\nb: }\n", "unreadable"),
        ("config.json", '{"a": 1,', "unreadable"),
        ("config.toml", "a = = 1\n", "unreadable"),
        ("config.yaml", "? [a, {b: 1}]\n: 2\n", "unreadable"),
        ("config.yaml", "- 1\n- 2\n", "unsupported"),
        ("config.json", "[1, 2]", "unsupported"),
        ("config.yaml", "", "empty"),
        ("config.yaml", "a: 1\n" + "#" * (1 << 20), "too-large"),
        ("config.yaml", "a: " + "9" * 10_000 + "\n", "unreadable"),
        ("config.json", "version https://git-lfs.github.com/spec/v1\n", "pointer"),
    ],
)
def test_bad_files_say_why(tmp_path: Path, name: str, text: str, kind: str) -> None:
    with pytest.raises(IngestError) as caught:
        read(tmp_path, text, name)
    assert caught.value.kind == kind and name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("hparams.yaml", "{}\n", True),
        ("args.yaml", "task: detect\nmode: train\n", True),
        ("config.json", '{\n  "architectures": [\n', True),
        ("exp_12.yaml", "lr: 0.1\n", True),
        ("exp_12.json", '{"lr": 0.1}', True),
        ("run.toml", "lr = 0.1\n", True),
        ("config.yaml", "- a\n- b\n", False),
        ("all_results.json", '{"eval_loss": 0.1}', False),
        ("metrics.json", '{"loss": 0.1}', False),
        ("trainer_state.json", '{"best_metric": 0.1}', False),
        ("training_history.json", '{"loss": [0.1]}', False),
        ("tokenizer_config.json", '{"pad": "x"}', False),
        ("vocab.json", '{"a": 1}', False),
        ("data.json", "[1, 2]", False),
        ("notes.txt", "lr: 0.1\n", False),
        ("curve.json", '{"loss": [0.5, 0.4]}', False),
    ],
)
def test_claims(name: str, text: str, expected: bool) -> None:
    assert claimed(name, text) is expected


def test_run_root_is_above_the_tools_own_folders() -> None:
    roots = {
        "run/.hydra/config.yaml": "run",
        "run/checkpoint-500/config.json": "run",
        "wandb/run-1-x/files/config.yaml": "wandb/run-1-x",
        "version_0/hparams.yaml": "version_0",
    }
    assert {p: str(hyperparameters.run_root(Path(p))) for p in roots} == roots


def test_result_is_strict_data(tmp_path: Path) -> None:
    found = read(tmp_path, "a: .nan\nb: 2024-01-01\nc: !foo bar\nd: {1: x}\n")
    assert json.loads(json.dumps(found, allow_nan=True)).keys() == {"a", "b", "c", "d.1"}
    assert found["b"] == "2024-01-01" and found["c"] == "bar"


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"lr": 0.1}, "learning_rate", 0.1),
        ({"lr0": 0.01}, "learning_rate", 0.01),
        ({"optimizer.lr": 0.02}, "learning_rate", 0.02),
        ({"Trainer/learningRate": 0.03}, "learning_rate", 0.03),
        ({"peak_lr": "3e-4"}, "learning_rate", 3e-4),
        ({"wd": 0.05}, "weight_decay", 0.05),
        ({"per_device_train_batch_size": 8, "per_device_eval_batch_size": 64}, "batch_size", 8),
        ({"data.val.batch_size": 64, "data.train.batch_size": 16}, "batch_size", 16),
        ({"hidden_dropout_prob": 0.1, "classifier_dropout": 0.3, "drop_path_rate": 0.5}, "dropout", 0.3),
        ({"resid_pdrop": 0.2}, "dropout", 0.2),
        ({"num_train_epochs": 3.0}, "epochs", 3.0),
        ({"max_steps": 500}, "max_steps", 500),
        ({"max_grad_norm": 1.0}, "gradient_clip", 1.0),
        ({"trainer.gradient_clip_val": 0.5}, "gradient_clip", 0.5),
        ({"warmup_steps": 0}, "warmup_steps", 0),
        ({"lr_scheduler_type": "cosine"}, "scheduler", "cosine"),
        ({"optimizer._target_": "torch.optim.AdamW"}, "optimizer", "AdamW"),
        ({"optimizer.class_path": "torch.optim.sgd.SGD", "optimizer.init_args.lr": 1}, "optimizer", "SGD"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing", 0.1),
        ({"bf16": True, "fp16": False}, "precision", "bf16"),
        ({"fp16": False, "bf16": False}, "precision", "fp32"),
        ({"precision": "16-mixed"}, "precision", "fp16"),
        ({"trainer.precision": 32}, "precision", "fp32"),
        ({"amp": True}, "precision", "amp"),
        ({"early_stopping.patience": 7, "scheduler.patience": 2}, "patience", 7),
        ({"random_seed": 3}, "seed", 3),
        ({"num_labels": 4}, "num_classes", 4),
        ({"gradient_accumulation_steps": 2}, "accumulate_grad_batches", 2),
        ({"model.name": "resnet18"}, "model", "resnet18"),
        ({"model": "yolov8n.pt"}, "model", "yolov8n.pt"),
        ({"dataset": "cifar10"}, "dataset", "cifar10"),
    ],
)
def test_canonical_spellings(given: dict[str, Scalar], name: str, value: Scalar) -> None:
    assert canonical(given)[name] == value


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"max_steps": -1}, "max_steps"),
        ({"lr": "auto"}, "learning_rate"),
        ({"lr": True}, "learning_rate"),
        ({"lr": None}, "learning_rate"),
        ({"lr": float("nan")}, "learning_rate"),
        ({"lr_decay": 0.5, "lrf": 0.01}, "learning_rate"),
        ({"eval_batch_size": 64}, "batch_size"),
        ({"scheduler.patience": 2}, "patience"),
        ({"n_epochs": 10, "clip_range": 0.2}, "epochs"),
        ({"gradient_clip_val": 0.0}, "gradient_clip"),
        ({"drop_last": 1, "dropout_layers": 4}, "dropout"),
        ({"model": None}, "model"),
    ],
)
def test_what_is_unset_or_something_else_stays_out(given: dict[str, Scalar], name: str) -> None:
    assert name not in canonical(given)


def test_the_trusted_spelling_wins_whatever_the_order() -> None:
    given: dict[str, Scalar] = {"a.lr": 1.0, "learning_rate": 2.0, "z.learning_rate": 3.0, "base_lr": 4.0}
    assert canonical(given) == canonical(dict(reversed(given.items()))) == {"learning_rate": 2.0}
    assert canonical({"b.lr": 2.0, "a.lr": 1.0}) == {"learning_rate": 1.0}


def test_a_table_of_settings_logged_as_text() -> None:
    text = "|param|value|\n|-|-|\n|learning_rate|0.00025|\n|num_envs|8|\n|anneal_lr|True|\n|env_id|a-b:c|"
    found = hyperparameters.settings_in_text("hyperparameters/text_summary", text)
    assert found == {"learning_rate": 0.00025, "num_envs": 8, "anneal_lr": True, "env_id": "a-b:c"}


@pytest.mark.parametrize("tag", ["note/text_summary", "examples", "train/loss"])
def test_other_texts_are_no_settings(tag: str) -> None:
    assert hyperparameters.settings_in_text(tag, '{"lr": 1}') == {}


@pytest.mark.parametrize("text", ["", "[1]", "[" * 10_000, '{"a": ' * 10_000, "|", "plain words", "{'lr': 1"])
def test_texts_that_only_seem_to_be_settings_do_no_harm(text: str) -> None:
    assert hyperparameters.settings_in_text("args/text_summary", text) == {}
