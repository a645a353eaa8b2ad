"""How far an audit is: a line that renews itself on a terminal, else one line a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from analyzer.report.escape import clip, plain

RENEWED = 0.2  # seconds between two lines on a terminal
PLAIN = 60.0  # elsewhere


class Progress:
    """Counts runs and their weight; the time left is that of the weight left at the rate so far."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self.stream, self.clock = stream, clock
        self.live = stream.isatty()
        self.started = self.told = clock()
        self.total, self.weight = 0, 0.0
        self.done, self.passed = 0, 0.0

    def begin(self, total: int, weight: float) -> None:
        self.started = self.told = self.clock()
        self.total, self.weight, self.done, self.passed = total, weight, 0, 0.0

    def step(self, path: str, weight: float) -> None:
        """One more is done."""
        self.done += 1
        self.passed += weight
        if self.clock() - self.told >= (RENEWED if self.live else PLAIN):
            self.told = self.clock()
            self._write(self.line() + (f"  {plain(path)}" if self.live else ""))

    def say(self, text: str) -> None:
        """A stage that takes a moment; shown while a terminal watches."""
        if self.live:
            self._write(text)

    def end(self) -> None:
        if self.live:
            self._write("")

    def line(self) -> str:
        seconds = self.clock() - self.started
        rate = self.done / seconds if seconds > 0 else 0.0
        left = seconds * (self.weight - self.passed) / self.passed if self.passed else 0.0
        pace = f"{rate:.1f} runs/s" if rate >= 1 else f"{60 * rate:.1f} runs/min"
        return f"{self.done}/{self.total} runs  {pace}  {duration(left)} left"

    def _write(self, text: str) -> None:
        self.stream.write(f"\r{clip(text, 78):<78}\r" if self.live else f"{text}\n")
        self.stream.flush()


def duration(seconds: float) -> str:
    """``45 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
