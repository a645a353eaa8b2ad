"""Small logs by the real writers, for the tests: what each wrote, beside what it was given to write.

    python benchmarks/make_format_samples.py [NAME ...]    # those whose packages are installed

Every maker trains or counts something tiny with one library and returns, for each file worth reading, the
values that went in, collected from the library's own callbacks and not from its files. They go to
``tests/formats/NAME/`` with the package's version in ``truth.json``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

TARGET = Path(__file__).parents[1] / "tests" / "formats"
Curve = dict[str, Sequence[float]]
Truth = dict[str, dict[str, Curve]]  # file -> tag -> steps (where they matter) and values
MAKERS: dict[str, tuple[str, str, Callable[[Path], Truth]]] = {}


def maker(writer: str, package: str) -> Callable[[Callable[[Path], Truth]], Callable[[Path], Truth]]:
    def register(make: Callable[[Path], Truth]) -> Callable[[Path], Truth]:
        MAKERS[make.__name__] = (writer, package, make)
        return make

    return register


def curve(values: Sequence[float], steps: Sequence[float] | None = None) -> Curve:
    found: Curve = {"values": [float(v) for v in values]}
    return found if steps is None else {"steps": [float(s) for s in steps], **found}


def rounded(values: Sequence[float], digits: int) -> list[float]:
    return [float(f"{v:.{digits}f}") for v in values]


def data(n: int = 120, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return x, (x @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.3 * rng.normal(size=n)).astype(np.float32)


def descent(epochs: int = 12) -> Iterator[dict[str, float]]:
    """Linear regression by gradient descent: the losses of every epoch."""
    (x, y), (xv, yv) = data(), data(60, 1)
    w = np.zeros(4)
    for epoch in range(epochs):
        gradient = 2 * x.T @ (x @ w - y) / len(y)
        w -= 0.1 * gradient
        yield {
            "epoch": epoch,
            "train_loss": float(np.mean((x @ w - y) ** 2)),
            "val_loss": float(np.mean((xv @ w - yv) ** 2)),
            "grad_norm": float(np.linalg.norm(gradient)),
        }


@contextlib.contextmanager
def printed(path: Path) -> Iterator[None]:
    """What a library prints goes to a file, and not to the terminal."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()):
        yield
    path.write_text(text.getvalue(), newline="")


# --- gradient boosting -------------------------------------------------------------------------


@maker("CatBoost", "catboost")
def catboost(folder: Path) -> Truth:
    from catboost import CatBoostClassifier

    (x, y), (xv, yv) = data(), data(60, 1)
    model = CatBoostClassifier(
        iterations=15, depth=2, eval_metric="AUC", custom_metric=["Logloss"], train_dir=str(folder / "run"),
        thread_count=1, metric_period=1, random_seed=0,
    )  # fmt: skip
    with printed(folder / "stdout.log"):
        model.fit(x, y > 0, eval_set=(xv, yv > 0))
    learn, test = (model.get_evals_result()[k] for k in ("learn", "validation"))
    for path in (folder / "run").iterdir():
        if path.name in ("catboost_training.json", "time_left.tsv"):
            path.unlink()
    truth: Truth = {
        "run/learn_error.tsv": {"Logloss": curve(learn["Logloss"])},
        "run/test_error.tsv": {"AUC": curve(test["AUC"]), "Logloss": curve(test["Logloss"])},
    }
    for part, values in (("learn", learn["Logloss"]), ("test", test["Logloss"])):
        (events,) = (folder / "run" / part).iterdir()
        renamed = events.with_name("events.out.tfevents")
        events.rename(renamed)
        truth[f"run/{part}/{renamed.name}"] = {"Logloss": curve(np.float32(values).tolist(), range(15))}
    return truth


@maker("XGBoost", "xgboost")
def xgboost(folder: Path) -> Truth:
    import xgboost as xgb

    (x, y), (xv, yv) = data(), data(60, 1)
    result: dict[str, Any] = {}
    sets = [(xgb.DMatrix(x, y), "train"), (xgb.DMatrix(xv, yv), "eval")]
    with printed(folder / "stdout.log"):
        xgb.train({"max_depth": 2, "nthread": 1}, sets[0][0], 15, evals=sets, evals_result=result)
    return {
        "stdout.log": {
            "train-rmse": curve(rounded(result["train"]["rmse"], 5), range(15)),
            "eval-rmse": curve(rounded(result["eval"]["rmse"], 5), range(15)),
        }
    }


