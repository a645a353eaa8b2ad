"""Runs at a URL: what is fetched together, without anything being fetched to find out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import falling, overfitting, table

from analyzer.auditing.examine import examine
from analyzer.auditing.remote import MANY, remote_bundles
from analyzer.auditing.tasks import Settings
from analyzer.model import Problem

memory = pytest.importorskip("fsspec.implementations.memory")
ROOT = "memory://bucket/exp"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    """A store in memory; ``put`` copies a local folder there."""
    files = memory.MemoryFileSystem()
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def put(store: Any, local: Path) -> None:
    for path in sorted(local.rglob("*")):
        if path.is_file():
            store.pipe_file(f"/bucket/exp/{path.relative_to(local).as_posix()}", path.read_bytes())


def found(url: str = ROOT) -> tuple[list[str], list[Problem]]:
    problems: list[Problem] = []
    return [b.url.removeprefix(ROOT) for b in remote_bundles(url, problems)], problems


def test_each_run_is_a_folder_of_its_own(store: Any, tmp_path: Path) -> None:
    for number in range(3):
        table(tmp_path / f"sweep/run{number}/metrics.csv")
        (tmp_path / f"sweep/run{number}/hparams.yaml").write_text("lr: 1")
    put(store, tmp_path)
    assert found() == (["/sweep/run0/", "/sweep/run1/", "/sweep/run2/"], [])


def test_parts_of_a_run_stay_together(store: Any, tmp_path: Path) -> None:
    for part in ("train", "validation"):
        table(tmp_path / "a" / part / "log.csv")
    table(tmp_path / "b/tb/log.csv")
    (tmp_path / "b/config.yaml").write_text("lr: 1")
    put(store, tmp_path)
    assert found() == (["/a/", "/b/"], [])


def test_a_stray_file_does_not_make_one_of_many_runs(store: Any, tmp_path: Path) -> None:
    for number in range(MANY + 1):
        table(tmp_path / f"run{number}/metrics.csv")
    table(tmp_path / "summary.csv")
    (tmp_path / "README.md").write_text("mine")
    put(store, tmp_path)
    urls, _ = found()
    assert urls[0] == "/summary.csv" and len(urls) == MANY + 2


def test_nothing_is_fetched_to_find_runs(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "a/log.csv")
    put(store, tmp_path)
    for name in ("cat_file", "get_file", "open", "_open"):
        monkeypatch.setattr(memory.MemoryFileSystem, name, lambda *_, **__: pytest.fail("fetched"))
    assert found()[0] == ["/a/"]


def test_the_fingerprint_changes_with_the_files(store: Any, tmp_path: Path) -> None:
    table(tmp_path / "a/log.csv")
    put(store, tmp_path)
    (first,) = remote_bundles(ROOT, [])
    (same,) = remote_bundles(ROOT, [])
    store.pipe_file("/bucket/exp/a/log.csv", b"epoch,loss\n0,1\n")
    (other,) = remote_bundles(ROOT, [])
    assert first.fingerprint == same.fingerprint != other.fingerprint


def test_a_fetched_run_is_named_as_it_lies_there(store: Any, tmp_path: Path) -> None:
    overfitting(tmp_path / "sweep/sick/log.csv")
    table(tmp_path / "sweep/well/log.csv", {"loss": falling, "val_loss": lambda x: falling(x) + 0.1})
    put(store, tmp_path)
    outcomes = [examine(b, Settings(roots=(ROOT,))) for b in remote_bundles(ROOT, [])]
    told = [json.loads(run.record)["member"] for outcome in outcomes for run in outcome.runs]
    assert [(m["name"], m["path"], m["verdict"]) for m in told] == [
        ("sweep/sick", f"{ROOT}/sweep/sick", "warning"),
        ("sweep/well", f"{ROOT}/sweep/well", "healthy"),
    ]


def test_what_cannot_be_listed_is_a_problem(store: Any) -> None:
    assert found("memory://nowhere")[0] == []
    (problem,) = found("nosuchscheme://bucket")[1]
    assert (problem.path, problem.kind) == ("nosuchscheme://bucket", "unsupported")
