"""Two checkpoints against each other, and several along a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from analyzer.checkpoints import changes, open_checkpoint
from analyzer.cli import cli
from analyzer.model import Checkpoint, TensorChange


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Checkpoint:
    torch.save({"state_dict": tensors}, path)
    return open_checkpoint(path)


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, TensorChange]:
    torch.manual_seed(0)
    weight = torch.randn(300, 40)
    before = saved(tmp_path / "a.pt", {
        "same": weight, "moved": weight, "gone": torch.ones(3), "grown": torch.ones(2, 2),
        "broken": weight, "zero": torch.zeros(5), "bn.running_mean": torch.zeros(4),
    })  # fmt: skip
    other = weight + 0.1 * torch.randn(300, 40)
    nan = weight.clone()
    nan[3, 3] = float("nan")
    after = saved(tmp_path / "b.pt", {
        "same": weight.clone(), "moved": other, "new": torch.ones(3), "grown": torch.ones(2, 3),
        "broken": nan, "zero": torch.ones(5), "bn.running_mean": torch.ones(4),
    })  # fmt: skip
    found = {change.name: change for change in changes.difference(before, after)}
    a, b = weight.double(), other.double()
    assert found["moved"].relative == pytest.approx(float((b - a).norm() / a.norm()))
    assert found["moved"].cosine == pytest.approx(
        float(torch.nn.functional.cosine_similarity(a.ravel(), b.ravel(), dim=0))
    )
    assert found["moved"].largest == pytest.approx(float((b - a).abs().max()))
    assert found["moved"].norm == pytest.approx(float(b.norm()))
    return found


def test_every_tensor_has_its_status(pair: dict[str, TensorChange]) -> None:
    assert {name: change.status for name, change in pair.items()} == {
        "same": "identical", "moved": "changed", "new": "added", "gone": "removed", "grown": "reshaped",
        "broken": "changed", "zero": "changed", "bn.running_mean": "changed",
    }  # fmt: skip
    assert pair["grown"].shape_before == (2, 2) and pair["grown"].shape == (2, 3)
    assert not pair["bn.running_mean"].parameter and pair["moved"].parameter


def test_what_is_undefined_is_none_and_never_a_huge_number(pair: dict[str, TensorChange]) -> None:
    assert pair["broken"].relative is None and pair["broken"].cosine is None
    assert pair["zero"].relative is None and pair["zero"].largest == 1
    assert pair["new"].relative is None
    assert pair["same"].relative == 0 and pair["same"].cosine == pytest.approx(1)


def test_half_precision_is_compared_with_full(tmp_path: Path) -> None:
    weight = torch.linspace(-1, 1, 1000).reshape(10, 100)
    before = saved(tmp_path / "a.pt", {"w": weight})
    (change,) = changes.difference(before, saved(tmp_path / "b.pt", {"w": weight.bfloat16()}))
    assert change.status == "changed"
    assert change.relative is not None and change.relative < 0.005


def test_a_path_through_several_checkpoints(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frozen, walks = torch.from_numpy(rng.normal(size=(8, 8))), [torch.from_numpy(rng.normal(size=(50, 60)))]
    for _ in range(3):
        walks.append(walks[-1] + 0.1 * torch.from_numpy(rng.normal(size=(50, 60))))
    found = changes.trajectory(
        [saved(tmp_path / f"{i}.pt", {"frozen": frozen, "walks": w}) for i, w in enumerate(walks)]
    )
    path = {p.name: p for p in found}
    assert path["frozen"].frozen and path["frozen"].moved == (None, 0, 0, 0)
    first = walks[0]
    expected = [float((w - first).norm() / first.norm()) for w in walks]
    assert path["walks"].travelled == pytest.approx(tuple(expected))
    assert path["walks"].moved[2] == pytest.approx(float((walks[2] - walks[1]).norm() / first.norm()))
    assert path["walks"].norms[3] == pytest.approx(float(walks[3].norm()))
    assert not path["walks"].frozen
    cosines = path["walks"].cosine
    assert cosines[0] == pytest.approx(1) and cosines[3] is not None and cosines[3] < 1


def test_large_tensors_are_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of other sizes give the same numbers."""
    before = saved(tmp_path / "a.pt", {"w": torch.arange(10_000.0)})
    after = saved(tmp_path / "b.pt", {"w": torch.arange(10_000.0) * 2})
    whole = list(changes.difference(before, after))
    monkeypatch.setattr(changes, "BLOCK", 4000)
    assert max(len(blocks[0]) for blocks in changes.aligned(before.tensors)) <= 1000
    (small,) = changes.difference(before, after)
    assert small.relative == pytest.approx(whole[0].relative) == pytest.approx(1)


def command(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["checkpoint", *arguments], prog_name="analyze")
    assert done.exit_code == 0, done.output
    return done.output


def test_two_files_are_compared_and_more_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        saved(
            Path(f"{i}.pt"), {"stays": torch.ones(4, 4), "moves": torch.ones(3) + i, f"own{i}": torch.ones(1)}
        )
    text = command("0.pt", "1.pt")
    assert "1 changed; 1 identical; 1 only in the second; 1 only in the first" in text
    document = json.loads(command("0.pt", "1.pt", "--json"))
    assert {c["name"]: c["status"] for c in document["changes"]}["stays"] == "identical"
    assert next(c for c in document["changes"] if c["name"] == "moves")["relative"] == pytest.approx(1)
    rows = list(csv.DictReader(command("0.pt", "1.pt", "--csv", "--layer", "mo*").splitlines()))
    assert [row["name"] for row in rows] == ["moves"]
    text = command("0.pt", "1.pt", "2.pt")
    assert "never changed: stays" in text and "200" in text.split("moves", 1)[1]
    path = json.loads(command("0.pt", "1.pt", "2.pt", "--json"))
    assert [p["travelled"] for p in path["trajectory"] if p["name"] == "moves"] == [[0, 1, 2]]
    rows = list(csv.DictReader(command("0.pt", "1.pt", "2.pt", "--csv").splitlines()))
    assert len(rows) == 6 and {row["checkpoint"] for row in rows} == {"0.pt", "1.pt", "2.pt"}
    assert len(json.loads(command("0.pt", "1.pt", "--each", "--json"))) == 2


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "a.pt", {"w": torch.ones(2)})
    (tmp_path / "b.pt").write_text("no checkpoint")
    done = CliRunner().invoke(cli, ["checkpoint", str(tmp_path / "a.pt"), str(tmp_path / "b.pt")])
    assert done.exit_code == 3 and "b.pt" in done.output and "Traceback" not in done.output


def test_names_from_the_file_do_not_steer_the_terminal_or_a_spreadsheet(tmp_path: Path) -> None:
    saved(tmp_path / "a.pt", {"=cmd()\x1b[2J": torch.ones(2)})
    saved(tmp_path / "b.pt", {"=cmd()\x1b[2J": torch.zeros(2)})
    files = (str(tmp_path / "a.pt"), str(tmp_path / "b.pt"))
    assert "\x1b" not in command(*files)
    (row,) = csv.DictReader(command(*files, "--csv").splitlines())
    assert row["name"].startswith("'=cmd()") and "\x1b" not in row["name"]
