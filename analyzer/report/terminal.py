"""The report as text for a terminal: the verdict first, then what to do."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from analyzer.model import Evidence, Finding, LikelyCause, Problem, Remedy, Report, RunReport
from analyzer.report import comparison, curves, escape, layers, wording
from analyzer.report.escape import clip, plain, plain_block
from analyzer.report.sparkline import sparkline

if TYPE_CHECKING:
    from rich.console import Console, OverflowMethod
    from rich.text import Text

NAME = "terminal"
SUFFIX = ".txt"
FEW_RUNS = 5  # up to this many are all shown in full
TABLE_ROWS = 40
EVIDENCE = 4  # measurements of a finding
CAUSES = 2
PROBLEMS = 5
NARROWEST, WIDEST = 40, 120
LAYER_ROWS = 10
LOSSES = ("truncated", "damaged", "missing", "unreadable")  # kinds of problems that leave something unread
HEADING = 50  # characters; longer lines are prose
ROOMY = 110  # columns that hold a title beside the run's name
COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("verdict", "left"), ("run", "left"), ("top finding", "left"), ("main curve", "left"),
    ("points", "right"),
)  # fmt: skip
STYLES = {
    "critical": "bold red",
    "warning": "yellow",
    "info": "cyan",
    "healthy": "green",
    "not-assessed": "bright_black",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What the terminal can show and how much of it is wanted."""

    width: int
    ascii: bool
    verbose: bool

    def sign(self, name: str) -> str:
        return (wording.ASCII_ICONS if self.ascii else wording.ICONS)[name]

    def line(self, text: str) -> str:
        return self._spelled(plain(text))

    def block(self, text: str) -> str:
        return self._spelled(plain_block(text)).expandtabs(4)

    def _spelled(self, text: str) -> str:
        return escape.ascii_only(text) if self.ascii else text


def render(
    report: Report,
    *,
    width: int = 100,
    color: bool = False,
    ascii_only: bool = False,
    verbose: bool = False,
    **_: object,
) -> str:
    """The report as text; ANSI colours only with ``color``, only ASCII with ``ascii_only``."""
    look = Look(max(NARROWEST, min(width, WIDEST)), ascii_only, verbose)
    console = open_console(look, color)
    _headline(console, look, report)
    if len(report.runs) > 1:
        _table(console, look, report)
    shown = _in_full(report, verbose)
    for run in shown:
        _run(console, look, run)
    _omitted(console, look, report, shown)
    _comparison(console, look, report)
    _problems(console, look, report.problems, "Problems")
    return text_of(console)