@maker("LightGBM", "lightgbm")
def lightgbm(folder: Path) -> Truth:
    import lightgbm as lgb

    (x, y), (xv, yv) = data(), data(60, 1)
    train = lgb.Dataset(x, y > 0)
    result: dict[str, Any] = {}
    with printed(folder / "stdout.log"):
        lgb.train(
            {"objective": "binary", "metric": ["binary_logloss", "auc"], "num_threads": 1, "verbose": 1},
            train, 15, valid_sets=[train, lgb.Dataset(xv, yv > 0, reference=train)],
            callbacks=[lgb.log_evaluation(1), lgb.record_evaluation(result)],
        )  # fmt: skip
    shown = {
        f"{'train' if name == 'training' else name}_{metric}": curve(
            [float(f"{v:g}") for v in values], range(1, 16)
        )
        for name, metrics in result.items()
        for metric, values in metrics.items()
    }
    return {"stdout.log": shown}


# --- reinforcement learning --------------------------------------------------------------------


@maker("Stable-Baselines3", "stable-baselines3")
def stable_baselines3(folder: Path) -> Truth:
    import gymnasium
    from stable_baselines3 import PPO
    from stable_baselines3.common.logger import KVWriter, configure
    from stable_baselines3.common.monitor import Monitor

    rows: list[tuple[int, dict[str, Any]]] = []

    class Recorder(KVWriter):
        def write(self, key_values: Any, key_excluded: Any, step: int = 0) -> None:
            rows.append((step, dict(key_values)))

        def close(self) -> None:
            pass

    environment = Monitor(gymnasium.make("CartPole-v1"), str(folder / "0"))
    model = PPO("MlpPolicy", environment, n_steps=64, batch_size=32, n_epochs=2, seed=0)
    logger = configure(str(folder), ["csv", "json", "log"])
    logger.output_formats.append(Recorder())
    model.set_logger(logger)
    model.learn(64 * 12)
    logger.close()
    environment.close()
    text = (folder / "log.txt").read_text()
    (folder / "log.txt").unlink()
    (folder / "stdout.log").write_text(text.replace(str(folder), "logs"))
    steps = [row["time/total_timesteps"] for _, row in rows]
    tags = ("rollout/ep_rew_mean", "train/loss", "train/approx_kl", "train/learning_rate")
    seen = {tag: [(s, r[tag]) for s, (_, r) in zip(steps, rows, strict=True) if tag in r] for tag in tags}
    curves = {tag: curve([v for _, v in points], [s for s, _ in points]) for tag, points in seen.items()}
    monitor = {
        "r": curve(environment.get_episode_rewards(), range(len(environment.get_episode_rewards()))),
        "l": curve(environment.get_episode_lengths()),
    }
    printed_tags = {"ep_rew_mean": curve([float(f"{v:.3g}") for _, v in seen["rollout/ep_rew_mean"]])}
    return {
        "progress.csv": curves,
        "progress.json": curves,
        "0.monitor.csv": monitor,
        "stdout.log": printed_tags,
    }


# --- experiment trackers -----------------------------------------------------------------------


@maker("DVCLive", "dvclive")
def dvclive(folder: Path) -> Truth:
    os.environ["DVCLIVE_TEST"] = "1"  # no report, no telemetry
    from dvclive import Live

    rows = list(descent())
    with Live(str(folder / "dvclive"), save_dvc_exp=False, report=None) as live:
        for row in rows:
            live.log_metric("train/loss", row["train_loss"])
            live.log_metric("val/loss", row["val_loss"])
            live.next_step()
    return {
        "dvclive/plots/metrics/train/loss.tsv": {
            "train/loss": curve([r["train_loss"] for r in rows], range(12))
        },
        "dvclive/plots/metrics/val/loss.tsv": {"val/loss": curve([r["val_loss"] for r in rows], range(12))},
    }


