"""An audit on a Dask cluster of this machine, one of whose two workers is killed: nothing lost, nothing twice."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from small_runs import overfitting, table
from test_audit import audited, told

from analyzer.auditing.engines import Engine, EngineError
from analyzer.auditing.ledger import LedgerError, read_ledger

pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler, and its two workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:], "--no-dashboard"]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    running = [start("dask_scheduler", "--host", address)]
    options = ("--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path))
    running += [start("dask_worker", address, *options) for _ in range(2)]
    try:
        yield address, running[1:]
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_killed_worker_loses_nothing(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    address, workers = cluster
    tree = tmp_path / "runs"
    for number in range(60):
        (overfitting if number % 3 else table)(tree / f"run{number}" / "log.csv")
    ledger = tmp_path / "dask.sqlite"
    killer = threading.Thread(target=kill_at, args=(ledger, 10, workers[0]))
    killer.start()
    found = audited(tree, ledger=ledger, engine=Engine("dask", address=address))
    killer.join()
    assert workers[0].poll() == -signal.SIGKILL and workers[1].poll() is None
    assert (found.counts.read, found.counts.failed) == (60, 0)
    assert told(found) == told(audited(tree, ledger=tmp_path / "here.sqlite"))


def kill_at(ledger: Path, bundles: int, worker: subprocess.Popen[bytes]) -> None:
    """Kill a worker as soon as so many bundles are in the ledger; at the latest after a minute."""
    for _ in range(600):
        time.sleep(0.1)
        try:
            with closing(read_ledger(ledger)) as known:
                if len(known.entries()) >= bundles:
                    break
        except LedgerError:
            continue
    worker.send_signal(signal.SIGKILL)
    worker.wait(60)


def test_a_scheduler_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from analyzer.auditing import engines

    monkeypatch.setattr(engines, "CONNECT_SECONDS", 1)
    table(tmp_path / "runs" / "log.csv")
    with pytest.raises(EngineError, match=r"tcp://127\.0\.0\.1:9"):
        audited(tmp_path / "runs", engine=Engine("dask", address="tcp://127.0.0.1:9"))
