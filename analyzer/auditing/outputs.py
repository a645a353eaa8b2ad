"""The results of an audit in every format, written run by run so that ten thousand need little memory."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, TextIO
from xml.sax.saxutils import quoteattr

from analyzer._version import __version__
from analyzer.auditing.course import Audit
from analyzer.errors import AnalyzerError
from analyzer.model import Problem
from analyzer.report.escape import plain_block
from analyzer.report.json_report import SCHEMA_VERSION, insight_document, strict
from analyzer.report.wording import REMARKS

Document = dict[str, Any]
SUFFIXES = {
    "terminal": ".txt",
    "html": ".html",
    "json": ".json",
    "jsonl": ".jsonl",
    "parquet": ".parquet",
    "junit": ".xml",
}
ROWS = 1000  # of a Parquet file written at a time


class OutputError(AnalyzerError):
    """A result that cannot be written."""


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A new file that takes the place of ``path`` when all of it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def documents(audit: Audit) -> Iterator[Document]:
    """The runs as the JSON report has them, in the order of the records."""
    for document in audit.documents():
        document.pop("sketches", None)
        yield document


def write(audit: Audit, name: str, target: Path | None, stdout: TextIO, verbose: bool) -> None:
    """The result in the format ``name``, to a file or, where there is none, to ``stdout``."""
    if name == "parquet":
        assert target is not None
        write_parquet(audit, target)
    elif name == "html":
        write_html(audit, target, stdout)
    elif name == "terminal":
        from analyzer.auditing.summary import to_stream

        with _opened(target, stdout) as stream:
            to_stream(audit, stream, verbose)
    else:
        with _opened(target, stdout) as stream:
            {"json": write_json, "jsonl": write_jsonl, "junit": write_junit}[name](audit, stream)


@contextmanager
def _opened(target: Path | None, stdout: TextIO) -> Iterator[TextIO]:
    if target is None:
        yield stdout
        return
    with replaced(target) as new, new.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        yield stream


# --------------------------------------------------------------------------- JSON


def write_json(audit: Audit, stream: TextIO) -> None:
    """One object of the shape of a report, with ``insight`` and ``audit`` beside the runs."""
    tool = {"name": "analyzer", "version": __version__}
    stream.write(f'{{"schema_version": {SCHEMA_VERSION}, "tool": {_json(tool)}, "runs": [')
    for number, document in enumerate(documents(audit)):
        stream.write((",\n" if number else "\n") + _json(document))
    rest = {
        "problems": [_problem(p) for p in audit.problems],
        "insight": insight_document(audit.insight),
        "audit": {**asdict(audit.counts), "seconds": audit.seconds, "paths": list(audit.paths)},
    }
    stream.write("\n], " + _json(rest)[1:] + "\n")


def write_jsonl(audit: Audit, stream: TextIO) -> None:
    """One run a line."""
    for document in documents(audit):
        stream.write(_json(document) + "\n")


def _json(value: Any) -> str:
    return json.dumps(strict(_listed(value)), allow_nan=False)


def _listed(value: Any) -> Any:
    return json.loads(json.dumps(value, default=sorted))


def _problem(problem: Problem) -> Document:
    return {"path": problem.path, "kind": problem.kind, "message": problem.message}


# --------------------------------------------------------------------------- Parquet


def write_parquet(audit: Audit, path: Path) -> None:
    """One row a run; findings and hyperparameters as lists in it. Needs pyarrow."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise OutputError(
            "writing Parquet needs pyarrow: pip install 'training-log-analyzer[parquet]'"
        ) from None
    schema = _schema(arrow)
    with replaced(path) as new, parquet.ParquetWriter(new, schema) as writer:
        rows: list[Document] = []
        for record, document in zip(audit.records, documents(audit), strict=True):
            rows.append(_row(asdict(record.member), record.points, document))
            if len(rows) == ROWS:
                writer.write_table(arrow.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(arrow.Table.from_pylist(rows, schema))


def _schema(arrow: Any) -> Any:
    text, number = arrow.string(), arrow.float64()
    finding = {"rule": text, "severity": text, "confidence": number, "summary": text, "explained_by": text}
    value = {"key": text, "number": number, "text": text}
    curve = {"role": text, "tag": text, "points": arrow.int64(), "first_step": number, "last_step": number}
    best = {"role": text, "value": number, "step": number}

    def listed(fields: Mapping[str, Any]) -> Any:
        return arrow.list_(arrow.struct(list(fields.items())))

    columns = {
        "path": text, "name": text, "verdict": text, "critical": arrow.int64(), "warning": arrow.int64(),
        "info": arrow.int64(), "findings": listed(finding), "not_applicable": arrow.list_(text),
        "hyperparameters": listed(value), "series": listed(curve), "best": listed(best),
        "points": arrow.int64(), "steps": number, "hours": number, "wasted_share": number,
        "wasted_hours": number, "wasted_by": text, "rewinds": arrow.int64(), "crashed": arrow.bool_(),
        "digest": text, "problems": arrow.list_(text),
    }  # fmt: skip
    return arrow.schema(list(columns.items()))


def _row(member: Document, points: int, document: Document) -> Document:
    severities = [finding["severity"] for finding in document["findings"]]
    waste = member["waste"] or {}
    own = ("path", "name", "verdict", "steps", "hours", "rewinds", "crashed", "digest")
    return strict({  # type: ignore[no-any-return]
        **{key: member[key] for key in own},
        **{severity: severities.count(severity) for severity in ("critical", "warning", "info")},
        "findings": document["findings"],
        "not_applicable": [entry["rule"] for entry in document["not_applicable"]],
        "hyperparameters": [_value(key, value) for key, value in document["hyperparameters"].items()],
        "series": document["series"],
        "best": [{"role": role, **best} for role, best in member["best"].items()],
        "points": points,
        "wasted_share": waste.get("share"),
        "wasted_hours": waste.get("hours"),
        "wasted_by": waste.get("rule"),
        "problems": [f"{p['path']}: {p['message']}" for p in document["problems"]],
    })  # fmt: skip


def _value(key: str, value: Any) -> Document:
    number = float(value) if isinstance(value, int | float) and abs(value) < 1e300 else None
    return {"key": key, "number": number, "text": None if value is None else str(value)}


# --------------------------------------------------------------------------- JUnit


def write_junit(audit: Audit, stream: TextIO) -> None:
    """A run is a test case; it fails by its findings of warning and worse, and errs where it was given up."""
    failures = sum(r.verdict in ("critical", "warning") for r in audit.records)
    remarks = sum(problem.kind in REMARKS for problem in audit.problems)
    stream.write('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="analyzer audit">\n')
    counts = f'tests="{len(audit.records) + len(audit.problems)}" failures="{failures}" errors="{len(audit.problems) - remarks}"'
    stream.write(f'<testsuite name="runs" {counts} skipped="{_unassessed(audit) + remarks}">\n')
    for document in documents(audit):
        stream.write(
            f'<testcase classname="runs" name={_quoted(document["name"])} time="0">{_verdict(document)}</testcase>\n'
        )
    for problem in audit.problems:
        tag = "skipped" if problem.kind in REMARKS else f"error type={_quoted(problem.kind)}"
        error = f"<{tag} message={_quoted(problem.message)}/>"
        stream.write(
            f'<testcase classname="problems" name={_quoted(problem.path)} time="0">{error}</testcase>\n'
        )
    stream.write("</testsuite>\n</testsuites>\n")


def _unassessed(audit: Audit) -> int:
    return sum(r.verdict == "not-assessed" for r in audit.records)


def _verdict(document: Document) -> str:
    if document["verdict"] == "not-assessed":
        return '<skipped message="too little was logged to judge"/>'
    failed = [f for f in document["findings"] if f["severity"] != "info"]
    if not failed:
        return ""
    message = "; ".join(f"{f['rule']}: {f['summary']}" for f in failed)
    return f"<failure type={_quoted(failed[0]['severity'])} message={_quoted(message)}/>"


def _quoted(text: str) -> str:
    return quoteattr(plain_block(text))


# --------------------------------------------------------------------------- HTML


def write_html(audit: Audit, target: Path | None, stdout: TextIO) -> None:
    """One page, and a folder of further ones beside it where the details do not go into one."""
    from analyzer.auditing.summary import sentence, work
    from analyzer.report import audit_html

    some = zip((record.member for record in audit.records), audit.documents(), strict=True)
    packed = audit_html.pack(islice(some, audit_html.MOST_ROWS))
    head = audit_html.Head(
        title=f"Audit of {', '.join(audit.paths)}",
        headline=sentence(audit),
        work=work(audit),
        counts=Counter(record.verdict for record in audit.records),
        insight=audit.insight,
        members=[record.member for record in audit.records],
        problems=audit.problems,
        version=__version__,
    )
    pages = audit_html.pages(head, packed, target.stem if target else "audit")
    if target is None:
        stdout.write(next(pages)[1])
        return
    for number, (name, text) in enumerate(pages):
        with replaced(target.parent / name if number else target) as new:
            new.write_text(text, encoding="utf-8")
