"""Audits: the same answers as a diagnosis, nothing read twice, nothing lost, one bad run costs only itself."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import falling, overfitting, table

import analyzer
from analyzer.auditing import course, engines, examine, supervise, versions
from analyzer.auditing.course import Audit, Options, audit
from analyzer.auditing.engines import Engine, EngineError, outcomes
from analyzer.auditing.ledger import Entry, LedgerError, default_place, open_ledger, read_ledger
from analyzer.auditing.outputs import documents
from analyzer.auditing.tasks import Bundle, Examine, Outcome, Settings, Task
from analyzer.auditing.work import BATCH, Plan, batches, planned
from analyzer.discover import Discovery
from analyzer.report.json_report import report_document, strict

SAMPLES = Path(__file__).parent.parent / "sample_logs"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks done in this process: what they come to is the same, and tests are fast."""
    monkeypatch.setattr(course, "Crew", Here)


class Here(supervise.Crew):
    """A crew without processes."""

    def start(self, count: int) -> None:
        pass

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        for task in tasks:
            if isinstance(task, Examine):
                yield examine.examine(task.bundle, self.settings, task.tails)
            else:
                yield examine.judge(task.path, task.runs, self.settings)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four runs, two of them overfitting."""
    root = tmp_path / "runs"
    for number in range(4):
        folder = root / f"group{number % 2}" / f"run{number}"
        if number < 2:
            overfitting(folder / "log.csv")
        else:
            table(folder / "log.csv", {"loss": falling, "val_loss": lambda x: falling(x) + 0.1})
        (folder / "config.json").write_text(json.dumps({"lr": 10.0**-number, "seed": number}))
    return root


def audited(tree: Path, **options: Any) -> Audit:
    options.setdefault("ledger", tree.parent / "ledger.sqlite")
    return audit([tree], Options(**options))


def told(found: Audit) -> list[Any]:
    return list(documents(found))


def rewritten_unseen(path: Path) -> None:
    """Other content of the same size and time: only who reads the file can tell."""
    stat = path.stat()
    path.write_bytes(b"\0" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


# --------------------------------------------------------------------------- the same answers


@pytest.mark.usefixtures("in_process")
def test_an_audit_says_of_each_run_what_a_diagnosis_says(tmp_path: Path) -> None:
    found = audit([SAMPLES], Options(ledger=tmp_path / "ledger"))
    report = analyzer.analyze(SAMPLES)
    expected = strict(report_document(report))
    assert told(found) == expected["runs"]
    assert {(p.path, p.kind) for p in found.problems} == {
        (p["path"], p["kind"]) for p in expected["problems"]
    }
    assert found.insight == report.insight


@pytest.mark.usefixtures("in_process")
def test_judging_anew_says_what_reading_anew_says(tmp_path: Path) -> None:
    whole = Options(ledger=tmp_path / "one")
    first = audit([SAMPLES], whole)
    audit([SAMPLES], replace(whole, ignore=("overfitting", "nan-loss")))
    again = audit([SAMPLES], whole)
    assert again.counts.judged > 30 and again.counts.read == 0
    assert told(again) == told(first)
    assert again.records == first.records


# --------------------------------------------------------------------------- nothing read twice


@pytest.mark.usefixtures("in_process")
def test_what_has_not_changed_is_not_read(tree: Path) -> None:
    first = audited(tree)
    for log in tree.rglob("*.csv"):
        rewritten_unseen(log)
    again = audited(tree)
    assert (first.counts.read, again.counts.read, again.counts.unchanged) == (4, 0, 4)
    assert told(again) == told(first)


@pytest.mark.usefixtures("in_process")
def test_a_run_that_changed_is_read_and_the_others_are_not(tree: Path) -> None:
    audited(tree)
    overfitting(tree / "group1/run3/log.csv")
    shutil.rmtree(tree / "group0/run0")
    overfitting(tree / "new/log.csv")
    again = audited(tree)
    assert (again.counts.read, again.counts.unchanged) == (2, 2)
    sick = {record.name for record in again.records if record.verdict == "warning"}
    assert sick == {"group1/run1", "group1/run3", "new"}
    assert len(again.records) == 4
    with closing(read_ledger(again.ledger)) as ledger:
        assert len(ledger.entries()) == 4, "what is gone is forgotten"


@pytest.mark.usefixtures("in_process")
def test_hyperparameters_are_part_of_what_is_looked_at(tree: Path) -> None:
    audited(tree)
    (tree / "group0/run2/config.json").write_text('{"lr": 0.5, "seed": 7}')
    again = audited(tree)
    assert again.counts.read == 1
    changed = next(r for r in again.records if r.name == "group0/run2")
    assert changed.member.hyperparameters == {"lr": 0.5, "seed": 7}


@pytest.mark.usefixtures("in_process")
def test_changed_rules_are_applied_without_reading(tree: Path) -> None:
    audited(tree)
    for log in tree.rglob("*.csv"):
        rewritten_unseen(log)
    again = audited(tree, ignore=("overfitting",))
    assert (again.counts.read, again.counts.judged) == (0, 4)
    assert not any(f["rule"] == "overfitting" for r in again.records for f in r.findings)
    assert {r.verdict for r in again.records} == {"healthy"}
    assert audited(tree, ignore=("overfitting",)).counts.unchanged == 4, "also where the rules said the same"


@pytest.mark.usefixtures("in_process")
def test_rules_that_ask_for_what_was_not_measured_have_the_run_read(tree: Path) -> None:
    audited(tree, select=("nan-loss",))
    again = audited(tree)
    assert again.counts.read == 4 and again.counts.judged == 0
    assert told(again) == told(audited(tree, ledger=tree.parent / "fresh"))


@pytest.mark.usefixtures("in_process")
def test_other_roles_mean_reading_again(tree: Path) -> None:
    audited(tree)
    again = audited(tree, roles=(("val_loss", "train_loss"),))
    assert again.counts.read == 4


@pytest.mark.usefixtures("in_process")
def test_code_that_reads_otherwise_means_reading_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audited(tree)
    monkeypatch.setattr(course, "reader_version", lambda roles: "another")
    assert audited(tree).counts.read == 4


def test_versions_change_with_the_code_they_speak_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "analyzer"
    shutil.copytree(Path(versions.__file__).parent.parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(versions.resources, "files", lambda package: copy)

    def both() -> tuple[str, str]:
        versions._code.cache_clear()
        versions._reading.cache_clear()
        return versions.reader_version({}), versions.rules_version(())

    def changed(name: str) -> tuple[bool, bool]:
        before = both()
        with (copy / name).open("a") as file:
            file.write("# more\n")
        after = both()
        return before[0] != after[0], before[1] != after[1]

    try:
        assert changed("features/gap.py") == (True, False)
        assert changed("roles.yaml") == (True, False)
        assert changed("auditing/record.py") == (True, False)
        assert changed("rulebook/evaluate.py") == (False, True)
        assert changed("auditing/examine.py") == (False, True)
        assert changed("report/terminal.py") == (False, False)
        assert all(
            (copy / name).exists() for name in (*versions.TELLING, *versions.KEEPING, *versions.JUDGING)
        )
    finally:
        versions._code.cache_clear()
        versions._reading.cache_clear()


@pytest.mark.usefixtures("in_process")
def test_paths_are_told_as_they_were_given(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "broken.csv").write_text("")
    absolute = audited(tree)
    monkeypatch.chdir(tree.parent)
    relative = audit(["runs"], Options(ledger=absolute.ledger))
    assert relative.counts.read == 0, "one ledger for all spellings of a path"
    assert [d["path"] for d in told(relative)] == [
        d["path"].replace(tree.as_posix(), "runs") for d in told(absolute)
    ]
    assert {r.path for r in relative.records} == {d["path"] for d in told(relative)}
    assert [p.path for p in relative.problems] == ["runs/broken.csv"]


@pytest.mark.usefixtures("in_process")
def test_a_part_of_a_tree_is_named_for_itself_whatever_the_ledger_knows(tree: Path) -> None:
    whole = audited(tree)
    part = audit([tree / "group0"], Options(ledger=whole.ledger))
    assert [r.name for r in part.records] == ["run0", "run2"]
    assert len(audited(tree).records) == 4, "the rest was not forgotten"


@pytest.mark.usefixtures("in_process")
def test_an_archive_is_audited_as_it_is_analysed(tree: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "packed"), "zip", tree)
    archive = tmp_path / "packed.zip"
    found = audit([archive], Options(ledger=tmp_path / "l"))
    assert told(found) == strict(report_document(analyzer.analyze(archive)))["runs"]
    assert audit([archive], Options(ledger=tmp_path / "l")).counts.unchanged == 1


# --------------------------------------------------------------------------- which runs


@pytest.mark.usefixtures("in_process")
def test_a_limit_takes_the_runs_changed_last(tree: Path) -> None:
    for number, folder in enumerate(sorted(tree.glob("*/*"))):
        for file in folder.iterdir():
            os.utime(file, (1e9 + number, 1e9 + number))
    found = audited(tree, limit=2)
    assert {r.name for r in found.records} == {"group1/run1", "group1/run3"}
    since = audited(tree, since=1e9 + 0.5, ledger=tree.parent / "other")
    assert {r.name for r in since.records} == {"group0/run2", "group1/run1", "group1/run3"}


@pytest.mark.usefixtures("in_process")
def test_leaving_runs_out_forgets_none(tree: Path) -> None:
    audited(tree)
    assert audited(tree, limit=1).counts.found == 1
    assert audited(tree).counts.unchanged == 4


@pytest.mark.usefixtures("in_process")
def test_a_condition_on_hyperparameters(tree: Path) -> None:
    found = audited(tree, where="lr < 0.5 and seed != 2")
    assert {r.name for r in found.records} == {"group1/run1", "group1/run3"}
    assert len(told(found)) == 2
    assert found.insight.prevalence[0].of == 2


@pytest.mark.usefixtures("in_process")
def test_shards_share_the_runs_and_merge_into_one_audit(tree: Path, tmp_path: Path) -> None:
    for number in range(20):
        table(tree / f"more{number}/log.csv")
    whole = audited(tree)
    parts = [audited(tree, shard=(k, 3), ledger=tmp_path / f"{k}.sqlite") for k in (1, 2, 3)]
    names = [r.name for part in parts for r in part.records]
    assert sorted(names) == sorted(r.name for r in whole.records), "each run in one shard"
    assert all(part.records for part in parts)
    with open_ledger(tmp_path / "all.sqlite") as ledger:
        for part in parts:
            ledger.take(part.ledger)
            ledger.take(part.ledger)
    merged = audited(tree, ledger=tmp_path / "all.sqlite")
    assert merged.counts.read == 0
    assert told(merged) == told(whole)


# --------------------------------------------------------------------------- one bad run costs only itself


@pytest.fixture
def misbehaving(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("hangs", "crashes", "eats"):
        table(tree / name / "log.csv")
    monkeypatch.setattr(supervise, "MODULE", "audit_children")
    return tree


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process to its memory limit")
def test_runs_that_hang_crash_or_eat_memory_cost_only_themselves(misbehaving: Path) -> None:
    found = audited(misbehaving, timeout=8.0, memory=1 << 30)
    assert (found.counts.read, found.counts.failed, len(found.records)) == (7, 3, 4)
    kinds = {Path(p.path).name: p.kind for p in found.problems}
    assert kinds == {"hangs": "timed-out", "crashes": "killed", "eats": "killed"}
    messages = {p.kind: p.message for p in found.problems}
    assert "8 seconds" in messages["timed-out"]
    unchanged = audited(misbehaving, timeout=8.0, memory=1 << 30)
    assert unchanged.counts.read == 0 and unchanged.problems == found.problems, "not tried again for nothing"
    known = _entries(found.ledger)
    bundles = [Bundle(path, fingerprint=entry.fingerprint) for path, entry in known.items()]
    patient = Settings(reader=next(e.reader for e in known.values() if e.state == "done"), timeout=900.0)
    again = {Path(p.bundle.path).name for p in planned(bundles, known, patient, "") if not p.entry}
    assert again == {"hangs", "crashes", "eats"}, "other limits are another chance"


def _entries(path: Path) -> dict[str, Entry]:
    with closing(read_ledger(path)) as ledger:
        return ledger.entries()


def test_processes_say_what_one_says(tree: Path, tmp_path: Path) -> None:
    alone = audited(tree, ledger=tmp_path / "one.sqlite")
    together = audited(tree, ledger=tmp_path / "two.sqlite", engine=Engine(jobs=2))
    assert told(together) == told(alone)
    assert together.counts == alone.counts
    judged = audited(tree, ledger=tmp_path / "two.sqlite", engine=Engine(jobs=2), ignore=("overfitting",))
    assert judged.counts.judged == 4


def _bundles(tree: Path) -> list[Examine]:
    return [Examine(course.bundle(group, [tree])) for group in course.discover([tree]).groups]


def test_a_process_that_died_without_work_is_replaced_and_no_run_blamed(tree: Path) -> None:
    with closing(supervise.Crew(Settings(roots=(str(tree),)), 1)) as crew:
        assert {o.state for o in crew.outcomes(_bundles(tree))} == {"done"}
        crew.children[0].process.kill()
        crew.children[0].process.wait()
        assert [o.state for o in crew.outcomes(_bundles(tree))] == ["done"] * 4


def test_no_more_processes_are_started_than_there_are_runs(tree: Path) -> None:
    with closing(supervise.Crew(Settings(roots=(str(tree),)), 50)) as crew:
        assert len(list(crew.outcomes(_bundles(tree)))) == 4
        assert len(crew.children) == 4


def test_processes_start_while_runs_are_looked_for_only_where_there_will_be_work(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    looked: list[int] = []
    start, discover = supervise.Crew.start, course.discover

    def counting(crew: supervise.Crew, count: int) -> None:
        start(crew, count)
        started.append(len(crew.children))

    def looking(paths: list[Path]) -> Discovery:
        looked.append(max(started, default=0))
        return discover(paths)

    monkeypatch.setattr(supervise.Crew, "start", counting)
    monkeypatch.setattr(course, "discover", looking)
    audited(tree, engine=Engine(jobs=50))
    assert looked == [course.EARLY]
    assert max(started) <= 4
    started.clear()
    assert audited(tree, engine=Engine(jobs=50)).counts.unchanged == 4
    assert not started
    assert audited(tree, engine=Engine(jobs=50), ignore=("overfitting",)).counts.judged == 4
    assert looked == [course.EARLY, 0, course.EARLY]


def test_processes_that_do_not_start_are_an_error(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "MODULE", "no_such_module")
    with pytest.raises(EngineError, match="does not start"):
        audited(tree)


# --------------------------------------------------------------------------- engines that fail


def _tasks(count: int) -> list[list[Examine]]:
    return [[Examine(Bundle(f"{k}-{i}")) for i in range(4)] for k in range(count)]


def _failing(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    """An engine that dies ``failures`` times, each time after two batches."""
    left = [failures]

    def parallel(self: Any, numbered: Iterator[Any], settings: Settings) -> Iterator[Any]:
        for done, (number, tasks) in enumerate(numbered):
            if done == 2 and left[0]:
                left[0] -= 1
                raise RuntimeError("a worker died")
            yield number, [Outcome(task.path) for task in tasks]

    monkeypatch.setattr(engines, "_cluster", lambda engine: nullcontext())
    monkeypatch.setattr(engines._workers, "_parallel", parallel)


def test_what_dead_workers_had_is_done_again_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, 3)
    given = _tasks(20)
    done = [o.path for o in outcomes(given, list, supervise.Crew(Settings(), 1), Engine("dask"))]
    assert sorted(done) == sorted(task.path for batch in given for task in batch)


def test_an_engine_that_does_nothing_but_die_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def parallel(self: Any, numbered: Iterator[Any], settings: Settings) -> Iterator[Any]:
        next(numbered)
        raise RuntimeError("no worker")
        yield

    monkeypatch.setattr(engines, "_cluster", lambda engine: nullcontext())
    monkeypatch.setattr(engines._workers, "_parallel", parallel)
    with pytest.raises(EngineError, match="no worker"):
        list(outcomes(_tasks(3), list, supervise.Crew(Settings(), 1), Engine("dask")))


def test_batches_hold_every_plan_once_and_a_heavy_one_alone() -> None:
    plans = [Plan(Bundle(str(k), bytes=size)) for k, size in enumerate([10**10, *[10**6] * 300])]
    found = list(batches(plans, 2))
    assert [plan for batch in found for plan in batch] == plans
    assert len(found[0]) == 1
    assert max(sum(p.weight for p in batch) for batch in found[1:]) <= BATCH


# --------------------------------------------------------------------------- the ledger


def test_a_second_audit_at_once_is_refused(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "l.sqlite"), pytest.raises(LedgerError, match=r"another audit.*process"):
        open_ledger(tmp_path / "l.sqlite").__enter__()
    with open_ledger(tmp_path / "l.sqlite"):
        pass  # free again


def test_what_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all, but precious\n" * 50)
    other = tmp_path / "other.sqlite"
    import sqlite3

    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE precious(x)")
        connection.commit()
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(LedgerError) as told, open_ledger(path):
            pass
        assert path.read_bytes() == before
        assert "give another place" in str(told.value) or "delete it" not in str(told.value)


@pytest.mark.usefixtures("in_process")
def test_ledgers_of_earlier_versions_are_migrated_and_later_ones_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analyzer.auditing import ledger as module

    now = module.MIGRATIONS
    first = audited(tree)
    monkeypatch.setattr(module, "MIGRATIONS", (*now, "ALTER TABLE bundles ADD COLUMN note TEXT;"))
    with pytest.raises(LedgerError, match="earlier version"):
        read_ledger(first.ledger)
    with open_ledger(first.ledger) as ledger:
        assert len(ledger.entries()) == 4
        assert ledger.connection.execute("SELECT count(note) FROM bundles").fetchone() == (0,)
    monkeypatch.setattr(module, "MIGRATIONS", now)
    with pytest.raises(LedgerError, match="later version"), open_ledger(first.ledger):
        pass


@pytest.mark.usefixtures("in_process")
def test_a_damaged_ledger_is_named_and_may_be_deleted(tree: Path) -> None:
    first = audited(tree)
    first.ledger.write_bytes(first.ledger.read_bytes()[:5000])
    for beside in ("-wal", "-shm"):
        first.ledger.with_name(first.ledger.name + beside).unlink(missing_ok=True)
    with pytest.raises(LedgerError, match="delete it"):
        audited(tree)
    first.ledger.unlink()
    assert audited(tree).counts.read == 4


def test_the_ledger_lies_in_the_folder_audited_or_in_the_cache(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_place([str(tree)]) == tree / ".analyzer" / "audit.sqlite"
    assert default_place([str(tree), "s3://bucket"]).is_relative_to(tmp_path / "cache")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert default_place([str(tree)]).is_relative_to(tmp_path / "cache")


@pytest.mark.usefixtures("in_process")
def test_the_ledger_in_the_tree_is_no_run(tree: Path) -> None:
    audit([tree], Options())
    assert (tree / ".analyzer/audit.sqlite").exists()
    again = audit([tree], Options())
    assert again.counts.found == 4 and not again.problems


# --------------------------------------------------------------------------- killed at any moment


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_an_audit_killed_again_and_again_ends_as_an_undisturbed_one(tree: Path, tmp_path: Path) -> None:
    for number in range(60):
        (overfitting if number % 3 else table)(tree / f"more{number}" / "log.csv")
    expected = audited(tree, engine=Engine(jobs=2))
    ledger, rng = tmp_path / "killed.sqlite", random.Random(0)
    command = [sys.executable, "-m", "analyzer", "audit", str(tree), "-q", "-j", "2", "--ledger", str(ledger)]
    for _ in range(4):
        process = subprocess.Popen(command, cwd=SAMPLES.parent, stdout=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.3, 4))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
    found = audited(tree, ledger=ledger)
    assert told(found) == told(expected)
    assert found.records == expected.records
    assert found.insight == expected.insight


def test_a_kill_between_commits_leaves_whole_bundles(tree: Path, tmp_path: Path) -> None:
    """What was put and not committed is not there; what was committed is."""
    path = tmp_path / "l.sqlite"
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from analyzer.auditing.ledger import open_ledger\n"
        "from analyzer.auditing.tasks import Bundle, Kept, Outcome\n"
        "with open_ledger(Path(sys.argv[1])) as ledger:\n"
        "    for k in range(6):\n"
        "        runs = (Kept('{}', b'd', b'f'), Kept('{}', b'd', b'f'))\n"
        "        ledger.put(Bundle(str(k)), Outcome(str(k), runs=runs), 'r', 'x')\n"
        "        if k == 3: ledger.commit()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=SAMPLES.parent, check=False)
    with closing(read_ledger(path)) as ledger:
        entries = ledger.entries()
        assert sorted(entries) == ["0", "1", "2", "3"]
        assert all(len(ledger.runs(entry.id)) == 2 for entry in entries.values())
