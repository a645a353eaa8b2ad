"""From paths to a report: nothing that fails costs more than itself, and nothing is lost in silence."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import events, overfitting, table

import analyzer.pipeline as pipeline
from analyzer import diagnose
from analyzer.model import Checkpoint, Finding, Problem, Report, Rule, Run, RunReport, Series, TensorRef
from analyzer.pipeline import analyze_paths, checkpoint_layers, diagnose_run, run_name, to_report
from analyzer.rulebook import load_rules
from analyzer.rulebook.frameworks import framework


@cache
def rules() -> tuple[Rule, ...]:
    return load_rules()


def analyzed(*paths: Path) -> Report:
    return analyze_paths(paths, rules())


# --- advice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "own"),
    [
        ({}, "pytorch"),
        ({"hparams.yaml": "lr: 0.1\n"}, "lightning"),
        ({"model.weights.h5": ""}, "keras"),
    ],
)
def test_the_code_for_the_runs_own_framework_comes_first(
    files: dict[str, str], own: str, tmp_path: Path
) -> None:
    overfitting(tmp_path / "exp/metrics.csv")
    for name, text in files.items():
        (tmp_path / "exp" / name).write_text(text)
    (run,) = analyzed(tmp_path / "exp").runs
    advised = [r.snippets for f in run.findings for r in f.remedies if own in r.snippets]
    assert advised and all(next(iter(snippets)) == own for snippets in advised)


def test_a_run_of_the_hugging_face_trainer_is_known_by_its_state() -> None:
    assert framework(Run("r", "r", files=("out/trainer_state.json", "out/hparams.yaml"))) == "transformers"


def test_a_file_that_others_write_too_tells_no_framework() -> None:
    assert framework(Run("r", "r", files=("out/hparams.yaml", "out/events.out.tfevents.1.h"))) == "pytorch"
    logged = ("logs/version_3/hparams.yaml", "logs/version_3/events.out.tfevents.1.h")
    assert framework(Run("r", "r", files=logged)) == "lightning"


def test_a_run_of_keras_is_known_by_the_tags_of_its_callback() -> None:
    assert (
        framework(Run("r", "r", series=(Series("validation/epoch_loss", np.arange(2.0), np.ones(2)),)))
        == "keras"
    )


# --- names and order ------------------------------------------------------------------------------


def test_a_run_is_named_by_its_place_below_what_was_given(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    assert run_name(inner, [tmp_path]) == "a/b"
    assert run_name(inner, [inner]) == "b"
    assert run_name(inner, [Path("elsewhere"), tmp_path / "a"]) == "a/b"
    assert run_name(inner, [Path("elsewhere"), inner]) == "b"
    assert run_name(inner, [Path("elsewhere/b"), inner]) == inner.as_posix(), "two of one name"
    assert run_name(inner, [Path("elsewhere")]) == inner.as_posix()


def test_a_run_in_the_working_folder_is_named_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overfitting(tmp_path / "exp7" / "metrics.csv")
    monkeypatch.chdir(tmp_path / "exp7")
    assert [r.run.name for r in analyzed(Path()).runs] == ["exp7"]


def finding(severity: str, confidence: float, explained_by: str | None = None) -> Finding:
    return Finding("rule", "title", severity, confidence, "", "", explained_by=explained_by)  # type: ignore[arg-type]


def test_the_worst_run_comes_first() -> None:
    def one(name: str, verdict: str, *findings: Finding) -> RunReport:
        return RunReport(Run(name, name), verdict, findings)  # type: ignore[arg-type]

    reports = [
        one("healthy", "healthy"),
        one("unsure", "not-assessed"),
        one("hint", "info", finding("info", 0.9)),
        one("warned-once", "warning", finding("warning", 0.9)),
        one("warned-twice", "warning", finding("warning", 0.5), finding("warning", 0.5)),
        one("once-and-consequence", "warning", finding("warning", 0.4), finding("warning", 0.4, "rule")),
        one("b-broken", "critical", finding("critical", 0.7)),
        one("a-broken", "critical", finding("critical", 0.7)),
        one("surely-broken", "critical", finding("critical", 0.8)),
    ]
    expected = [
        "surely-broken", "a-broken", "b-broken", "warned-twice", "warned-once", "once-and-consequence",
        "hint", "healthy", "unsure",
    ]  # fmt: skip
    assert [r.run.name for r in to_report(reports, ()).runs] == expected
    assert [r.run.name for r in to_report(reversed(reports), ()).runs] == expected


# --- a failure costs only itself ------------------------------------------------------------------


def test_the_good_runs_are_diagnosed_beside_a_broken_one(tmp_path: Path) -> None:
    overfitting(tmp_path / "good" / "metrics.csv")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "metrics.csv").write_bytes(b"\x00\x01\x02" * 100)
    report = analyzed(tmp_path)
    assert [r.run.name for r in report.runs] == ["good"]
    assert "overfitting" in {f.rule for f in report.findings}
    assert [Path(p.path).parent.name for p in report.problems] == ["bad"]


def test_a_reader_that_fails_costs_its_group_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from analyzer.ingest import delimited

    overfitting(tmp_path / "good" / "metrics.csv")
    bad = table(tmp_path / "bad" / "metrics.csv")
    read = delimited.read_all

    def fail(path: Path) -> object:
        if path == bad:
            raise RecursionError("a bug of ours")
        return read(path)

    monkeypatch.setattr(delimited, "read_all", fail)
    report = analyzed(tmp_path)
    assert [r.run.name for r in report.runs] == ["good"]
    assert [(p.path, p.kind) for p in report.problems] == [(str(bad.parent), "internal")]
    assert "a bug of ours" in report.problems[0].message


def test_a_measurement_that_fails_costs_its_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overfitting(tmp_path / "good" / "metrics.csv")
    overfitting(tmp_path / "bad" / "metrics.csv")
    compute = pipeline.compute

    def fail(run: Run, layers: object) -> object:
        if run.name == "bad":
            raise ZeroDivisionError("a bug of ours")
        return compute(run, layers)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "compute", fail)
    report = analyzed(tmp_path)
    assert [(r.run.name, r.verdict) for r in report.runs] == [("good", "warning"), ("bad", "not-assessed")]
    assert [p.kind for p in report.runs[1].problems] == ["internal"]


def test_a_truncated_event_file_gives_what_it_has(tmp_path: Path) -> None:
    whole = events(tmp_path / "whole", steps=range(50))
    cut = events(tmp_path / "cut", steps=range(50))
    (path,) = cut.iterdir()
    path.write_bytes(path.read_bytes()[:-30])
    report = analyzed(tmp_path)
    points = {r.run.name: r.run.series[0].points for r in report.runs}
    assert points == {"whole": 50, "cut": 49}
    problems = {r.run.name: [p.kind for p in r.problems] for r in report.runs}
    assert problems == {"whole": [], "cut": ["truncated"]}
    assert whole.name == "whole"


def test_nothing_at_all_is_an_empty_report(tmp_path: Path) -> None:
    report = analyzed(tmp_path)
    assert report.runs == () and report.problems == ()


def test_files_of_a_group_without_curves_are_answered_for(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text("starting\nloading data\ndone\n" * 5)
    report = analyzed(tmp_path)
    assert report.runs == () and [(p.path, p.kind) for p in report.problems] == [(str(path), "no-series")]


def test_progress_counts_the_groups(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        table(tmp_path / name / "metrics.csv")
    seen: list[tuple[int, int, str]] = []
    analyze_paths([tmp_path], (), progress=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(0, 3), (1, 3), (2, 3)]
    assert [Path(step[2]).name for step in seen] == ["a", "b", "c"]


# --- checkpoints ----------------------------------------------------------------------------------


def tensor(name: str, group: str, values: Sequence[float]) -> TensorRef:
    array = np.asarray(values, dtype=np.float32)

    def blocks(limit: int) -> Iterator[np.ndarray]:
        yield array

    return TensorRef(name, array.shape, "float32", array.nbytes, group, blocks)


def checkpoint(path: str, *tensors: TensorRef) -> Checkpoint:
    return Checkpoint(path, "test", tensors)


def test_the_first_and_the_last_checkpoint_are_measured() -> None:
    several = [checkpoint(f"{i}.pt", tensor("w", "model", [i, i])) for i in range(5)]
    problems: list[Problem] = []
    assert [(s.checkpoint, s.mean) for s in checkpoint_layers(several, problems)] == [
        ("0.pt", 0.0), ("4.pt", 4.0)
    ]  # fmt: skip
    assert problems == []


def test_optimizer_files_do_not_take_the_place_of_weights() -> None:
    several = [
        checkpoint("1/model.bin", tensor("w", "model", [1])),
        checkpoint("1/optimizer.pt", tensor("w", "optimizer", [1])),
        checkpoint("2/model.bin", tensor("w", "model", [2])),
        checkpoint("2/optimizer.pt", tensor("w", "optimizer", [2])),
    ]
    layers = list(checkpoint_layers(several, []))
    assert [s.checkpoint for s in layers if s.group == "model"] == ["1/model.bin", "2/model.bin"]
    assert layers[-1].group == "model"


def test_a_checkpoint_too_large_to_read_unasked_is_told() -> None:
    problems: list[Problem] = []
    big = checkpoint("big.pt", replace(tensor("w", "model", [1.0]), nbytes=1 << 40))
    assert list(checkpoint_layers([big], problems)) == []
    assert [(p.path, p.kind) for p in problems] == [("big.pt", "too-large")]


def test_a_tensor_that_cannot_be_read_costs_its_checkpoint_alone() -> None:
    def fail(limit: int) -> Iterator[np.ndarray]:
        raise ValueError("torn")
        yield np.zeros(1)

    bad = checkpoint("bad.pt", replace(tensor("w", "model", [1.0]), blocks=fail))
    good = checkpoint("good.pt", tensor("w", "model", [2.0]))
    run = Run("r", "r", (Series("loss", np.arange(3.0), np.arange(3.0)),), checkpoints=(bad, good))
    report = diagnose_run(run, rules())
    assert [s.checkpoint for s in report.layers] == ["good.pt"]
    assert any(p.path == "bad.pt" and "torn" in p.message for p in report.problems)


# --- whatever lies there --------------------------------------------------------------------------

LOG_SUFFIXES = {".csv", ".tsv", ".jsonl", ".log", ".out", ".err", ".wandb", ".pt", ".npz", ".pkl"}
CSV = "epoch,loss\n" + "".join(f"{i},{1 / (i + 1)}\n" for i in range(9))
CONTENTS = st.sampled_from(
    [
        b"",
        b"\x00" * 64,
        bytes(range(256)) * 4,
        b"hello world\nsome words, and more\n" * 3,
        CSV.encode(),
        CSV.encode()[:-7],
        CSV.replace("loss", "train/loss,val/loss").encode(),
        b"".join(json.dumps({"step": i, "loss": 1 / (i + 1)}).encode() + b"\n" for i in range(9)),
        json.dumps({"loss": [3, 2, 1], "val_loss": [3, 2, 2]}).encode(),
        json.dumps({"loss": 0.1}).encode(),
        b'{"loss": [1, 2,',
        b"lr: 0.1\nlayers: 3\n",
        b"".join(b"epoch %d loss %.3f\n" % (i, 1 / (i + 1)) for i in range(9)),
        b"PK\x03\x04" + b"\x00" * 40,
        b"\x80\x02}q\x00.",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    ]
)
FOLDERS = st.lists(
    st.sampled_from(["exp", "train", "val", "checkpoint-5", "files", "runs", "a b"]), max_size=3
)
STEMS = st.sampled_from(
    ["metrics", "train", "val", "results", "log", "model", "config", "trainer_state", "x\ny"]
)
SUFFIXES = st.sampled_from(
    [*sorted(LOG_SUFFIXES), ".json", ".yaml", ".txt", ".md", ".tfevents.1", ".gz", "-"]
)
Tree = dict[tuple[tuple[str, ...], str, str], bytes]
TREES = st.dictionaries(st.tuples(FOLDERS.map(tuple), STEMS, SUFFIXES), CONTENTS, max_size=6)


def plant(root: Path, tree: Tree) -> list[Path]:
    paths = [root.joinpath(*folders, stem + suffix) for folders, stem, suffix in tree]
    for path, content in zip(paths, tree.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return paths


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_no_tree_of_files_raises_and_every_log_is_answered_for(
    tree: Tree,
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        written = plant(root, tree)
        report = analyzed(root)
        read = {file for r in report.runs for file in r.run.files}
        named = {p.path for p in (*report.problems, *(p for r in report.runs for p in r.problems))}
        lost = {p for p in written if p.suffix in LOG_SUFFIXES and str(p) not in read | named}
        assert not lost
        assert "internal" not in {p.kind for p in report.problems}
        assert all("internal" not in {p.kind for p in r.problems} for r in report.runs)
        assert len({r.run.name for r in report.runs}) == len(report.runs)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_the_report_does_not_depend_on_how_the_folder_is_named(
    tree: Tree,
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "root"
        root.mkdir()
        plant(root, tree)
        once = analyzed(root)
        twice = analyzed(root, root.parent / "." / "root", root / "exp" if (root / "exp").is_dir() else root)
        assert [r.run.name for r in twice.runs] == [r.run.name for r in once.runs]
        assert [r.run.files for r in twice.runs] == [r.run.files for r in once.runs]


def test_what_a_run_ends_at_and_was_best_at_are_values_of_its_log() -> None:
    logged = [0.9, 0.61, 0.452, 0.381, 0.349, 0.331, 0.322, 0.347, 0.362, 0.371, 0.394, 0.437]
    told = diagnose({"train_loss": np.geomspace(1, 0.1, 12), "val_loss": np.array(logged)})
    overfitting = next(f for f in told if f.rule == "overfitting")
    assert "(0.322) at step 6" in overfitting.summary and "ends at 0.437" in overfitting.summary
    told = diagnose({"train_loss": np.linspace(2, 1, 12) ** 2})
    stopped = next(f for f in told if f.rule == "undertrained")
    assert "ended at 1:" in stopped.summary


def test_a_divergence_from_which_the_loss_falls_again_is_no_critical_one() -> None:
    rng = np.random.default_rng(0)
    before = 0.1 + 0.4 * np.exp(-np.arange(28) / 6)
    thrown = {"stays": np.full(70, 0.42), "falls again": 0.2 + 0.22 * np.exp(-np.arange(70) / 50)}
    told = {
        name: diagnose({"train_loss": np.concatenate([before, after]) + 0.002 * rng.standard_normal(98)})
        for name, after in thrown.items()
    }
    found = {name: next(f for f in t if f.rule == "loss-divergence").severity for name, t in told.items()}
    assert found == {"stays": "critical", "falls again": "warning"}
