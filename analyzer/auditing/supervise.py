"""Runs examined in a process of their own, watched: one that hangs, crashes or grows too large is replaced."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

from analyzer.auditing.lines import outcome_of, settings_line, task_line
from analyzer.auditing.tasks import Outcome, Settings, Task
from analyzer.model import Problem

START_SECONDS = 120.0  # for a child to import what it needs
IDLE_SECONDS = 30.0  # then it goes: workers of a cluster outlive the audit
MODULE = "analyzer.auditing.child"


class Died(Exception):
    """The child ended; how is what the exception says."""


class Child:
    """One examining process. Not for several threads at once."""

    def __init__(self, settings: Settings):
        self.settings = settings
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._asked(settings_line(settings), START_SECONDS)
        except (Died, queue.Empty):
            self.close()
            raise RuntimeError("the process that examines runs does not start") from None

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(b"")

    def _asked(self, line: bytes, seconds: float) -> bytes:
        """The answer. Raises Died, or queue.Empty when time is up."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except OSError:
            raise Died(self._end()) from None
        answer = self.answers.get(timeout=seconds)
        if not answer.endswith(b"\n"):
            raise Died(self._end())
        return answer

    def _end(self) -> str:
        code = self.process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def outcome(self, task: Task) -> Outcome:
        """What came of a task; afterwards the child may be gone, see :meth:`alive`."""
        seconds = self.settings.timeout
        try:
            return outcome_of(self._asked(task_line(task), seconds))
        except queue.Empty:
            self.close()
            message = f"not done after {seconds:g} seconds and given up; --timeout allows more"
            return failed(task, "timed-out", message, seconds)
        except Died as died:
            self.close()
            message = f"the process that read it died ({died}): it may need more memory than there is"
            return failed(task, "killed", message)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def failed(task: Task, state: str, message: str, cost: float = 0.0) -> Outcome:
    return Outcome(task.path, state, problems=(Problem(task.path, state, message),), cost=cost)


# --------------------------------------------------------------------------- one child for each thread


_own = threading.local()


def examine_all(tasks: Sequence[Task], settings: Settings) -> list[Outcome]:
    """The outcomes of a batch, in order: what a worker of any engine calls."""
    return list(examined(tasks, settings))


def examined(tasks: Sequence[Task], settings: Settings) -> Iterator[Outcome]:
    keeper = _keeper()
    with keeper.lock:
        keeper.stop_waiting()
        for task in tasks:
            yield keeper.child(settings).outcome(task)
        keeper.wait()


class _Keeper:
    """A thread's child: kept from batch to batch, gone after a while without any."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.current: Child | None = None
        self.timer: threading.Timer | None = None

    def child(self, settings: Settings) -> Child:
        if self.current and (self.current.settings != settings or not self.current.alive):
            self.close()
        self.current = self.current or Child(settings)
        return self.current

    def wait(self) -> None:
        self.timer = threading.Timer(IDLE_SECONDS, self.close)
        self.timer.daemon = True
        self.timer.start()

    def stop_waiting(self) -> None:
        if self.timer:
            self.timer.cancel()

    def close(self) -> None:
        with self.lock:
            if self.current:
                self.current.close()
                self.current = None


def _keeper() -> _Keeper:
    if not hasattr(_own, "keeper"):
        _own.keeper = _Keeper()
    found: _Keeper = _own.keeper
    return found


def close() -> None:
    """End this thread's child."""
    _keeper().close()
