"""Files that grew between two audits: read on from where reading ended, with the same result as read whole."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import events
from test_audit import Here, audited, told

from analyzer.auditing import course, growth
from analyzer.ingest import tensorboard


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "Crew", Here)
    monkeypatch.setattr(growth, "LONG", 100)


@pytest.fixture
def log(tmp_path: Path) -> tuple[Path, bytes]:
    """An event file in a tree of its own, and its bytes."""
    folder = events(tmp_path / "runs" / "exp", ("train/loss", "val/loss"), range(200))
    (path,) = folder.iterdir()
    return path, path.read_bytes()


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the files that were read."""
    sizes: list[int] = []
    real = tensorboard.read

    def read(path: Path) -> Any:
        sizes.append(path.stat().st_size)
        return real(path)

    monkeypatch.setattr(tensorboard, "read", read)
    return sizes


@pytest.mark.parametrize("share", [0.3, 0.5, 0.77])
def test_a_grown_file_is_read_on(log: tuple[Path, bytes], read_bytes: list[int], share: float) -> None:
    """Cut anywhere: mostly in the midst of a record."""
    path, data = log
    path.write_bytes(data[: int(share * len(data))])
    audited(path.parent.parent)
    path.write_bytes(data)
    grown = audited(path.parent.parent)
    assert read_bytes[1] <= len(data) - read_bytes[0] + 200, "the rest alone, from the last whole record"
    whole = audited(path.parent.parent, ledger=path.parent.parent.parent / "fresh")
    assert told(grown) == told(whole)
    assert grown.records == whole.records


def test_growth_goes_on(log: tuple[Path, bytes], read_bytes: list[int]) -> None:
    path, data = log
    for share in (0.2, 0.4, 0.4, 0.6, 0.8, 1.0):
        path.write_bytes(data[: int(share * len(data))])
        found = audited(path.parent.parent)
    assert told(found) == told(audited(path.parent.parent, ledger=path.parent.parent.parent / "fresh"))
    assert max(read_bytes[1:-1]) < 0.3 * len(data)


def test_a_file_that_was_written_anew_is_read_whole(log: tuple[Path, bytes], read_bytes: list[int]) -> None:
    path, data = log
    path.write_bytes(data[: len(data) // 2])
    audited(path.parent.parent)
    folder = events(
        path.parent.parent.parent / "other", ("train/loss", "val/loss"), range(5, 250), lambda x: 1 / (1 + x)
    )
    (other,) = folder.iterdir()
    path.write_bytes(other.read_bytes())
    found = audited(path.parent.parent)
    assert read_bytes[1] == path.stat().st_size
    assert told(found) == told(audited(path.parent.parent, ledger=path.parent.parent.parent / "fresh"))


def test_histograms_make_a_file_be_read_whole(tmp_path: Path, read_bytes: list[int]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    folder = tmp_path / "runs" / "exp"
    with SummaryWriter(str(folder)) as writer:
        for step in range(60):
            writer.add_scalar("loss", 1 / (1 + step), step)
            writer.add_histogram("w", np.arange(10.0), step)
    (path,) = folder.iterdir()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    audited(tmp_path / "runs")
    path.write_bytes(data)
    audited(tmp_path / "runs")
    assert read_bytes[1] == len(data)


def test_damage_before_and_behind_is_told_once_at_its_place(log: tuple[Path, bytes]) -> None:
    path, data = log
    bad = bytearray(data)
    for at in (len(data) // 4, 3 * len(data) // 4):
        bad[at] ^= 0xFF
    path.write_bytes(bad[: len(data) // 2])
    audited(path.parent.parent)
    path.write_bytes(bad)
    problems = told(audited(path.parent.parent))[0]["problems"]
    kinds = [p["kind"] for p in problems]
    assert "truncated" not in kinds and kinds and all(p["path"] == str(path) for p in problems)


def test_old_files_are_not_kept(log: tuple[Path, bytes]) -> None:
    path, _ = log
    os.utime(path, (1e9, 1e9))
    found = audited(path.parent.parent)
    assert sqlite3.connect(found.ledger).execute("SELECT count(*) FROM tails").fetchone() == (0,)


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.jsonl", "train.log"])
def test_other_logs_that_grew_are_read_whole(name: str, tmp_path: Path) -> None:
    rows = [(step, 2 * 0.99**step, 2 * 0.99**step + 0.001 * max(0, step - 60)) for step in range(150)]
    line = {
        "metrics.csv": "{},{:.5f},{:.5f}",
        "metrics.jsonl": '{{"step": {}, "loss": {:.5f}, "val_loss": {:.5f}}}',
        "train.log": "step {} loss {:.5f} val_loss {:.5f}",
    }[name]
    lines = [line.format(*row) for row in rows]
    header = ["step,loss,val_loss"] if name.endswith("csv") else []
    log = tmp_path / "runs" / "a" / name
    log.parent.mkdir(parents=True)
    log.write_text("\n".join([*header, *lines[:70], lines[70][:9]]))  # the writer is in the middle of a line
    before = audited(tmp_path / "runs")
    log.write_text("\n".join([*header, *lines]) + "\n")
    grown = audited(tmp_path / "runs")
    assert grown.counts.read == 1
    assert told(grown) == told(audited(tmp_path / "runs", ledger=tmp_path / "fresh"))
    assert grown.records[0].points > before.records[0].points
