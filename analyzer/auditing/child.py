"""A process that examines one bundle after another: what hangs or dies in it costs only that bundle.

Reads one JSON object a line from stdin, first the settings, then tasks; answers each with one line on
stdout. Ends with its stdin. Started as ``python -m analyzer.auditing.child``.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import BinaryIO

from analyzer.auditing.examine import examine, judge, rules_of
from analyzer.auditing.lines import outcome_line, settings_of, task_of
from analyzer.auditing.tasks import Examine, Outcome, Settings


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    serve(sys.stdin.buffer, answers)


def serve(tasks: BinaryIO, answers: BinaryIO) -> None:
    settings = settings_of(tasks.readline())
    limit_memory(settings.memory)
    rules_of(settings)
    answers.write(b"ready\n")
    answers.flush()
    for line in iter(tasks.readline, b""):
        answers.write(outcome_line(_outcome(line, settings)))
        answers.flush()


def _outcome(line: bytes, settings: Settings) -> Outcome:
    task = task_of(line)
    if isinstance(task, Examine):
        return examine(task.bundle, settings, task.tails)
    return judge(task.path, task.runs, settings)


def limit_memory(limit: int) -> None:
    """Bound what this process may allocate, files mapped for reading not counted. Linux alone keeps to it."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


if __name__ == "__main__":
    main()
