"""Reports built by hand, for the tests of the output formats."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analyzer.model import (
    Evidence,
    Finding,
    LayerStats,
    LikelyCause,
    Mark,
    Measurement,
    NotApplicable,
    Problem,
    Remedy,
    Report,
    Run,
    RunReport,
    Series,
    Severity,
)

# Each tries to leave its place in one of the formats.
HOSTILE = (
    '<script>alert("1")</script>',
    "</script><svg/onload=alert(1)>",
    "'\"><img src=x onerror=alert(1)>",
    "[bold red]boo[/bold red] [/] [link=http://evil.example]x[/link]",
    "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "line\nbreak\r\ttab\x00null\x7f",
    "\u202egnp.exe\u2066\u2069\u200b",
    "{{ 7*7 }}{% raw %}${7*7}",
    "=HYPERLINK(\"http://evil.example\",\"x\")",
    "| pipe ` tick ``` fence [a](javascript:alert(1)) ![i](http://evil.example/i) @everyone #1",
    "# heading\n- item\n<!-- comment",
    "- item\n```\n<img src=x onerror=alert(1)>\n````\n# out",
    "1. one",
    "\udcff\ud800 surrogate",
    "]]> & &amp; \ufffe \x0b cdata",
    "https://evil.example www.evil.example $x$ *bold* _it_ ~~s~~",
    "+1 -1 @sum %s %n {0.__class__}",
    "名前 " + "very-long-" * 40,
)  # fmt: skip


def series(role: str, values: ArrayLike, steps: ArrayLike | None = None, tag: str = "") -> Series:
    array = np.asarray(values, dtype=np.float64)
    at = np.arange(len(array), dtype=np.float64) if steps is None else np.asarray(steps, dtype=np.float64)
    return Series(tag=tag or role.replace("_", "/"), steps=at, values=array, role=role)


def overfitting_series(points: int = 1000, seed: int = 0) -> tuple[Series, ...]:
    rng = np.random.default_rng(seed)
    x = np.arange(points, dtype=np.float64)
    train = 2.3 * np.exp(-x / (points / 5)) + 0.05 + rng.normal(0, 0.02, points) * np.exp(-x / points)
    every = max(1, points // 40)
    at = x[::every]
    val = 2.3 * np.exp(-at / (points / 6)) + 0.3 + 0.9 * np.clip(at / points - 0.35, 0, None) ** 1.3
    return (
        series("train_loss", np.abs(train), tag="Loss/train"),
        series("val_loss", val + rng.normal(0, 0.01, len(val)), at, tag="Loss/val"),
        series("learning_rate", 1e-3 * (0.5 + 0.5 * np.cos(np.pi * x / points)), tag="lr"),
        series("grad_norm", 1.5 + rng.gamma(2, 0.2, points), tag="grad/norm"),
        series("", rng.normal(0, 1, points), tag="misc/odd"),
    )


def finding(
    rule: str = "overfitting",
    severity: Severity = "warning",
    explained_by: str | None = None,
    steps: tuple[float, float] | None = (375.0, 999.0),
    marks: tuple[Mark, ...] | None = None,
    title: str = "Validation loss rises while training loss still falls",
) -> Finding:
    return Finding(
        rule=rule,
        title=title,
        severity=severity,
        confidence=0.93,
        summary="Validation loss is 42 % above its minimum (step 375) while training loss still falls.",
        why="The model has begun to memorise; later checkpoints generalise worse.",
        steps=steps,
        evidence=(
            Evidence("val_loss.rise_from_min", 0.42, ">=", 0.05, "val loss is 42 % above its minimum", 7.4),
            Evidence("train_loss.tail_trend", -0.03, "<", 0.0, "train loss still falls", 0.5),
        ),
        marks=_marks() if marks is None else marks,
        causes=(
            LikelyCause("no-regularisation", "No regularisation is switched on", 0.7, ("weight_decay is 0",)),
            LikelyCause("insufficient-data", "The training set is small for the model", 0.45),
        ),
        remedies=(
            Remedy("Keep the best checkpoint and stop early", "low", _snippets(), "The best step was 375."),
            Remedy(
                "Switch weight decay on",
                "low",
                {"pytorch": "torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)"},
            ),
        ),
        false_positives=("The training loss includes a penalty that the validation loss does not.",),
        references=("https://doi.org/10.1007/3-540-49430-8_3",),
        explained_by=explained_by,
        margin=7.4,
    )


def overfitting_report() -> RunReport:
    run = Run(
        name="exp3",
        path="runs/exp3",
        series=overfitting_series(),
        hyperparameters={"lr": 1e-3, "optimizer": "adamw", "weight_decay": 0.0, "amp": True, "note": None},
    )
    late = finding(
        "no-early-stopping",
        "info",
        "overfitting",
        title="62 % of the run came after its best point",
        marks=(),
    )
    return RunReport(
        run=run,
        verdict="warning",
        findings=(finding(), late),
        not_applicable=(
            NotApplicable("dead-relu", ("activations",), "no activations were logged"),
            NotApplicable("nan-weights", ("checkpoint",), "the run has no checkpoint"),
        ),
        problems=(Problem("runs/exp3/events.1", "truncated", "the last record is cut short", 4096),),
        features={"val_loss.rise_from_min": Measurement(0.42, (375.0, 999.0), "val_loss")},
    )


def nan_report() -> RunReport:
    values = 2.0 * np.exp(-np.arange(400) / 90)
    values[250:258] *= np.geomspace(1, 5e4, 8)
    values[258:] = np.nan
    curves = (
        series("train_loss", values, tag="loss"),
        series("grad_norm", [*[1.2] * 250, *np.geomspace(1.2, 1e6, 8), *[np.inf] * 142]),
    )
    nan = finding(
        "nan-loss",
        "critical",
        steps=(258.0, 258.0),
        title="Training loss became NaN",
        marks=(
            Mark("train_loss", 258, 258, "first NaN"),
            Mark("grad_norm", 250, 257, "gradient norm grows 800 000-fold"),
        ),
    )
    grads = finding(
        "exploding-gradients",
        "critical",
        "nan-loss",
        title="Gradient norms explode",
        marks=(Mark("grad_norm", 250, 257, "gradient norm grows 800 000-fold"),),
    )
    run = Run(name="fp16-lr3e-3", path="runs/fp16-lr3e-3", series=curves)
    return RunReport(run=run, verdict="critical", findings=(nan, grads))


def log_scale_report() -> RunReport:
    run = Run("wide", "runs/wide", (series("train_loss", np.geomspace(1e4, 1e-4, 5000)),))
    return RunReport(run=run, verdict="healthy")


def spike_report(points: int = 200_000) -> RunReport:
    values = np.ones(points)
    values[123_457] = 9.0
    return RunReport(Run("spike", "runs/spike", (series("train_loss", values),)), "healthy")


def healthy_report(name: str = "baseline", points: int = 300, seed: int = 1) -> RunReport:
    rng = np.random.default_rng(seed)
    x = np.arange(points)
    noise = rng.normal(0, 0.01, points)
    run = Run(name, f"runs/{name}", (series("train_loss", 2 * np.exp(-x / (points / 4)) + 0.4 + noise),))
    return RunReport(run=run, verdict="healthy")


def unassessed_report() -> RunReport:
    return RunReport(Run("short", "runs/short", (series("train_loss", [1.0]),)), "not-assessed")


def empty_report() -> RunReport:
    problem = Problem("runs/broken/events.0", "empty", "the file has no bytes")
    return RunReport(Run("broken", "runs/broken"), "not-assessed", problems=(problem,))


def layer(name: str, nan: int = 0, zeros: int = 0) -> LayerStats:
    return LayerStats(
        name=name,
        group="model",
        shape=(64, 32, 3, 3),
        dtype="float32",
        count=18432,
        mean=0.001,
        std=0.05 if nan < 18432 else None,
        min=-0.3,
        max=0.31,
        abs_max=0.31,
        l1=700.0,
        l2=6.8,
        zeros=zeros,
        nan=nan,
        inf=0,
        skew=0.0,
        kurtosis=3.0,
        quantiles={"p50": 0.0},
        fan_in=288,
        checkpoint="epoch3.pt",
    )


def checkpoint_report() -> RunReport:
    nan = finding("nan-weights", "critical", steps=None, marks=(), title="NaN in the weights of 1 tensor")
    layers = (layer("encoder.0.weight"), layer("encoder.1.weight", nan=12), layer("head.weight", zeros=18432))
    return RunReport(Run("epoch3.pt", "ckpt/epoch3.pt"), "critical", (nan,), layers=layers)


def hostile_report(text: str) -> RunReport:
    """The same hostile text in every place that a file's content can reach."""
    base = finding()
    nasty = Finding(
        rule="overfitting",
        title=text,
        severity="warning",
        confidence=float("nan"),
        summary=text,
        why=text,
        scope_kind="layer",
        scope_name=text,
        steps=(float("nan"), float("inf")),
        evidence=(Evidence(text, float("inf"), ">=", float("nan"), text),),
        marks=(Mark("train_loss", 1, 2, text), Mark("train_loss", float("nan"), 2, text)),
        causes=(LikelyCause(text, text, 0.5, (text,)),),
        remedies=(Remedy(text, text, {"pytorch": text, text: text}, text),),
        false_positives=(text,),
        references=(text, f"javascript:{text}"),
        explained_by=None,
    )
    run = Run(
        name=text,
        path=text,
        series=(series("train_loss", [3, 2, 1], tag=text), series("", [1.0], tag=text)),
        hyperparameters={text: text, "nan": float("nan")},
    )
    return RunReport(
        run=run,
        verdict="warning",
        findings=(nasty, base),
        not_applicable=(NotApplicable(text, (text,), text),),
        problems=(Problem(text, text, text),),
        layers=(layer(text),),
    )


