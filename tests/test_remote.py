"""URLs and archives are read as local folders are, under the names that were given."""

from __future__ import annotations

import gc
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import events, overfitting, table

import analyzer
from analyzer.errors import IngestError
from analyzer.model import Problem, Report, Run
from analyzer.pipeline import analyze_paths, diagnose_checkpoint, read_runs
from analyzer.remote import archives, limits, local_copies, masked, source, urls
from analyzer.rulebook import load_rules

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for temporary files, so that what is left over is seen."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs, one with a checkpoint, beside files that are nothing of ours."""
    folder = tmp_path / "given" / "runs"
    overfitting(folder / "exp1" / "metrics.csv")
    save(folder / "exp1" / "last.safetensors")
    events(folder / "exp2", tags=("train/loss", "val/loss"))
    (folder / "exp1" / "model.py").write_text("print('hello')\n")
    (folder / "exp1" / "notes.dat").write_bytes(bytes(range(256)) * 2000)
    (folder / ".git").mkdir()
    table(folder / ".git" / "hidden.csv")
    return folder


def save(path: Path, count: int = 100_000) -> Path:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"layer.weight": np.arange(count, dtype=np.float32).reshape(100, -1)}, path)
    return path


@pytest.fixture
def memory() -> Iterator[Callable[[Path], str]]:
    """Puts a folder or file into fsspec's file system in memory; gives its URL."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")

    def put(path: Path) -> str:
        members = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        for member in members:
            files.pipe_file(f"/bucket/{member.relative_to(path.parent).as_posix()}", member.read_bytes())
        return f"memory://bucket/{path.name}"

    yield put
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def zipped(folder: Path, to: Path) -> Path:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return to


def tarred(folder: Path, to: Path) -> Path:
    mode: Any = f"w:{to.suffix[1:]}" if to.suffix != ".tar" else "w"
    with tarfile.open(to, mode) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    return to


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def curves(runs: list[Run]) -> dict[tuple[str, str], list[float]]:
    return {(r.name, s.tag): [*s.steps.tolist(), *s.values.tolist()] for r in runs for s in r.series}


def findings(report: Report) -> list[tuple[str, str, str]]:
    return [(r.run.name, f.rule, f.summary) for r in report.runs for f in r.findings]


def kinds(problems: list[Problem]) -> set[tuple[str, str]]:
    return {(p.path, p.kind) for p in problems}


def shown(report: Report) -> str:
    """Everything in a report that some format shows or a user may look at."""
    from analyzer.report import formats

    runs = [r.run for r in report.runs]
    inside = [(r.path, r.files, r.problems, [c.path for c in r.checkpoints]) for r in runs]
    sources = [s.source for r in runs for s in (*r.series, *r.histograms)]
    layers = [layer.checkpoint for r in report.runs for layer in r.layers]
    rendered = [formats()[name].render(report, verbose=True) for name in ("json", "html", "csv")]
    return repr((inside, sources, layers, rendered))


# --- the same as a local read ----------------------------------------------------------------


def ways(runs: Path, memory: Callable[[Path], str]) -> dict[str, str]:
    """The same runs, under every kind of name."""
    home = runs.parent
    return {
        "memory": memory(runs),
        "file": runs.as_uri(),
        "zip": str(zipped(runs, home / "runs.zip")),
        "tar": str(tarred(runs, home / "runs.tar")),
        "tar.gz": str(tarred(runs, home / "runs.tar.gz")),
        "tar.bz2": str(tarred(runs, home / "runs.tar.bz2")),
        "tar.xz": str(tarred(runs, home / "runs.tar.xz")),
        "zip at a URL": memory(home / "runs.zip"),
        "tar.gz at a URL": memory(home / "runs.tar.gz"),
    }


@pytest.mark.parametrize(
    "way",
    ["memory", "file", "zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "zip at a URL", "tar.gz at a URL"],
)
def test_what_is_read_is_what_a_local_folder_gives(
    way: str, runs: Path, memory: Callable[[Path], str], temporary: Path
) -> None:
    local, given = analyze_paths([runs]), ways(runs, memory)[way]
    report = analyze_paths([given])
    assert findings(report) == findings(local) != []
    assert curves([r.run for r in report.runs]) == curves([r.run for r in local.runs])
    assert [r.layers[0].mean for r in report.runs if r.layers] == [49_999.5]
    assert [p.kind for p in report.problems] == [p.kind for p in local.problems] == ["passed-over"]
    name = str(source(given))
    assert {r.run.path for r in report.runs} == {f"{name}/exp1", f"{name}/exp2"}
    assert f"{name}/exp1/metrics.csv" in [f for r in report.runs for f in r.run.files]
    assert str(temporary) not in shown(report)
    assert list(temporary.iterdir()) == []


def test_a_single_file_at_a_url_is_a_run_under_its_url(memory: Callable[[Path], str], tmp_path: Path) -> None:
    url = memory(overfitting(tmp_path / "metrics.csv"))
    (run,) = analyzer.read(url)
    assert (run.path, run.files) == (url, (url,))
    assert curves([run]) == curves(analyzer.read(tmp_path / "metrics.csv"))


def test_urls_and_local_paths_go_together(runs: Path, memory: Callable[[Path], str]) -> None:
    report = analyze_paths([memory(runs), runs / "exp2", zipped(runs, runs.parent / "a.zip")])
    assert len(report.runs) == 5
    assert "analyze-" not in repr([(p.path, p.message) for p in report.problems])


def test_a_relative_archive_is_shown_as_it_was_given(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(runs, runs.parent / "a.zip")
    monkeypatch.chdir(runs.parent.parent)
    assert {r.path for r in analyzer.read("given/a.zip")} == {"given/a.zip/exp1", "given/a.zip/exp2"}
    monkeypatch.chdir(runs.parent)
    assert {r.path for r in analyzer.read("a.zip")} == {"a.zip/exp1", "a.zip/exp2"}


def test_an_archive_in_a_folder_is_not_opened(runs: Path) -> None:
    zipped(runs / "exp2", runs / "more.zip")
    assert {r.name for r in analyzer.read(runs)} == {"exp1", "exp2"}


def test_a_checkpoint_that_is_a_zip_is_a_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"policy.weight": torch.ones(3, 4)}, tmp_path / "policy.pth")
    with zipfile.ZipFile(tmp_path / "best_model.zip", "w") as archive:
        archive.writestr("data", "{}")
        archive.write(tmp_path / "policy.pth", "policy.pth")
    (run,) = analyzer.read(tmp_path / "best_model.zip")
    assert [t.shape for t in run.checkpoints[0].tensors] == [(3, 4)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("s3://bucket/runs", "s3://bucket/runs"),
        ("file:///data/my%20runs", Path("/data/my runs")),
        ("file://localhost/data", Path("/data")),
        ("runs/exp:1", Path("runs/exp:1")),
        (Path("runs"), Path("runs")),
    ],
)
def test_what_is_a_url(given: str | Path, expected: str | Path) -> None:
    assert source(given) == expected


# --- how long the files stay -----------------------------------------------------------------


@pytest.mark.parametrize("way", ["memory", "zip"])
def test_tensors_of_runs_stay_readable_as_long_as_there_are_any(
    way: str, runs: Path, memory: Callable[[Path], str], temporary: Path
) -> None:
    read = analyzer.read(ways(runs, memory)[way])
    (checkpoint,) = [c for run in read for c in run.checkpoints]
    del read
    gc.collect()
    values = np.concatenate(list(checkpoint.tensors[0].blocks(1000)))
    assert np.array_equal(values, np.arange(100_000))
    blocks = checkpoint.tensors[0].blocks(1000)
    del checkpoint
    gc.collect()
    assert len(list(blocks)) == 400  # even with nothing left but these
    del blocks
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_runs_without_tensors_leave_nothing_behind(tmp_path: Path, temporary: Path) -> None:
    table(tmp_path / "exp" / "metrics.csv")
    read = analyzer.read(zipped(tmp_path / "exp", tmp_path / "a.zip"))
    gc.collect()
    assert len(read) == 1
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_behind_when_reading_fails(
    runs: Path, temporary: Path, memory: Callable[[Path], str]
) -> None:
    with pytest.raises(KeyError), local_copies([memory(runs)]) as copies:
        assert copies.paths[0].is_dir()
        raise KeyError
    assert list(temporary.iterdir()) == []


def test_local_paths_make_no_temporary_folder(runs: Path, temporary: Path) -> None:
    with local_copies([runs]) as copies:
        assert copies.paths == [runs]
        assert list(temporary.iterdir()) == []


def test_a_checkpoint_at_a_url_is_inspected(
    tmp_path: Path, memory: Callable[[Path], str], temporary: Path
) -> None:
    url = memory(save(tmp_path / "last.safetensors"))
    checkpoint, layers = analyzer.inspect_checkpoint(url)
    assert (checkpoint.path, layers[0].checkpoint, layers[0].mean) == (url, url, 49_999.5)
    assert len(list(checkpoint.tensors[0].blocks(1000))) == 400
    assert diagnose_checkpoint(url, load_rules()).run.files == (url,)
    del checkpoint
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_broken_checkpoint_at_a_url_is_named_by_it(tmp_path: Path, memory: Callable[[Path], str]) -> None:
    path = save(tmp_path / "last.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    for url in (memory(path), "memory://bucket/nothing.ckpt"):
        with pytest.raises(IngestError) as caught:
            analyzer.inspect_checkpoint(url)
        assert str(caught.value).startswith(f"{url}: ")
        assert caught.value.path == url


# --- what is fetched -------------------------------------------------------------------------


def test_no_more_than_needed_is_fetched(
    runs: Path, memory: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    fetched: list[str] = []
    get_file = MemoryFileSystem.get_file

    def spy(self: Any, name: str, *rest: Any, **more: Any) -> Any:
        fetched.append(Path(name).name)
        return get_file(self, name, *rest, **more)

    url = memory(runs)
    monkeypatch.setattr(MemoryFileSystem, "get_file", spy)
    with local_copies([url]) as copies:
        (here,) = copies.paths
        assert (here / "exp1" / "notes.dat").stat().st_size == 4096  # its head decides
        assert (here / "exp1" / "model.py").stat().st_size == 0
        assert not (here / ".git").exists()
    events_file = next(p.name for p in (runs / "exp2").iterdir())
    assert sorted(fetched) == sorted(["metrics.csv", events_file, "last.safetensors"])


@pytest.mark.parametrize("way", ["memory", "zip"])
def test_a_checkpoint_over_the_cap_is_named_and_the_logs_are_read(
    way: str, runs: Path, memory: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHECKPOINT_BYTES", 300_000)
    url = ways(runs, memory)[way]
    found, problems = read_runs([url])
    assert {r.name for r in found} == {"exp1", "exp2"}
    assert [c for r in found for c in r.checkpoints] == []
    (problem,) = [p for p in problems if p.kind == "too-large"]
    assert "last.safetensors" in problem.path + problem.message


def test_first_and_last_checkpoint_come_before_the_others(
    tmp_path: Path, memory: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 10, 20):
        save(tmp_path / "exp" / f"step{step}.safetensors")
    monkeypatch.setattr(limits, "CHECKPOINTS_BYTES", 900_000)
    found, problems = read_runs([memory(tmp_path / "exp")])
    assert [Path(c.path).stem for r in found for c in r.checkpoints] == ["step1", "step20"]
    left = {Path(p.path).stem for p in problems if p.kind == "too-large"}
    assert left == {"step2", "step10"}


def test_a_listing_ends_somewhere(
    tmp_path: Path, memory: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        table(tmp_path / "exp" / str(i) / "metrics.csv")
    monkeypatch.setattr(limits, "MAX_MEMBERS", 3)
    found, problems = read_runs([memory(tmp_path / "exp")])
    assert len(found) == 3
    assert [p.kind for p in problems] == ["too-large"]


# --- what cannot be had ----------------------------------------------------------------------


def only_problem(given: str) -> Problem:
    found, problems = read_runs([given])
    assert found == []
    (problem,) = problems
    return problem


def test_nothing_at_the_url(memory: Callable[[Path], str]) -> None:
    problem = only_problem("memory://bucket/nothing")
    assert (problem.path, problem.kind) == ("memory://bucket/nothing", "missing")
    with pytest.raises(IngestError, match="memory://bucket/nothing: no such file"):
        analyzer.read("memory://bucket/nothing")


def test_a_missing_driver_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("fsspec")
    for module in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, module, None)
    assert "pip install 'training-log-analyzer[s3]'" in only_problem("s3://bucket/runs").message
    assert "pip install 'training-log-analyzer[gcs]'" in only_problem("gs://bucket/runs").message
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert "pip install 'training-log-analyzer[remote]'" in only_problem("memory://bucket/runs").message


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("nonsense://bucket/runs", "unsupported"),
        ("zip://runs::memory://bucket/runs.zip", "unsupported"),
        ("memory://bucket/../../etc", "unsafe"),
    ],
)
def test_urls_that_are_not_read(url: str, kind: str) -> None:
    pytest.importorskip("fsspec")
    assert only_problem(url).kind == kind


def failing(monkeypatch: pytest.MonkeyPatch, method: str, error: Exception) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, method, fail)


@pytest.mark.parametrize("method", ["info", "ls"])
def test_access_denied_is_said(
    method: str, runs: Path, memory: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = memory(runs)
    failing(monkeypatch, method, PermissionError("Forbidden"))
    problem = only_problem(url)
    assert (problem.path, problem.kind) == (url, "unreadable")
    assert "Forbidden" in problem.message


def test_a_file_that_cannot_be_fetched_costs_only_itself(
    tmp_path: Path, memory: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    get_file = MemoryFileSystem.get_file

    def fail(self: Any, name: str, *rest: Any, **more: Any) -> Any:
        if "bad" in name:
            raise RuntimeError("connection reset by https://host/key?X-Amz-Signature=secret")
        return get_file(self, name, *rest, **more)

    table(tmp_path / "exp" / "good" / "metrics.csv")
    table(tmp_path / "exp" / "bad" / "metrics.csv")
    url = memory(tmp_path / "exp")
    monkeypatch.setattr(MemoryFileSystem, "get_file", fail)
    found, (problem,) = read_runs([url])
    assert [r.name for r in found] == ["good"]
    assert (problem.path, problem.kind) == (f"{url}/bad/metrics.csv", "unreadable")
    assert "connection reset" in problem.message
    assert "secret" not in problem.message


def test_a_store_that_never_answers_is_given_up(
    runs: Path, memory: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from fsspec.implementations.memory import MemoryFileSystem

    url, asked_for = memory(runs), threading.Event()
    monkeypatch.setattr(urls, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *_, **__: asked_for.wait(30))
    assert "no answer" in only_problem(url).message
    asked_for.set()


def test_passwords_and_signatures_are_not_shown() -> None:
    assert masked("ftp://me:secret@host/runs") == "ftp://host/runs"
    assert masked("https://host/a.csv?X-Amz-Signature=secret") == "https://host/a.csv"
    assert masked("s3://bucket/a?b") == "s3://bucket/a?b"


def test_unsafe_keys_of_a_store_are_left(tmp_path: Path, memory: Callable[[Path], str]) -> None:
    import fsspec

    url = memory(table(tmp_path / "exp" / "metrics.csv").parent)
    fsspec.filesystem("memory").store["/bucket/exp/a\\..\\b.csv"] = fsspec.filesystem("memory").store[
        "/bucket/exp/metrics.csv"
    ]
    found, (problem,) = read_runs([url])
    assert len(found) == 1
    assert (problem.path, problem.kind) == (url, "unsafe")


# --- hostile archives ------------------------------------------------------------------------

CSV = b"epoch,loss\n" + b"".join(b"%d,%d.5\n" % (i, 30 - i) for i in range(20))
EVIL = ("../evil.csv", "a/../../evil.csv", "/evil.csv", "C:/evil.csv", "a\\..\\evil.csv", "x" * 300 + ".csv")


def outside(temporary: Path) -> list[Path]:
    return [p for p in (*temporary.rglob("*evil*"), Path("/evil.csv")) if p.exists()]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_names_that_lead_out_are_never_made(name: str, suffix: str, tmp_path: Path, temporary: Path) -> None:
    path = tmp_path / f"runs{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("exp/metrics.csv", CSV)
            archive.writestr(name, CSV)
    else:
        tar_of(path, (tarfile.TarInfo("exp/metrics.csv"), CSV), (tarfile.TarInfo(name), CSV))
    with local_copies([path]) as copies:
        made = [p for p in temporary.rglob("*") if p.is_file()]
        assert made == [copies.paths[0] / "exp" / "metrics.csv"]
        assert outside(temporary) == []
    found, (problem,) = read_runs([path])
    assert [r.path for r in found] == [f"{path}/exp"]
    assert (problem.path, problem.kind) == (str(path), "unsafe")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_never_made(kind: bytes, tmp_path: Path, temporary: Path) -> None:
    link = tarfile.TarInfo("exp")
    link.type, link.linkname = kind, str(tmp_path)
    inside = tarfile.TarInfo("exp/metrics.csv")  # through the link, were it one
    path = tar_of(tmp_path / "runs.tar.gz", (link, b""), (inside, CSV))
    with local_copies([path]) as copies:
        made = copies.paths[0] / "exp"
        assert made.is_dir()
        assert not made.is_symlink()
    assert not (tmp_path / "metrics.csv").exists()
    assert kinds(copies.problems) == {(f"{copies.paths[0]}", "unsafe")}


def test_links_in_a_zip_are_left(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("passwd.csv")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "runs.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("exp/metrics.csv", CSV)
    found, (problem,) = read_runs([tmp_path / "runs.zip"])
    assert len(found) == 1
    assert "link" in problem.message and "passwd.csv" in problem.message


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize("name", ["exp/zeros.csv", "exp/model.py"])
def test_bombs_are_left_before_they_fill_the_disk(
    name: str, suffix: str, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "RATIO_FLOOR", 1 << 20)
    path, zeros = tmp_path / f"runs{suffix}", b"epoch,loss\n" + b"0,0\n" * (24 << 18)
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/metrics.csv", CSV)
            archive.writestr(name, zeros)
    else:
        tar_of(path, (tarfile.TarInfo("a/metrics.csv"), CSV), (tarfile.TarInfo(name), zeros),
               (tarfile.TarInfo("b/metrics.csv"), CSV))  # fmt: skip
    with local_copies([path]) as copies:
        size = sum(p.stat().st_size for p in temporary.rglob("*") if p.is_file())
        assert size < (200 * path.stat().st_size) + (4 << 20)
        assert (copies.paths[0] / "a" / "metrics.csv").read_bytes() == CSV
    if (suffix, name) != (".zip", "exp/model.py"):  # which is not unpacked at all
        (problem,) = copies.problems
        assert problem.kind == "unsafe"
        assert "unpacks to more than" in problem.message


def test_a_header_of_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("exp/metrics.csv")
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    path = tmp_path / "runs.tar"
    path.write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + info.tobuf() + bytes(10240))
    problem = only_problem(str(path))
    assert (problem.path, problem.kind) == (str(path), "unsafe")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_huge_count_of_members_is_cut(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(30):
        table(tmp_path / "exp" / str(i) / "metrics.csv", rows=5)
    path = tmp_path / f"runs{suffix}"
    (zipped if suffix == ".zip" else tarred)(tmp_path / "exp", path)
    monkeypatch.setattr(limits, "MAX_MEMBERS", 10)
    found, problems = read_runs([path])
    assert 0 < len(found) < 10
    assert kinds(problems) == {(str(path), "too-large")}


def test_a_directory_of_a_zip_that_is_too_large_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "runs.zip", "w") as archive:
        for i in range(100):
            archive.writestr(f"{i}/metrics.csv", CSV)
    monkeypatch.setattr(archives, "MAX_READ", 4096)
    assert only_problem(str(tmp_path / "runs.zip")).kind == "unsafe"


def test_encrypted_members_are_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metrics.csv", CSV)
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    problem = only_problem(str(path))
    assert problem.kind == "unsupported"
    assert "encrypted" in problem.message and "metrics.csv" in problem.message


def test_one_damaged_member_of_a_zip_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "runs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/metrics.csv", CSV)
        archive.writestr("b/metrics.csv", CSV)
    path.write_bytes(path.read_bytes().replace(b"19,11.5", b"19,12.5", 1))
    found, problems = read_runs([path])
    assert "b" in {r.name for r in found}
    damage = [p for p in problems if p.kind == "damaged"]
    assert "a/metrics.csv" in damage[0].message


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz", ".tar"])
@pytest.mark.parametrize("part", [0.2, 0.9, 0.99])
def test_a_truncated_archive_is_said_to_be(suffix: str, part: float, tmp_path: Path) -> None:
    for i in range(8):
        folder = tmp_path / "exp" / str(i)
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_bytes(b"epoch,loss\n" + b"".join(
            b"%d,%.17g\n" % (j, x) for j, x in enumerate(np.random.default_rng(i).random(600))
        ))  # fmt: skip
    path = tmp_path / f"runs{suffix}"
    (zipped if suffix == ".zip" else tarred)(tmp_path / "exp", path)
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[: int(len(content) * part)])
    found, problems = read_runs([path])
    assert [p for p in problems if p.kind in ("truncated", "damaged") and p.path == str(path)]
    if suffix != ".zip" and part == 0.99 and suffix != ".tar.xz":
        assert len(found) == 8


@pytest.mark.parametrize(
    "content", [b"not a zip at all", b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(50)]
)
@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz"])
def test_garbage_under_an_archives_name(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"runs{suffix}"
    path.write_bytes(content)
    assert only_problem(str(path)).path == str(path)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_whatever_is_damaged_the_rest_is_read_or_it_is_said(suffix: str, tmp_path: Path) -> None:
    table(tmp_path / "exp" / "a" / "metrics.csv")
    path, random = tmp_path / f"runs{suffix}", np.random.default_rng(5)
    whole = (zipped if suffix == ".zip" else tarred)(tmp_path / "exp", path).read_bytes()
    for i in range(100):
        damaged = bytearray(whole.rstrip(b"\0"))
        for at in random.integers(4, len(damaged), size=3):
            damaged[at] = random.integers(256)
        path.write_bytes(damaged)
        target = tmp_path / "out" / str(i)
        problems = archives.unpack(path, target, "zip" if suffix == ".zip" else "tar")
        read = [p.read_bytes() for p in target.rglob("*") if p.is_file()]
        assert problems or read, i


# --- the command line ------------------------------------------------------------------------


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "analyzer", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(cwd / "tmp")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_reads_an_archive_and_cleans_up(runs: Path) -> None:
    home = runs.parent
    (home / "tmp").mkdir()
    zipped(runs, home / "runs.zip")
    done = command("runs.zip", "--report", "json", cwd=home)
    assert done.returncode == 0, done.stderr
    assert {r["path"] for r in json.loads(done.stdout)["runs"]} == {"runs.zip/exp1", "runs.zip/exp2"}
    assert list((home / "tmp").iterdir()) == []


def test_the_command_keeps_a_url_as_it_is_and_says_what_is_wrong(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    (tmp_path / "tmp").mkdir()
    done = command("memory://bucket/runs", cwd=tmp_path)
    assert done.returncode == 3
    assert "memory://bucket/runs: no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_fsspec_is_not_imported_for_what_is_local(runs: Path) -> None:
    zipped(runs, runs.parent / "runs.zip")
    code = (
        "import sys, analyzer; analyzer.analyze([sys.argv[1], sys.argv[2]]);"
        "print([m for m in ('fsspec', 'aiohttp', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(runs), str(runs.parent / "runs.zip")],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


# --- S3 --------------------------------------------------------------------------------------


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server that speaks S3, with an empty bucket; gives the file system."""
    s3fs = pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()  # one that knows of an earlier server
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.makedirs("bucket", exist_ok=True)
    yield files
    server.stop()


def test_s3_is_read_as_a_local_folder(s3: Any, runs: Path, temporary: Path) -> None:
    s3.put(str(runs), "bucket/runs", recursive=True)
    local, report = analyze_paths([runs]), analyze_paths(["s3://bucket/runs"])
    assert findings(report) == findings(local) != []
    assert curves([r.run for r in report.runs]) == curves([r.run for r in local.runs])
    assert {r.run.path for r in report.runs} == {"s3://bucket/runs/exp1", "s3://bucket/runs/exp2"}
    assert list(temporary.iterdir()) == []


def test_a_bucket_that_is_not_there(s3: Any) -> None:
    problem = only_problem("s3://no-such-bucket/runs")
    assert (problem.path, problem.kind) == ("s3://no-such-bucket/runs", "missing")
