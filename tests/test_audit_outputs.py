"""What an audit writes: each format says the same, hostile names do no harm, size is bounded."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from click.testing import CliRunner
from small_runs import falling, overfitting, table

from analyzer.auditing import course, outputs, summary
from analyzer.auditing.changes import changes, findings_of
from analyzer.auditing.course import Audit, Options, audit
from analyzer.auditing.progress import Progress, duration
from analyzer.cli import cli
from analyzer.model import Problem
from analyzer.report import audit_html

SCHEMA = Path(audit_html.__file__).parent / "assets" / "report.schema.json"
HOSTILE = "<script>alert(1)</script>&\u202e"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_audit import Here

    monkeypatch.setattr(course, "Crew", Here)


@pytest.fixture
def found(tmp_path: Path, in_process: None) -> Audit:
    root = tmp_path / "runs"
    for number in range(3):
        overfitting(root / f"sick{number}" / "log.csv")
        table(root / f"well{number}" / "log.csv", {"loss": falling, "val_loss": lambda x: falling(x) + 0.1})
    overfitting(root / HOSTILE.replace("/", "_") / "log.csv")
    (root / "broken.csv").write_text("")
    return audit([root], Options(ledger=tmp_path / "l.sqlite"))


def written(found: Audit, name: str, tmp_path: Path) -> Path:
    target = tmp_path / f"out{outputs.SUFFIXES[name]}"
    outputs.write(found, name, target, io.StringIO(), False)
    assert not list(tmp_path.glob(".out*")), "nothing half-written is left"
    return target


def test_json_has_the_shape_of_a_report_and_more(found: Audit, tmp_path: Path) -> None:
    document = json.loads(written(found, "json", tmp_path).read_text())
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert [run["name"] for run in document["runs"]] == [r.name for r in found.records]
    assert document["audit"]["found"] == 8 and document["insight"]["prevalence"][0]["runs"] == 4
    assert "sketches" not in document["runs"][0]


def test_json_lines_are_the_runs_of_the_json(found: Audit, tmp_path: Path) -> None:
    document = json.loads(written(found, "json", tmp_path).read_text())
    lines = written(found, "jsonl", tmp_path).read_text().splitlines()
    assert [json.loads(line) for line in lines] == document["runs"]


def test_parquet_holds_one_row_a_run(found: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(outputs, "ROWS", 2)
    rows = parquet.read_table(written(found, "parquet", tmp_path)).to_pylist()
    assert [row["name"] for row in rows] == [r.name for r in found.records]
    sick = [row for row in rows if row["warning"]]
    assert len(sick) == 4 and sick[0]["findings"][0]["rule"] == "overfitting"
    assert sick[0]["wasted_by"] == "overfitting" and 0 < sick[0]["wasted_share"] < 1


def test_junit_fails_the_sick_runs(found: Audit, tmp_path: Path) -> None:
    suite = ElementTree.parse(written(found, "junit", tmp_path)).getroot()[0]
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert failed == {outputs.plain_block(r.name) for r in found.records if r.verdict == "warning"}
    assert (suite.get("failures"), suite.get("errors"), suite.get("tests")) == ("4", "1", "8")


def test_junit_skips_files_that_are_nothing_of_ours(found: Audit, tmp_path: Path) -> None:
    readme = Problem("runs/README.md", "passed-over", "neither log nor checkpoint")
    written_suite = written(replace(found, problems=(readme,)), "junit", tmp_path)
    suite = ElementTree.parse(written_suite).getroot()[0]
    skipped = [case for case in suite if case.find("skipped") is not None]
    assert suite.get("errors") == "0" and suite.get("skipped") == str(len(skipped)) == "1"


def test_the_terminal_gets_counts_findings_and_no_control_characters(found: Audit) -> None:
    text = summary.render(found, width=100)
    assert "7 runs: 4 warning, 3 healthy" in text and "8 logs read" in text
    assert re.search(r"overfitting +4 +57%", text)
    assert "\u202e" not in text and "\\u202e" in text


def test_the_end_of_a_long_name_is_seen_on_a_narrow_terminal(tmp_path: Path, in_process: None) -> None:
    overfitting(
        tmp_path / "runs" / "a-project-of-some-length" / "lightning_logs_of_it" / "version_17" / "log.csv"
    )
    overfitting(tmp_path / "runs" / "b" / "log.csv")
    text = summary.render(audit([tmp_path / "runs"], Options(ledger=tmp_path / "l")), width=60)
    assert re.search(r"version_17 +overfitting", text)


# --------------------------------------------------------------------------- the page


def page_data(text: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match
    return json.loads(match[1])  # type: ignore[no-any-return]


def details(data: dict[str, Any]) -> list[Any]:
    return [run for chunk in data["chunks"] for run in json.loads(zlib.decompress(base64.b64decode(chunk)))]


def test_the_page_holds_every_run_and_its_details(found: Audit, tmp_path: Path) -> None:
    data = page_data(written(found, "html", tmp_path).read_text())
    assert [data["verdicts"][v] for v in data["verdict"]] == [r.verdict for r in found.records]
    kept = details(data)
    for document, row, rules in zip(found.documents(), kept, data["rules"], strict=True):
        assert row[0] == outputs.plain_block(document["path"])
        assert [f[4] for f in row[1]] == [f["summary"] for f in document["findings"]]
        assert [data["rule"][r] for r in rules] == [f["rule"] for f in document["findings"]]
        assert all(len(curve[-1]) % 4 == 0 and curve[-1] for curve in row[5])


def test_a_hostile_name_is_text(found: Audit, tmp_path: Path) -> None:
    text = written(found, "html", tmp_path).read_text()
    assert "<script>alert" not in text and "\u202e" not in text
    assert any("<script>alert(1)<" in name for name in page_data(text)["name"])
    assert "default-src &#39;none&#39;" in text and "http-equiv" in text


def test_what_is_too_much_for_a_page_goes_to_others(
    found: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = page_data(written(found, "html", tmp_path).read_text())
    monkeypatch.setattr(audit_html, "CHUNK", 2)
    monkeypatch.setattr(audit_html, "MOST_BYTES", 4000)
    index = page_data(written(found, "html", tmp_path).read_text())
    parts = sorted((tmp_path / "out_runs").iterdir())
    assert index["name"] == whole["name"] and len(parts) > 1
    assert len(index["elsewhere"]) == 4, "every chunk is somewhere"
    kept = details(index)
    for part in parts:
        data = page_data(part.read_text())
        assert f"out_runs/{part.name}" in index["elsewhere"]
        assert data["first"] == len(kept) and len(data["name"]) == len(details(data))
        kept += details(data)
    assert kept == details(whole)


def test_sketches_keep_their_extremes_and_order() -> None:
    steps = [float(k) for k in range(50)]
    values = [1.0] * 20 + [9.0] + [1.0] * 28 + [-3.0]
    thumb = audit_html.thumbnail({"role": "", "tag": "t", "steps": steps, "values": values})
    assert len(thumb) == audit_html.THUMB
    heights = [audit_html.DIGITS.index(c) for c in thumb]
    assert heights.index(max(heights)) == round(20 / 49 * (audit_html.THUMB - 1))
    assert heights.index(min(heights)) == audit_html.THUMB - 1
    assert audit_html.thumbnail({"role": "", "tag": "t", "steps": [0.0], "values": [None]}) == ""


# --------------------------------------------------------------------------- changes


def test_what_changed_between_two_audits(found: Audit, tmp_path: Path) -> None:
    before = written(found, "json", tmp_path).rename(tmp_path / "before.json")
    root = Path(found.paths[0])
    overfitting(root / "well0" / "log.csv")
    table(root / "sick0" / "log.csv", {"loss": falling, "val_loss": lambda x: falling(x) + 0.1})
    table(root / "new" / "log.csv")
    later = audit([root], Options(ledger=found.ledger))
    found_changes = changes(findings_of(before), findings_of(written(later, "jsonl", tmp_path)))
    assert ("well0", "overfitting") in {(c.run, c.rule) for c in found_changes.new}
    assert ("sick0", "overfitting") in {(c.run, c.rule) for c in found_changes.resolved}
    assert found_changes.added == ("new",) and found_changes.removed == ()
    assert findings_of(later.ledger) == findings_of(tmp_path / "out.jsonl"), "a ledger says the same"


def test_worse_and_eased_are_told_apart() -> None:
    old = {"a": {"x": "info", "y": "critical"}, "gone": {"x": "info"}}
    new = {"a": {"x": "critical", "y": "info"}}
    found = changes(old, new)
    assert [c.rule for c in found.worsened] == ["x"] and [c.rule for c in found.eased] == ["y"]
    assert found.removed == ("gone",) and not found.new and not found.resolved


# --------------------------------------------------------------------------- the command line


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="analyze")


@pytest.mark.usefixtures("in_process")
def test_the_command_tells_by_its_exit_code(tmp_path: Path) -> None:
    overfitting(tmp_path / "runs/a/log.csv")
    ledger = ("--ledger", tmp_path / "l", "-q", "-j", 1)
    assert run("audit", tmp_path / "runs", *ledger).exit_code == 0
    assert run("audit", tmp_path / "runs", *ledger, "--fail-on", "warning").exit_code == 1
    assert run("audit", tmp_path / "runs", *ledger, "--fail-on", "critical").exit_code == 0
    bad = run("audit", tmp_path / "runs", *ledger, "--where", "lr >")
    assert bad.exit_code == 2 and "^" in bad.output
    assert run("audit", tmp_path / "runs", *ledger, "--since", "yesterday").exit_code == 2
    assert run("audit", tmp_path / "runs", *ledger, "--shard", "3/2").exit_code == 2
    none = run("audit", tmp_path / "runs", *ledger, "--where", "lr > 5")
    assert none.exit_code == 0 and "No run fits" in none.output
    late = run("audit", tmp_path / "runs", *ledger, "--since", "2100-01-01")
    assert late.exit_code == 0 and "leaves out all 1" in late.output
    missing = run("audit", tmp_path / "nowhere", *ledger)
    assert missing.exit_code == 3 and "no such file" in missing.output


@pytest.mark.usefixtures("in_process")
def test_several_formats_at_once(tmp_path: Path) -> None:
    overfitting(tmp_path / "runs/a/log.csv")
    formats = [w for name in ("html", "json", "jsonl", "junit") for w in ("--report", name)]
    done = run("audit", tmp_path / "runs", "-q", "-j", 1, *formats, "-o", tmp_path / "out" / "r")
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["r.html", "r.json", "r.jsonl", "r.xml"]
    assert run("audit", tmp_path / "runs", "--report", "json", "--report", "jsonl").exit_code == 2
    run("audit", tmp_path / "runs", "-q", *formats[:4], "-o", tmp_path / "dotted" / "audit-v1.2")
    dotted = sorted(p.name for p in (tmp_path / "dotted").iterdir())
    assert dotted == ["audit-v1.2.html", "audit-v1.2.json"], (
        "what follows a dot in a name is no suffix of ours"
    )


@pytest.mark.usefixtures("in_process")
def test_diff_and_merge_from_the_command_line(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    table(root / "a" / "log.csv", {"loss": falling, "val_loss": lambda x: falling(x) + 0.1})
    options = (root, "-q", "-j", 1, "--report", "json", "-o")
    run("audit", *options, tmp_path / "old.json")
    overfitting(root / "a" / "log.csv")
    run("audit", *options, tmp_path / "new.json")
    files = (tmp_path / "old.json", tmp_path / "new.json")
    told = run("audit", "diff", *files)
    assert told.exit_code == 0 and "overfitting: a" in told.output
    assert run("audit", "diff", *files, "--fail-on", "warning").exit_code == 1
    assert run("audit", "diff", *reversed(files), "--fail-on", "warning").exit_code == 0
    assert json.loads(run("audit", "diff", *files, "--json").output)["new"][0]["rule"] == "overfitting"
    assert run("audit", "diff", files[0], root / "a" / "log.csv").exit_code == 2
    merged = run("audit", "merge", root / ".analyzer/audit.sqlite", "--ledger", tmp_path / "all.sqlite")
    assert merged.exit_code == 0 and findings_of(tmp_path / "all.sqlite") == findings_of(files[1])


@pytest.mark.usefixtures("in_process")
def test_a_folder_named_audit_is_never_mistaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overfitting(Path("audit/a/log.csv"))
    overfitting(Path("runs/b/log.csv"))
    assert "overfitting" in run("audit").output and not Path("audit/.analyzer").exists()
    assert not Path("runs/.analyzer").exists()
    run("audit", "runs", "-q", "--jobs", 1)
    assert Path("runs/.analyzer").exists(), "an option that only the command has"
    run("audit", "audit", "-q", "-j", 1)
    assert Path("audit/.analyzer").exists()
    Path("diff").mkdir()
    overfitting(Path("diff/log.csv"))
    done = run("audit", "diff", "-q", "-j", 1)
    assert done.exit_code == 0 and Path("diff/.analyzer").exists()


# --------------------------------------------------------------------------- progress


class Stream(io.StringIO):
    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def progressed(terminal: bool) -> str:
    now = [0.0]
    stream = Stream(terminal)
    progress = Progress(stream, lambda: now[0])
    progress.begin(100, 1000.0)
    for number in range(50):
        now[0] += 5.0
        progress.step(f"run\x1b{number}", 10.0)
    progress.end()
    return stream.getvalue()


def test_one_line_a_minute_where_no_terminal_watches() -> None:
    lines = progressed(False).splitlines()
    assert len(lines) == 4
    assert lines[-1] == "48/100 runs  12.0 runs/min  4 min left"


def test_a_line_that_renews_itself_on_a_terminal() -> None:
    text = progressed(True)
    assert text.count("\r") >= 100 and "\n" not in text and "\x1b" not in text


@pytest.mark.parametrize(("seconds", "words"), [(3, "3 s"), (200, "3 min"), (7500, "2 h 05 min")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