@maker("Sacred", "sacred")
def sacred(folder: Path) -> Truth:
    from sacred import Experiment
    from sacred.observers import FileStorageObserver

    experiment = Experiment("tiny", save_git_info=False)
    experiment.observers.append(FileStorageObserver(str(folder)))
    experiment.captured_out_filter = lambda text: text
    rows = list(descent())

    @experiment.config
    def settings() -> None:
        learning_rate = 0.1  # noqa: F841

    @experiment.main
    def train(_run: Any) -> float:
        for row in rows:
            _run.log_scalar("train.loss", row["train_loss"], row["epoch"])
            _run.log_scalar("val.loss", row["val_loss"], row["epoch"])
        return rows[-1]["val_loss"]

    experiment.run(options={"--capture": "no"})
    shutil.rmtree(folder / "_sources", ignore_errors=True)
    for name in ("run.json", "cout.txt"):
        (folder / "1" / name).unlink(missing_ok=True)  # host name and paths
    return {
        "1/metrics.json": {
            "train.loss": curve([r["train_loss"] for r in rows], range(12)),
            "val.loss": curve([r["val_loss"] for r in rows], range(12)),
        }
    }


def mlflow_run(uri: str) -> tuple[str, dict[str, Curve]]:
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("tiny")
    rows = list(descent())
    with mlflow.start_run(run_name="descent") as run:
        mlflow.log_params({"lr": 0.1, "optimizer": "sgd"})
        for row in rows:
            for tag in ("train_loss", "val_loss"):
                mlflow.log_metric(tag, row[tag], step=int(row["epoch"]))
        mlflow.log_metric("grad_norm", math.nan, step=0)
        name = str(run.info.run_id)
    curves = {tag: curve([r[tag] for r in rows], range(12)) for tag in ("train_loss", "val_loss")}
    return name, curves


@maker("MLflow, database", "mlflow")
def mlflow_sqlite(folder: Path) -> Truth:
    import sqlite3

    _, curves = mlflow_run(f"sqlite:///{folder / 'mlflow.db'}")
    kept = ("experiments", "runs", "metrics", "latest_metrics", "params", "tags", "alembic_version")
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db", isolation_level=None)) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        for name in tables:
            if name not in kept and not name.startswith("sqlite_"):
                database.execute(f'drop table "{name}"')  # a megabyte of empty ones
        database.execute("update runs set user_id = 'user', artifact_uri = ''")
        database.execute("update experiments set artifact_location = ''")
        database.execute("delete from tags where key like 'mlflow.s%' or key like 'mlflow.u%'")
        database.execute("vacuum")
    shutil.rmtree(folder / "mlruns", ignore_errors=True)
    return {"mlflow.db": curves}


@maker("MLflow, file store", "mlflow")
def mlflow_files(folder: Path) -> Truth:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    name, curves = mlflow_run((folder / "mlruns").as_uri())
    (meta,) = folder.glob(f"mlruns/*/{name}/meta.yaml")
    for path in folder.rglob("meta.yaml"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith(("user_id", "artifact_"))))
    for tag in (meta.parent / "tags").glob("mlflow.[su]*"):
        tag.unlink()
    shutil.rmtree(folder / "mlruns" / ".trash", ignore_errors=True)
    return {
        (meta.parent / "metrics" / tag).relative_to(folder).as_posix(): {tag: found}
        for tag, found in curves.items()
    }