def text_of(console: Console) -> str:
    """What was printed to a console of :func:`open_console`."""
    output = console.file
    assert isinstance(output, io.StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def rule_page(text: str, *, color: bool = False, ascii_only: bool = False) -> str:
    """The page of a rule for a terminal: its headings stand out."""
    look = Look(WIDEST, ascii_only, True)
    console = open_console(look, color)
    for line in text.splitlines():
        heading = line[:1].isupper() and len(line) < HEADING and not line.endswith((".", ","))
        code = line.startswith("      ")
        console.print(_text(look.block(line), "bold" if heading else "cyan" if code else ""), soft_wrap=True)
    return text_of(console)


def open_console(look: Look, color: bool) -> Console:
    from rich.console import Console

    return Console(
        file=io.StringIO(),
        width=look.width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        force_jupyter=False,
    )


def _headline(console: Console, look: Look, report: Report) -> None:
    worst = next((v for v, count in wording.verdict_counts(report).items() if count), "not-assessed")
    console.print(_styled(look, f"{look.sign(worst)} {wording.headline(report)}", f"bold {STYLES[worst]}"))


def _table(console: Console, look: Look, report: Report) -> None:
    from rich.table import Table

    rows = report.runs if look.verbose else report.runs[:TABLE_ROWS]
    cells = [_row(look, run) for run in rows]
    widths = _widths(look, cells)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for (name, justify), width in zip(COLUMNS, widths, strict=True):
        overflow: OverflowMethod = "crop" if look.ascii else "ellipsis"
        table.add_column(name, width=width, no_wrap=True, justify=justify, overflow=overflow)
    for run, row in zip(rows, cells, strict=True):
        styles = (STYLES[run.verdict], "", "", "dim", "")
        row[1] = clip(row[1], widths[1] - 2 * look.ascii)  # in ASCII the ellipsis takes three
        table.add_row(*(_styled(look, text, style) for text, style in zip(row, styles, strict=True)))
    console.print()
    console.print(table)
    if len(rows) < len(report.runs):
        console.print(look.line(f"… and {len(report.runs) - len(rows)} more runs"))


def _widths(look: Look, cells: list[list[str]]) -> list[int]:
    """The name and the finding share what the others leave; each leaves what it does not need."""
    from rich.cells import cell_len

    widest = [max(len(name), *(cell_len(row[i]) for row in cells)) for i, (name, _) in enumerate(COLUMNS)]
    verdict, name, finding, curve, points = widest
    free = max(look.width - verdict - curve - points - 8, 20)
    name = min(name, max(free * (5 if look.width >= ROOMY else 6) // 10, free - finding))
    return [verdict, name, min(finding, free - name), curve, points]


def _row(look: Look, run: RunReport) -> list[str]:
    return [
        f"{look.sign(run.verdict)} {wording.VERDICT_WORDS[run.verdict]}",
        look.line(run.run.name),
        look.line(_top(look, run)),
        _spark(look, run, 16 if look.width >= ROOMY else 8),
        wording.number(wording.points(run)),
    ]


def _top(look: Look, run: RunReport) -> str:
    """The first finding: its title where there is room for one, else its short id."""
    if not run.findings:
        return "–"
    return run.findings[0].title if look.width >= ROOMY else run.findings[0].rule


def _spark(look: Look, run: RunReport, width: int) -> str:
    main = curves.main_curve(run.run)
    return sparkline(curves.ordered(main)[1], width, look.ascii) if main else ""


def _in_full(report: Report, verbose: bool) -> list[RunReport]:
    """All of few runs; of many, the first with a finding that asks for a change."""
    if verbose or len(report.runs) <= FEW_RUNS:
        return list(report.runs)
    return [r for r in report.runs if r.verdict in ("critical", "warning")][:FEW_RUNS]


def _comparison(console: Console, look: Look, report: Report) -> None:
    for title, sentences in comparison.sections(report.insight) if report.insight else ():
        console.print()
        console.print(_styled(look, title, "bold"))
        for sentence in sentences:
            _say(console, look, f"· {sentence}", 2)


def _omitted(console: Console, look: Look, report: Report, shown: list[RunReport]) -> None:
    rest = len(report.runs) - len(shown)
    if rest:
        console.print()
        more = f"{wording.counted(rest, 'more run')} in the table only; --verbose shows all in full."
        console.print(_styled(look, more, "dim"))


def _run(console: Console, look: Look, run: RunReport) -> None:
    console.print()
    head = _styled(look, f"{look.sign(run.verdict)} {run.run.name}", f"bold {STYLES[run.verdict]}")
    word = wording.VERDICT_WORDS[run.verdict]
    facts = f"  {word}, {wording.size(run)}  {_spark(look, run, 24)}"
    console.print(head.append_text(_styled(look, facts.rstrip())))
    if plain(run.run.path) != plain(run.run.name):
        path = _styled(look, f"  {run.run.path}", "dim")
        console.print(path, soft_wrap=True)  # never broken, so that it can be copied
    _findings(console, look, run)
    if look.verbose or not run.run.series or any(f.scope_kind != "run" for f in run.findings):
        _layers(console, look, run)
    _say(console, look, wording.not_checked(run), 2, "dim")
    _say(console, look, wording.unmapped(run), 2, "dim")
    problem_list(console, look, run.problems, 2)


def finding_list(console: Console, look: Look, run: RunReport, facts: str) -> None:
    """The head of a checkpoint's report: its verdict, facts and findings."""
    _print(
        console, _styled(look, f"{look.sign(run.verdict)} {run.run.path}", f"bold {STYLES[run.verdict]}"), 0
    )
    _say(console, look, facts, 2, "dim")
    _findings(console, look, run)


def problem_list(console: Console, look: Look, problems: tuple[Problem, ...], indent: int = 0) -> None:
    _problems(console, look, problems, "Problems while reading", indent)


def _findings(console: Console, look: Look, run: RunReport) -> None:
    """Each with those it explains beneath it; where there are none, what that means."""
    if not run.findings:
        _say(console, look, _silence(run), 2)
    for finding, explained in wording.nested(run.findings):
        _finding(console, look, finding)
        for child in explained:
            _explained(console, look, child)


def _silence(run: RunReport) -> str:
    if run.verdict == "healthy":
        whole = not any(p.kind in LOSSES for p in run.problems)
        return (
            "Nothing found." if whole else "Nothing found in what could be read; some could not, see below."
        )
    if run.run.checkpoints and not run.run.series:
        return "Nothing in it can be judged."
    return "Too little was logged to judge this run."


def _finding(console: Console, look: Look, finding: Finding) -> None:
    console.print()
    head = _styled(look, f"{look.sign(finding.severity)} {finding.severity}", STYLES[finding.severity])
    facts = [wording.scope(finding), wording.step_range(finding.steps)]
    facts.append(f"confidence {wording.percent(finding.confidence)}")
    head.append_text(_styled(look, f": {finding.title}", "bold"))
    head.append_text(_styled(look, f" ({', '.join(filter(None, facts))}) "))
    head.append_text(_styled(look, f"[{finding.rule}]", "dim"))
    _print(console, head, 2)
    _say(console, look, finding.summary, 4)
    if finding.severity == "info" and not look.verbose:  # worth knowing, nothing to change
        return
    _evidence(console, look, finding.evidence)
    _causes(console, look, finding.causes)
    _remedies(console, look, finding.remedies)
    if look.verbose:
        for text in finding.false_positives:
            _say(console, look, f"False alarm when: {text}", 4, "dim")


def _evidence(console: Console, look: Look, evidence: tuple[Evidence, ...]) -> None:
    """What was measured; unless all is wanted, not that enough was logged, and the first few."""
    telling = [e for e in evidence if look.verbose or not e.feature.endswith(".points")]
    shown = telling if look.verbose else telling[:EVIDENCE]
    for item in shown:
        _hanging(console, look, "-" if look.ascii else "·", item.text, 4)
    if len(shown) < len(telling):
        more = wording.counted(len(telling) - len(shown), "more measurement")
        _say(console, look, f"{more} with --verbose", 6, "dim")


def _explained(console: Console, look: Look, finding: Finding) -> None:
    """A finding that the one above explains: what it is, without advice of its own."""
    arrow = "->" if look.ascii else "↳"
    verdict = f"{arrow} {look.sign(finding.severity)} {finding.severity}"
    head = _styled(look, verdict, STYLES[finding.severity])
    head.append_text(_styled(look, f": {finding.title}"))
    head.append_text(_styled(look, f" (explained by {finding.explained_by}) [{finding.rule}]", "dim"))
    _print(console, head, 4)
    _say(console, look, finding.summary, 7)


def _causes(console: Console, look: Look, causes: tuple[LikelyCause, ...]) -> None:
    shown = causes if look.verbose else causes[:CAUSES]
    if shown:
        _say(console, look, "Possible causes:", 4, "bold")
    for cause in shown:
        _hanging(console, look, f"{wording.percent(cause.likelihood):>4}", cause.text, 6)
        if look.verbose:
            for reason in cause.evidence:
                _say(console, look, reason, 11, "dim")


def _remedies(console: Console, look: Look, remedies: tuple[Remedy, ...]) -> None:
    for remedy in remedies if look.verbose else remedies[:1]:
        _say(console, look, f"Try: {remedy.title} (effort: {remedy.effort})", 4, "bold")
        if remedy.text and look.verbose:
            _say(console, look, remedy.text, 6)
        snippets = list(remedy.snippets.items())
        for name, code in snippets if look.verbose else snippets[:1]:
            if look.verbose and len(snippets) > 1:
                _say(console, look, wording.framework(name), 6, "dim")
            _code(console, look, code)
    if len(remedies) > 1 and not look.verbose:
        more = "1 more remedy" if len(remedies) == 2 else f"{len(remedies) - 1} more remedies"
        _say(console, look, f"{more} with --verbose", 4, "dim")


def _code(console: Console, look: Look, code: str) -> None:
    """Code as it is: never re-wrapped, so that it can be copied."""
    indented = "\n".join(f"      {line}" for line in look.block(code).strip("\n").splitlines())
    console.print(_text(indented, "cyan"), soft_wrap=True)


def _layers(console: Console, look: Look, run: RunReport) -> None:
    """A checkpoint's tensors, worst first."""
    if not run.layers:
        return
    console.print()
    shown = layers.worst_first(layers.final_weights(run.layers))
    for layer in shown if look.verbose else shown[:LAYER_ROWS]:
        shape = "×".join(map(str, layer.shape)) or "scalar"
        spread = f"mean {wording.number(layer.mean)}, std {wording.number(layer.std)}"
        bounds = f"{wording.number(layer.min)} … {wording.number(layer.max)}"
        bad = f", {layer.nan} NaN, {layer.inf} Inf" if layer.nan or layer.inf else ""
        zeros = f", {wording.percent(layers.share(layer.zeros, layer))} zeros" if layer.zeros else ""
        text = f"{layers.label(layer)} {shape} {layer.dtype}: {spread}, {bounds}{zeros}{bad}"
        _hanging(console, look, "-", text, 2)
    if len(shown) > LAYER_ROWS and not look.verbose:
        _say(console, look, f"… and {len(shown) - LAYER_ROWS} more tensors with --verbose", 2, "dim")


def _problems(
    console: Console, look: Look, problems: tuple[Problem, ...], title: str, indent: int = 0
) -> None:
    if not problems:
        return
    console.print()
    _say(console, look, f"{title}: {len(problems)}", indent, "bold")
    shown = problems if look.verbose else problems[:PROBLEMS]
    for problem in shown:
        _say(console, look, f"{problem.path}: {problem.message} ({problem.kind})", indent + 2)
    if len(shown) < len(problems):
        _say(console, look, f"… and {len(problems) - len(shown)} more", indent + 2, "dim")


def _say(console: Console, look: Look, text: str, indent: int, style: str = "") -> None:
    if text:
        _print(console, _styled(look, text, style), indent)


def _print(console: Console, text: Text, indent: int) -> None:
    from rich.padding import Padding

    text.overflow = "fold"
    console.print(Padding(text, (0, 0, 0, indent), expand=False))


def _hanging(console: Console, look: Look, sign: str, text: str, indent: int) -> None:
    """The text beside its sign, later lines aligned with the first."""
    from rich.padding import Padding
    from rich.table import Table

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(_styled(look, sign), _styled(look, text))
    grid.columns[1].overflow = "fold"
    console.print(Padding(grid, (0, 0, 0, indent), expand=False))


def _styled(look: Look, text: str, style: str = "") -> Text:
    return _text(look.line(text), style)


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)
