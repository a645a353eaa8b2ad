"""The generated pages are current, and what the README shows works."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_generated_pages_are_current():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.stale() == [], "run python docs/generate.py"


def test_links_of_the_documentation_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_s_python_runs(monkeypatch, tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert code
    torch = pytest.importorskip("torch")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "log.csv").write_text(
        "epoch,loss\n" + "".join(f"{i},{1 / (i + 1)}\n" for i in range(30))
    )
    torch.save({"fc.weight": torch.ones(4, 4)}, tmp_path / "best.ckpt")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code[1], "README.md", "exec"), names)  # our own text
    assert [run.run.name for run in names["report"].runs] == ["runs"] or names["report"].runs
    assert len(names["layers"]) == 1
