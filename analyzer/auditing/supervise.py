"""Runs examined in processes of their own, watched: one that hangs, crashes or grows too large is replaced."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from analyzer.auditing.lines import outcome_of, settings_line, task_line
from analyzer.auditing.tasks import Outcome, Settings, Task
from analyzer.model import Problem

START_SECONDS = 120.0  # for a process to import what it needs
IDLE_SECONDS = 30.0  # then it goes: workers of a cluster outlive the audit
AHEAD = 2  # tasks that a process has at a time, so that it need not wait for this one
LIGHT = 15_000_000.0  # weight of a task, see tasks.py, up to which it may wait for the one before
MODULE = "analyzer.auditing.child"


class Child:
    """One examining process and the tasks it was given; its answers, and its end as ``b""``, go to a queue."""

    def __init__(self, settings: Settings, answers: queue.SimpleQueue[tuple[Child, bytes]]):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.ready = False
        self.given: deque[Task] = deque()
        self.since = time.monotonic()  # at work on the first of them, or starting
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.lines.put(settings_line(settings))
        threading.Thread(target=self._listen, args=(answers,), daemon=True).start()
        threading.Thread(target=self._speak, daemon=True).start()

    def _listen(self, answers: queue.SimpleQueue[tuple[Child, bytes]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answers.put((self, line))
        answers.put((self, b""))

    def _speak(self) -> None:
        """In a thread of its own: a process that is at work does not take a long line."""
        assert self.process.stdin is not None
        with suppress(OSError):  # it died, as its answers tell
            while line := self.lines.get():
                self.process.stdin.write(line)
                self.process.stdin.flush()

    def takes(self, task: Task) -> bool:
        return not self.given or (len(self.given) < AHEAD and task.weight < LIGHT)

    def give(self, task: Task) -> None:
        if self.ready and not self.given:
            self.since = time.monotonic()
        self.given.append(task)
        self.lines.put(task_line(task))

    def done(self) -> Task | None:
        """The task just answered, None where the answer is that it has started."""
        self.since = time.monotonic()
        if self.ready:
            return self.given.popleft()
        self.ready = True
        return None

    def end(self) -> str:
        """How it ended."""
        code = self.process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def close(self) -> None:
        self.lines.put(b"")
        self.process.kill()
        self.process.wait()


class Crew:
    """As many examining processes as there is work for, up to ``size``. For one thread."""

    def __init__(self, settings: Settings, size: int):
        self.settings, self.size = settings, size
        self.children: list[Child] = []
        self.answers: queue.SimpleQueue[tuple[Child, bytes]] = queue.SimpleQueue()

    def start(self, count: int) -> None:
        """Have up to ``count`` processes start before there is anything to do."""
        while len(self.children) < min(count, self.size):
            self.children.append(Child(self.settings, self.answers))

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """What came of each task, in the order they are done. Raises RuntimeError where no process starts."""
        source = iter(tasks)
        left: deque[Task] = deque()  # taken from the source, or back from a process that died
        self.children = [child for child in self.children if child.process.poll() is None]
        while True:
            while self._handed_out(left, source):
                pass
            if not any(child.given for child in self.children):
                return
            yield from self._heard(left)

    def _handed_out(self, left: deque[Task], source: Iterator[Task]) -> bool:
        """Give the next task to the process with the fewest; whether there was one to take it."""
        if not left:
            left.extend(islice(source, 1))
        if not left:
            return False
        if all(child.given for child in self.children):
            self.start(len(self.children) + 1)
        child = min(self.children, key=lambda child: len(child.given))
        if not child.takes(left[0]):
            return False
        child.give(left.popleft())
        return True

    def _heard(self, left: deque[Task]) -> Iterator[Outcome]:
        """Wait for an answer, or for the time of a process to be up."""
        try:
            child, line = self.answers.get(timeout=max(0.0, min(map(self._time_left, self.children))))
        except queue.Empty:
            seconds = self.settings.timeout
            message = f"not done after {seconds:g} seconds and given up; --timeout allows more"
            for child in [child for child in self.children if self._time_left(child) <= 0]:
                yield from self._lost(child, left, "timed-out", message, seconds)
            return
        if child not in self.children:
            return
        if line.endswith(b"\n"):
            if child.done():
                yield outcome_of(line)
            return
        message = f"the process that read it died ({child.end()}): it may need more memory than there is"
        yield from self._lost(child, left, "killed", message)

    def _time_left(self, child: Child) -> float:
        if child.ready and not child.given:
            return START_SECONDS
        allowed = self.settings.timeout if child.ready else START_SECONDS
        return child.since + allowed - time.monotonic()

    def _lost(
        self, child: Child, left: deque[Task], state: str, message: str, cost: float = 0.0
    ) -> Iterator[Outcome]:
        """What it was at work on has failed; what it had besides is done by another."""
        self.children.remove(child)
        child.close()
        if not child.ready:
            raise RuntimeError("the process that examines runs does not start")
        if child.given:
            task = child.given.popleft()
            left.extendleft(reversed(child.given))
            yield Outcome(task.path, state, problems=(Problem(task.path, state, message),), cost=cost)

    def close(self) -> None:
        while self.children:
            self.children.pop().close()


# --------------------------------------------------------------------------- one process for each thread


_own = threading.local()


def examine_all(tasks: Sequence[Task], settings: Settings) -> list[Outcome]:
    """The outcomes of a batch: what a worker of a cluster calls."""
    if not hasattr(_own, "keeper"):
        _own.keeper = _Keeper()
    keeper: _Keeper = _own.keeper
    return keeper.outcomes(tasks, settings)


class _Keeper:
    """A thread's process: kept from batch to batch, gone after a while without any."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.crew: Crew | None = None
        self.timer: threading.Timer | None = None

    def outcomes(self, tasks: Sequence[Task], settings: Settings) -> list[Outcome]:
        with self.lock:
            if self.timer:
                self.timer.cancel()
            if self.crew and self.crew.settings != settings:
                self.crew.close()
                self.crew = None
            self.crew = self.crew or Crew(settings, 1)
            found = list(self.crew.outcomes(tasks))
            self.timer = threading.Timer(IDLE_SECONDS, self._close, [self.crew])
            self.timer.daemon = True
            self.timer.start()
            return found

    def _close(self, crew: Crew) -> None:
        with self.lock:
            crew.close()