def report(*runs: RunReport, problems: tuple[Problem, ...] = ()) -> Report:
    return Report(runs=runs, problems=problems, version="0.1.0")


def many_runs(count: int = 60) -> Report:
    healthy = [healthy_report(f"seed-{i:03d}", points=200, seed=i) for i in range(count - 2)]
    return report(nan_report(), overfitting_report(), *healthy)


def mixed() -> Report:
    return report(
        nan_report(),
        checkpoint_report(),
        overfitting_report(),
        log_scale_report(),
        healthy_report(),
        unassessed_report(),
        empty_report(),
        problems=(Problem("runs/huge.csv", "too-large", "40 GB is more than the limit of 8 GB"),),
    )


def every_report() -> dict[str, Report]:
    """Name -> report: the shapes that every format must cope with."""
    hostile = {f"hostile-{i}": report(hostile_report(text)) for i, text in enumerate(HOSTILE)}
    return {
        "none": report(),
        "one": report(overfitting_report()),
        "mixed": mixed(),
        "sixty": many_runs(60),
        "checkpoint": report(checkpoint_report()),
        "spike": report(spike_report()),
        **hostile,
    }


def _marks() -> tuple[Mark, ...]:
    return (
        Mark("val_loss", 375, 375, "lowest validation loss"),
        Mark("val_loss", 375, 999, "validation loss rises 42 %"),
    )


def _snippets() -> dict[str, str]:
    return {
        "pytorch": (
            "best = float('inf')\n"
            "for epoch in range(epochs):\n"
            "    train_one_epoch(model, train_loader, optimizer)\n"
            "    loss = evaluate(model, val_loader)\n"
            "    if loss < best:\n"
            "        best = loss\n"
            "        torch.save(model.state_dict(), 'best.pt')\n"
        ),
        "lightning": "trainer = Trainer(callbacks=[EarlyStopping('val_loss', patience=5)])\n",
        "keras": "model.fit(x, y, callbacks=[keras.callbacks.EarlyStopping(patience=5)])\n",
        "transformers": "Trainer(callbacks=[EarlyStoppingCallback(early_stopping_patience=5)])\n",
    }
