"""How formats are found: in order, one at a time, those of other packages among them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import events

from analyzer import ingest

ROOT = Path(__file__).parents[1]
PLUGIN = """
NAME, SUMMARY, ORDER = "dice", "rolls of dice", 1
def claims(path, head): return path.suffix == ".dice"
def read(path): raise NotImplementedError
"""


def test_the_order_is_that_of_the_modules() -> None:
    found = ingest.ingestors()
    assert [i.ORDER for i in found] == sorted(i.ORDER for i in found)
    names = {m.stem for m in Path(ingest.__file__).parent.glob("*.py") if m.stem != "__init__"}
    modules = [importlib.import_module(f"analyzer.ingest.{name}") for name in sorted(names)]
    formats = {m.NAME for m in modules if hasattr(m, "claims") and hasattr(m, "read")}
    assert {i.NAME for i in found} == formats


def test_a_format_of_another_package_is_asked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dice_format.py").write_text(PLUGIN)
    told = tmp_path / "dice-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: dice\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[analyzer.ingest]\ndice = dice_format\n")
    monkeypatch.syspath_prepend(tmp_path)
    for cached in (ingest._order, ingest.ingestors):
        cached.cache_clear()
    try:
        found = ingest.ingestor_for(Path("a.dice"), b"")
        assert found is not None and found.NAME == "dice"
    finally:
        monkeypatch.undo()
        for cached in (ingest._order, ingest.ingestors):
            cached.cache_clear()
    assert ingest.ingestor_for(Path("a.dice"), b"") is None


def test_reading_event_files_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    events(tmp_path / "exp", tags=("train/loss", "val/loss", "lr"))
    unneeded = [
        "analyzer.pipeline",
        "analyzer.rulebook",
        "analyzer.features",
        "analyzer.ingest.stdout",
        "shutil",
    ]
    code = f"import sys, analyzer; assert analyzer.read('exp')\nprint([m for m in {unneeded} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr
