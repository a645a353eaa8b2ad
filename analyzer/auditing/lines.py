"""Settings, tasks and outcomes as lines of JSON: what a supervisor and its child say to each other."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from analyzer.auditing.tasks import Bundle, Examine, Judge, Kept, Log, Outcome, Settings, Tail, Task
from analyzer.model import Problem


def line(value: Any) -> bytes:
    return json.dumps(value, default=_bytes, separators=(",", ":")).encode() + b"\n"


def _bytes(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def settings_line(settings: Settings) -> bytes:
    return line(asdict(settings))


def settings_of(text: bytes) -> Settings:
    document = json.loads(text)
    document["roles"] = [tuple(pair) for pair in document["roles"]]
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in document.items()}
    return Settings(**values)


def task_line(task: Task) -> bytes:
    return line({"judge": isinstance(task, Judge), **asdict(task)})


def task_of(text: bytes) -> Task:
    document = json.loads(text)
    if document.pop("judge"):
        return Judge(document["path"], _kept(document["runs"]))
    parts = document["bundle"]
    parts["logs"], parts["configs"] = (_logs(parts[key]) for key in ("logs", "configs"))
    bundle = Bundle(**{**parts, "checkpoints": tuple(parts["checkpoints"])})
    return Examine(bundle, _tails(document["tails"]))


def _logs(logs: Sequence[Sequence[str]]) -> tuple[Log, ...]:
    return tuple((log[0], log[1], log[2], log[3]) for log in logs)


def _tails(tails: Sequence[dict[str, Any]]) -> tuple[Tail, ...]:
    return tuple(Tail(**{**tail, "columns": b64decode(tail["columns"])}) for tail in tails)


def _kept(runs: Sequence[dict[str, str]]) -> tuple[Kept, ...]:
    return tuple(Kept(r["record"], b64decode(r["document"]), b64decode(r["features"])) for r in runs)


def outcome_line(outcome: Outcome) -> bytes:
    return line(asdict(outcome))


def outcome_of(text: bytes) -> Outcome:
    document = json.loads(text)
    document["runs"] = _kept(document["runs"])
    document["problems"] = tuple(Problem(**problem) for problem in document["problems"])
    document["passed_over"] = tuple(document["passed_over"])
    document["tails"] = _tails(document["tails"])
    return Outcome(**document)