@maker("Weights & Biases, offline", "wandb")
def wandb(folder: Path) -> Truth:
    import wandb as library

    rows = list(descent())
    settings = library.Settings(mode="offline", console="off", silent=True, x_disable_stats=True, x_disable_meta=True,
                                disable_git=True, host="host", username="user", email="")  # fmt: skip
    with library.init(project="tiny", dir=str(folder), config={"lr": 0.1}, settings=settings) as run:
        for row in rows:
            run.log(
                {"train/loss": row["train_loss"], "val/loss": row["val_loss"]}, step=int(row["epoch"]) * 10
            )
    (log,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    home = folder / "wandb" / "offline-run-20240101_000000-tiny"
    kept = home / "run-tiny.wandb"
    home.mkdir()
    shutil.copy(log, kept)
    for other in (folder / "wandb").iterdir():
        if other != home:
            other.unlink() if other.is_symlink() or other.is_file() else shutil.rmtree(other)
    steps = [10 * r["epoch"] for r in rows]
    return {
        kept.relative_to(folder).as_posix(): {
            "train/loss": curve([r["train_loss"] for r in rows], steps),
            "val/loss": curve([r["val_loss"] for r in rows], steps),
        }
    }


# --- trainers ----------------------------------------------------------------------------------


@maker("timm's update_summary", "timm")
def timm(folder: Path) -> Truth:
    from importlib.util import module_from_spec, spec_from_file_location

    # the module alone: the package asks for torchvision
    path = Path(str(metadata.distribution("timm").locate_file("timm/utils/summary.py")))
    spec = spec_from_file_location("timm_summary", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = list(descent())
    for i, row in enumerate(rows):
        module.update_summary(
            i, {"loss": row["train_loss"]}, {"loss": row["val_loss"], "top1": 8.0 * i, "top5": 8.3 * i},
            folder / "summary.csv", lr=0.1 / (i + 1), write_header=i == 0,
        )  # fmt: skip
    return {
        "summary.csv": {
            "train_loss": curve([r["train_loss"] for r in rows], range(12)),
            "eval_loss": curve([r["val_loss"] for r in rows], range(12)),
            "eval_top1": curve([8.0 * i for i in range(12)]),
            "lr": curve([0.1 / (i + 1) for i in range(12)]),
        }
    }


def torch_parts() -> tuple[Any, Any, Any, Any]:
    import torch

    torch.manual_seed(0)
    (x, y), (xv, yv) = data(), data(60, 1)
    sets = [torch.utils.data.TensorDataset(torch.tensor(a), torch.tensor(b)) for a, b in ((x, y), (xv, yv))]
    return torch, torch.nn.Linear(4, 1), *sets


@maker("Lightning's CSVLogger", "lightning")
def lightning(folder: Path) -> Truth:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import CSVLogger

    torch, layer, train, val = torch_parts()
    seen: dict[str, list[float]] = {"train_loss": [], "val_loss": []}

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def loss(self, batch: Any, tag: str) -> Any:
            loss = torch.nn.functional.mse_loss(self.layer(batch[0])[:, 0], batch[1])
            self.log(tag, loss)
            seen[tag].append(float(loss))
            return loss

        def training_step(self, batch: Any, _: int) -> Any:
            return self.loss(batch, "train_loss")

        def validation_step(self, batch: Any, _: int) -> None:
            self.loss(batch, "val_loss")

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    loaders = [torch.utils.data.DataLoader(s, batch_size=60) for s in (train, val)]
    trainer = pl.Trainer(
        max_epochs=6, accelerator="cpu", logger=CSVLogger(folder, name="logs", version=0), log_every_n_steps=1,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Model(), *loaders)
    return {
        "logs/version_0/metrics.csv": {
            "train_loss": curve(seen["train_loss"], range(12)),
            "val_loss": curve(seen["val_loss"], range(1, 12, 2)),
        }
    }


@maker("Hugging Face Trainer", "transformers")
def transformers(folder: Path) -> Truth:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    torch, layer, train, val = torch_parts()

    class Model(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Any = None, labels: Any = None) -> Any:
            out = self.layer(x)[:, 0]
            return {"loss": torch.nn.functional.mse_loss(out, labels), "logits": out}

    rows: list[dict[str, float]] = []

    class Recorder(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            rows.append({**logs, "step": state.global_step})

    arguments = TrainingArguments(
        "out", num_train_epochs=6, per_device_train_batch_size=40, logging_steps=2, eval_strategy="epoch",
        save_strategy="epoch", save_total_limit=1, report_to=["tensorboard"], use_cpu=True, learning_rate=0.05,
        disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip

    def collate(items: list[Any]) -> dict[str, Any]:
        return {"x": torch.stack([a for a, _ in items]), "labels": torch.stack([b for _, b in items])}

    trainer = Trainer(Model(), arguments, collate, train, val, callbacks=[Recorder()])
    with printed(folder / "stdout.log"):
        trainer.train()
    state = next((folder / "out").glob("checkpoint-*/trainer_state.json"))
    shutil.copy(state, folder / "trainer_state.json")
    (events,) = (folder / "out").rglob("events.out.tfevents*")
    (folder / "runs").mkdir()
    shutil.copy(events, folder / "runs" / "events.out.tfevents.1.host")
    shutil.rmtree(folder / "out")

    def told(tag: str, prefix: str = "") -> dict[str, Curve]:
        points = [(r["step"], r[tag]) for r in rows if tag in r]
        return {prefix or tag: curve([v for _, v in points], [s for s, _ in points])}

    return {
        "trainer_state.json": {
            **told("loss"),
            **told("eval_loss"),
            **told("learning_rate"),
            **told("grad_norm"),
        },
        "stdout.log": {
            tag: curve([float(f"{r[tag]:.4g}") for r in rows if tag in r]) for tag in ("loss", "eval_loss")
        },
        "runs/events.out.tfevents.1.host": {
            tag: curve(np.float32(points["values"]).tolist(), points["steps"])
            for name, tag in (("loss", "train/loss"), ("eval_loss", "eval/loss"))
            for points in told(name, tag).values()
        },
    }


@maker("Keras", "keras")
def keras(folder: Path) -> Truth:
    import pickle

    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras as library

    library.utils.set_random_seed(0)
    (x, y), (xv, yv) = data(), data(60, 1)
    model = library.Sequential([library.Input((4,)), library.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    logger = library.callbacks.CSVLogger(str(folder / "training.csv"))
    with printed(folder / "stdout.log"):
        history = model.fit(
            x, y, validation_data=(xv, yv), epochs=8, batch_size=40, callbacks=[logger]
        ).history
    (folder / "history.pkl").write_bytes(pickle.dumps(history))
    (folder / "history.json").write_text(json.dumps(history))
    exact = {tag: curve(values, range(8)) for tag, values in history.items()}
    ends = {tag: curve([float(f"{v:.4f}") for v in values], range(1, 9)) for tag, values in history.items()}
    return {"training.csv": exact, "history.pkl": exact, "history.json": exact, "stdout.log": ends}


@maker("MMEngine", "mmengine")
def mmengine(folder: Path) -> Truth:
    from mmengine.evaluator import BaseMetric
    from mmengine.hooks import Hook
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    torch, layer, train, val = torch_parts()
    losses: list[float] = []
    scores: list[float] = []

    class Model(BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Any, y: Any, mode: str = "tensor") -> Any:
            out = self.layer(x)[:, 0]
            return {"loss": torch.nn.functional.mse_loss(out, y)} if mode == "loss" else (out, y)

    class Error(BaseMetric):  # type: ignore[misc]
        def process(self, batch: Any, samples: Any) -> None:
            self.results.append(float(((samples[0] - samples[1]) ** 2).mean()))

        def compute_metrics(self, results: list[float]) -> dict[str, float]:
            scores.append(float(np.mean(results)))
            return {"mse": scores[-1]}

    class Recorder(Hook):  # type: ignore[misc]
        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            losses.append(float(outputs["loss"]))

    loader = {
        "batch_size": 40,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "num_workers": 0,
        "collate_fn": {"type": "default_collate"},
    }
    runner = Runner(
        Model(), str(folder), train_dataloader={**loader, "dataset": train}, val_dataloader={**loader, "dataset": val},
        val_cfg={}, val_evaluator=[Error()], train_cfg={"by_epoch": True, "max_epochs": 5, "val_interval": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.05}}, custom_hooks=[Recorder()], launcher="none", log_processor={"window_size": 1, "by_epoch": True},
        default_hooks={"logger": {"type": "LoggerHook", "interval": 1}, "checkpoint": None}, experiment_name="tiny",
    )  # fmt: skip
    runner.train()
    (made,) = (path for path in folder.iterdir() if path.is_dir())
    home = folder / "20240101_000000"
    made.rename(home)
    (home / "vis_data" / f"{made.name}.json").rename(home / "vis_data" / "20240101_000000.json")
    (home / f"{made.name}.log").rename(home / "20240101_000000.log")
    for extra in (folder / "last_checkpoint", home / "vis_data" / "config.py"):
        extra.unlink(missing_ok=True)
    for extra in folder.glob("*.py"):
        extra.unlink()
    log = home / "20240101_000000.log"
    text = log.read_text()
    log.write_text(text[text.index("Epoch(train)") - 60 :] if "Epoch(train)" in text else text)
    # the hook logs the mean since it logged last, here of one iteration
    steps = range(1, 16)
    return {
        "20240101_000000/vis_data/scalars.json": {
            "train/loss": curve(losses, steps),
            "val/mse": curve(scores, range(3, 16, 3)),
        },
        "20240101_000000/20240101_000000.log": {"train_loss": curve(rounded(losses, 4))},
    }


@maker("skorch", "skorch")
def skorch(folder: Path) -> Truth:
    from skorch import NeuralNetRegressor

    layer = torch_parts()[1]
    x, y = data()
    net = NeuralNetRegressor(layer, max_epochs=8, lr=0.02)
    with printed(folder / "stdout.log"):
        net.fit(x, y[:, None])
    net.save_params(f_history=str(folder / "history.json"))
    tags = ("train_loss", "valid_loss")
    return {
        "history.json": {tag: curve(net.history[:, tag], range(1, 9)) for tag in tags},
        "stdout.log": {tag: curve(rounded(net.history[:, tag], 4), range(1, 9)) for tag in tags},
    }


@maker("fastai's CSVLogger", "fastai")
def fastai(folder: Path) -> Truth:
    from fastai.callback.progress import CSVLogger
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner

    torch, layer, train, val = torch_parts()
    loaders = DataLoaders(DataLoader(train, bs=40), DataLoader(val, bs=60))
    loss = lambda out, y: torch.nn.functional.mse_loss(out[:, 0], y)  # noqa: E731
    learner = Learner(loaders, layer, loss_func=loss, cbs=[CSVLogger(folder / "history.csv")])
    with printed(folder / "stdout.log"):
        learner.fit(8, lr=0.05)
    (folder / "stdout.log").unlink()
    rows = learner.recorder.values
    return {
        "history.csv": {
            "train_loss": curve([r[0] for r in rows], range(8)),
            "valid_loss": curve([r[1] for r in rows], range(8)),
        }
    }


# --- TensorFlow --------------------------------------------------------------------------------


@maker("TensorFlow 2 summaries", "tensorflow")
def tensorflow2(folder: Path) -> Truth:
    import tensorflow as tf

    rows = list(descent())
    writer = tf.summary.create_file_writer(str(folder), filename_suffix=".host")
    with writer.as_default():
        for row in rows:
            step = int(row["epoch"])
            tf.summary.scalar("loss", row["train_loss"], step)
            tf.summary.scalar("val/loss", tf.constant(row["val_loss"], tf.float64), step)
            tf.summary.scalar("count", tf.constant(step, tf.int32), step)
            tf.summary.histogram("weights", np.linspace(-1, 1, 50) * step, step)
        tf.summary.text("note", "a *text*", 0)
    writer.close()
    return {
        named(folder): {
            "loss": curve(np.float32([r["train_loss"] for r in rows]).tolist(), range(12)),
            "val/loss": curve(np.float32([r["val_loss"] for r in rows]).tolist(), range(12)),
            "count": curve(range(12), range(12)),
        }
    }


@maker("TensorFlow 1 summaries", "tensorflow")
def tensorflow1(folder: Path) -> Truth:
    import tensorflow as tf

    rows = list(descent())
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        value = v1.placeholder(tf.float32, [])
        merged = v1.summary.merge([v1.summary.scalar("loss", value), v1.summary.histogram("w", value * np.arange(9.0, dtype=np.float32))])  # fmt: skip
        writer = v1.summary.FileWriter(str(folder))
        for row in rows:
            writer.add_summary(session.run(merged, {value: row["train_loss"]}), int(row["epoch"]))
        writer.close()
    values = np.float32([r["train_loss"] for r in rows]).tolist()
    return {named(folder): {"loss": curve(values, range(12))}}


@maker("Keras' TensorBoard callback", "tensorflow")
def keras_tensorboard(folder: Path) -> Truth:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    (x, y), (xv, yv) = data(), data(60, 1)
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    board = tf.keras.callbacks.TensorBoard(str(folder), write_graph=False)
    history = model.fit(
        x, y, validation_data=(xv, yv), epochs=8, batch_size=40, callbacks=[board], verbose=0
    ).history
    return {
        named(folder / part): {
            f"epoch_{tag}": curve(np.float32(history[prefix + tag]).tolist(), range(8))
            for tag in ("loss", "mae")
        }
        for part, prefix in (("train", ""), ("validation", "val_"))
    }


# --- parts of trainers that write the log, without the training around them ---------------------


@maker("Ultralytics' trainer", "ultralytics")
def ultralytics(folder: Path) -> Truth:
    version = metadata.version
    metadata.version = lambda name: "0.0" if name == "torchvision" else version(name)  # asked for, not used
    try:
        from ultralytics.engine.trainer import BaseTrainer
    finally:
        metadata.version = version
    rows = []
    for row in descent():
        losses = {f"{part}/{term}_loss": row[f"{part}_loss"] * k for part in ("train", "val")
                  for k, term in enumerate(("box", "cls", "dfl"), 1)}  # fmt: skip
        told = {
            f"metrics/{name}(B)": 1 / (1 + row["val_loss"] + k)
            for k, name in enumerate(("mAP50", "mAP50-95"))
        }
        rows.append({**losses, **told, **{f"lr/pg{k}": 0.01 / (1 + row["epoch"]) for k in range(3)}})
        trainer = SimpleNamespace(
            csv=folder / "results.csv",
            epoch=row["epoch"],
            train_time_start=time.time() - 9 * (row["epoch"] + 1),
        )
        BaseTrainer.save_metrics(trainer, rows[-1])
    shown = {
        tag: curve([float(f"{row[tag]:.6g}") for row in rows], range(1, len(rows) + 1)) for tag in rows[0]
    }
    return {"results.csv": shown}


@maker("Flair's LossFilePlugin", "flair")
def flair(folder: Path) -> Truth:
    _without_its_start("flair", "flair.trainers", "flair.trainers.plugins", "flair.trainers.plugins.loggers")
    with mock.patch.dict(
        sys.modules, dict.fromkeys(("flair.data", "sklearn", "sklearn.metrics"), mock.MagicMock())
    ):
        from flair.trainers.plugins.loggers.loss_file import LossFilePlugin
        from flair.trainers.plugins.metric_records import MetricRecord
    plugin, rows, rates = LossFilePlugin(folder, 0), [], []
    for row in descent():
        epoch = row["epoch"] + 1
        plugin.before_training_epoch(epoch=epoch)
        rows.append({("train", "loss"): row["train_loss"], ("dev", "loss"): row["val_loss"],
                     ("dev", "micro avg", "f1-score"): 1 / (1 + row["val_loss"])})  # fmt: skip
        rates.append(0.1 / epoch)
        for name, value in rows[-1].items():
            plugin.metric_recorded(MetricRecord.scalar(name, value, epoch))
        plugin.metric_recorded(MetricRecord.scalar("bad_epochs", 0, epoch))
        plugin.metric_recorded(MetricRecord.scalar_list("learning_rate", [rates[-1]], epoch))
        plugin.after_evaluation(epoch=epoch)
    columns = {"LEARNING_RATE": rates}
    for name, tag in zip(rows[0], ("TRAIN_LOSS", "DEV_LOSS", "DEV_F1"), strict=True):
        columns[tag] = [row[name] for row in rows]
    steps = range(1, len(rows) + 1)
    return {"loss.tsv": {tag: curve(rounded(values, 4), steps) for tag, values in columns.items()}}


def _without_its_start(*packages: str) -> None:
    """Make packages importable without running their ``__init__``, which loads all that they can do."""
    (root,) = importlib.util.find_spec(packages[0]).submodule_search_locations or [""]
    for name in packages:
        package = ModuleType(name)
        package.__path__ = [str(Path(root).joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package


def named(folder: Path) -> str:
    """The one event file of a folder under a name without a host, and its place in the sample."""
    (path,) = folder.glob("events.out.tfevents*")
    kept = path.rename(folder / "events.out.tfevents.1700000000.host.v2")
    return kept.name if folder.name not in ("train", "validation") else f"{folder.name}/{kept.name}"


def make(name: str) -> str:
    """Make one sample anew; a word on how it went."""
    writer, package, maker_ = MAKERS[name]
    try:
        version = next(metadata.version(p) for p in (package, f"{package}-cpu") if installed(p))
    except StopIteration:
        return f"{package} is not installed"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        here = Path.cwd()
        os.chdir(folder)
        try:
            truth = maker_(folder)
        finally:
            os.chdir(here)
        record: Mapping[str, object] = {"writer": writer, "version": f"{package} {version}", "files": truth}
        (folder / "truth.json").write_text(json.dumps(record, indent=1) + "\n")
        shutil.rmtree(TARGET / name, ignore_errors=True)
        shutil.copytree(folder, TARGET / name)
    size = sum(p.stat().st_size for p in (TARGET / name).rglob("*") if p.is_file())
    return f"{package} {version}, {size / 1000:.0f} kB"


def installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    for chosen in sys.argv[1:] or list(MAKERS):
        try:
            print(f"{chosen:20} {make(chosen)}", flush=True)
        except Exception as error:  # another writer's samples are made all the same
            print(f"{chosen:20} FAILED: {type(error).__name__}: {error}", flush=True)
