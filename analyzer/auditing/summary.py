"""An audit as text for a terminal: the counts, what ails most runs, the worst of them, what they share."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Literal, TextIO

from analyzer.auditing.course import Audit
from analyzer.auditing.progress import duration
from analyzer.auditing.record import VERDICTS, Record
from analyzer.report import comparison, wording
from analyzer.report.escape import clip, plain
from analyzer.report.terminal import STYLES, Look, open_console, text_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

NARROWEST, WIDEST = 40, 140
RUNS = 20  # of the worst, without --verbose
RULES = 20
PROBLEMS = 5
BAR = 20  # characters of a full bar


def render(
    audit: Audit, *, width: int = 100, color: bool = False, ascii_only: bool = False, verbose: bool = False
) -> str:
    look = Look(max(NARROWEST, min(width, WIDEST)), ascii_only, verbose)
    console = open_console(look, color)
    _headline(console, look, audit)
    _prevalence(console, look, audit)
    _worst(console, look, audit)
    _comparison(console, look, audit)
    _problems(console, look, audit)
    return text_of(console)


def to_stream(audit: Audit, stream: TextIO, verbose: bool) -> None:
    """The text as the stream can show it."""
    live = stream.isatty()
    encoding = stream.encoding or "ascii"
    text = render(
        audit,
        width=shutil.get_terminal_size((100, 24)).columns,
        color=live and not os.environ.get("NO_COLOR"),
        ascii_only=not encoding.lower().startswith("utf"),
        verbose=verbose,
    )
    stream.write(text.encode(encoding, "replace").decode(encoding))


def headline(audit: Audit) -> str:
    """``10,000 runs: 412 critical, 2,310 warning, …``."""
    count = Counter(record.verdict for record in audit.records)
    parts = [f"{count[v]:,} {wording.VERDICT_WORDS[v]}" for v in VERDICTS if count[v]]
    return f"{len(audit.records):,} run{'s' * (len(audit.records) != 1)}: {', '.join(parts) or 'none found'}"


def sentence(audit: Audit) -> str:
    """``12 of 235 runs have a critical finding, 44 more a warning``."""
    count = Counter(record.verdict for record in audit.records)
    critical, warning, total = count["critical"], count["warning"], f"{len(audit.records):,}"
    if critical:
        more = f", {warning:,} more a warning" if warning else ""
        return f"{critical:,} of {total} runs {'has' if critical == 1 else 'have'} a critical finding{more}"
    return f"{warning:,} of {total} runs {'has' if warning == 1 else 'have'} a warning, none is critical"


def work(audit: Audit) -> str:
    """``12 logs read, 9,988 unchanged, in 4 s``: what this audit had to do."""
    done = audit.counts
    parts = [
        (done.read, "logs read"),
        (done.judged, "judged anew by changed rules"),
        (done.unchanged, "unchanged"),
        (done.failed, "given up"),
    ]
    told = ", ".join(f"{count:,} {what}" for count, what in parts if count) or "nothing to do"
    return f"{told}, in {duration(audit.seconds)}"


def _headline(console: Console, look: Look, audit: Audit) -> None:
    worst = audit.records[0].verdict if audit.records else "not-assessed"
    _say(console, look, f"{look.sign(worst)} {headline(audit)}", f"bold {STYLES[worst]}")
    _say(console, look, work(audit), "dim")


def _prevalence(console: Console, look: Look, audit: Audit) -> None:
    table = _table("left", "left", "right", "right", "left")
    for found in audit.insight.prevalence[:RULES]:
        share = found.runs / found.of
        bar = ("#" if look.ascii else "█") * max(1, round(BAR * share))
        table.add_row(
            _styled(look, look.sign(found.severity), STYLES[found.severity]),
            _styled(look, found.rule),
            _styled(look, f"{found.runs:,}"),
            _styled(look, wording.percent(share)),
            _styled(look, bar, "dim"),
        )
    if table.rows:
        _title(console, look, "How many runs have it")
        console.print(table)


def _worst(console: Console, look: Look, audit: Audit) -> None:
    sick = [r for r in audit.records if r.verdict in ("critical", "warning")]
    shown = list(audit.records if look.verbose else sick[:RUNS])
    if not shown:
        return
    _title(console, look, "Worst runs")
    table = _table("left", "left", "left")
    for record in shown:
        table.add_row(
            _styled(look, look.sign(record.verdict), STYLES[record.verdict]),
            _styled(look, clip(plain(record.name), look.width // 2)),
            _styled(look, _rules(record)),
        )
    console.print(table)
    if len(sick) > len(shown):
        _say(console, look, f"… and {len(sick) - len(shown):,} more; --report html shows all of them", "dim")


def _rules(record: Record) -> str:
    own = [f["rule"] for f in record.findings if f["explained_by"] is None]
    return ", ".join(own[:3]) + (f" and {len(own) - 3} more" if len(own) > 3 else "")


def _comparison(console: Console, look: Look, audit: Audit) -> None:
    for title, sentences in comparison.sections(audit.insight):
        _title(console, look, title)
        for sentence in sentences:
            _say(console, look, f"  {sentence}")


def _problems(console: Console, look: Look, audit: Audit) -> None:
    told = audit.problems if look.verbose else audit.problems[:PROBLEMS]
    if told:
        _title(console, look, "Problems")
    for problem in told:
        _say(console, look, f"  {problem.path}: {problem.message}")
    if len(told) < len(audit.problems):
        _say(console, look, f"  … and {len(audit.problems) - len(told):,} more", "dim")


def _title(console: Console, look: Look, text: str) -> None:
    console.print()
    _say(console, look, text, "bold")


def _say(console: Console, look: Look, text: str, style: str = "") -> None:
    console.print(_styled(look, text, style))


def _styled(look: Look, text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(look.line(text), style)


def _table(*justified: Literal["left", "right"]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    for place, justify in enumerate(justified, start=1):
        table.add_column(justify=justify, no_wrap=place < len(justified))  # the last one gives way
    return table
