"""The ``analyze audit`` commands: options and exit codes; everything heavy is imported when it is needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from analyzer.commandline import (
    ANYWHERE,
    EXIT_FOUND,
    EXIT_INTERRUPTED,
    EXIT_NOTHING,
    LEVELS,
    PATHS,
    UnnamedCommand,
    beside,
    exit_code,
    one_on_stdout,
    overrides,
    usage_errors,
)

if TYPE_CHECKING:
    from analyzer.auditing.changes import Changes
    from analyzer.auditing.course import Audit, Options

FORMATS = ("terminal", "html", "json", "jsonl", "parquet", "junit")


class PathsOrCommand(click.Group):
    """``diff`` and ``merge`` are commands, but where there is a file or folder of that name only if the
    name of a file follows; any other word is a path."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        word = args[0] if args else ""
        named = word in self.commands and (not Path(word).exists() or Path(*args[1:2]).is_file())
        if args and not named and word not in ("--help", "-h"):
            args = [PATHS, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("analyze audit", "PATH... [OPTIONS]\n       analyze audit COMMAND [ARGS]...")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = (p.get_help_record(ctx) for p in self.commands[PATHS].params if isinstance(p, click.Option))
        with formatter.section("Options of an audit"):
            formatter.write_dl([record for record in records if record])
        super().format_options(ctx, formatter)


@click.group("audit", cls=PathsOrCommand, no_args_is_help=True)
def audit_group() -> None:
    """Diagnose whole histories of runs, remembering what is known.

    \b
    analyze audit ~/experiments                 what ails them, and what the sick have in common
    analyze audit ~/experiments --report html   a page to search, audit.html
    analyze audit diff old.json new.json        what changed between two audits
    """


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of an audit."""
    for option in reversed(
        (
            click.option("--report", "formats", multiple=True, type=click.Choice(FORMATS), help="Output format; may be repeated. Default: terminal."),
            click.option("--output", "-o", type=click.Path(path_type=Path), help="File to write; with several formats, their common stem. '-' is stdout."),
            click.option("--jobs", "-j", type=click.IntRange(min=1), help="Processes on this machine. Default: as many as it has cores."),
            click.option("--engine", type=click.Choice(("local", "dask", "ray")), default="local", show_default=True, help="Where the work is done."),
            click.option("--scheduler", "--address", "address", default="", metavar="ADDRESS", help="Of the cluster: tcp://host:8786 for Dask, auto or host:6379 for Ray."),
            click.option("--shard", metavar="I/N", callback=_shard, help="Only the I-th of N parts, for jobs that share the work; see audit merge."),
            click.option("--ledger", type=click.Path(dir_okay=False, path_type=Path), help="What is remembered. Default: .analyzer/audit.sqlite in the folder audited."),
            click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the N runs changed last."),
            click.option("--since", metavar="WHEN", callback=_since, help="Only runs changed since: 2025-11-03, 7d, 12h."),
            click.option("--where", default="", metavar="CONDITION", help="Only runs whose hyperparameters fit: 'lr > 0.01 and optimizer == adam'."),
            click.option("--fail-on", type=click.Choice(LEVELS), default="never", show_default=True, help="Exit with 1 when a finding is at least this severe."),
            click.option("--select", multiple=True, metavar="RULE", help="Apply only these rules."),
            click.option("--ignore", multiple=True, metavar="RULE", help="Leave out these rules."),
            click.option("--role", "roles", multiple=True, metavar="ROLE=TAG", help="Say what a tag is, where its name does not."),
            click.option("--rules", "rule_folders", multiple=True, type=click.Path(path_type=Path), help="Folder of further rules."),
            click.option("--timeout", type=click.FloatRange(min=1), default=300.0, show_default=True, metavar="SECONDS", help="Give up on a run that takes longer."),
            click.option("--memory", type=click.FloatRange(min=0.25), default=4.0, show_default=True, metavar="GIB", help="Give up on a run that needs more."),
            click.option("--verbose", "-v", is_flag=True, help="Every run, every problem."),
            click.option("--quiet", "-q", is_flag=True, help="No progress on stderr."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def _shard(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, int]:
    if text is None:
        return (1, 1)
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise click.BadParameter(f"'{text}' is not like 3/8")


def _since(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """Seconds since 1970."""
    import time
    from datetime import datetime

    if text is None:
        return None
    seconds = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}.get(text[-1:], 0)
    try:
        if seconds:
            return time.time() - float(text[:-1]) * seconds
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.BadParameter(f"'{text}' is neither a date like 2025-11-03 nor a span like 7d") from None


@audit_group.command(PATHS, cls=UnnamedCommand, hidden=True)
@click.argument("paths", nargs=-1, required=True, type=ANYWHERE)
@_options
def audit_command(paths: tuple[str, ...], **given: Any) -> None:
    """Diagnose every run at or below PATHS; what was read before and has not changed is not read again.

    \b
    Exit codes: 0 nothing at or above --fail-on; 1 something was;
    2 wrong usage, a broken rule or an unusable ledger; 3 nothing could be read.
    """
    from analyzer.auditing.course import audit
    from analyzer.auditing.progress import Progress

    targets = _targets(given["output"], given["formats"] or ("terminal",))
    progress = None if given["quiet"] else Progress(sys.stderr)
    with _errors():
        found = audit(paths, _asked(given), progress)
        if not found.records and targets.get("terminal", paths) is None:
            del targets["terminal"]  # stderr says it all
        _write(found, targets, given["verbose"])
    if not found.records and found.counts.found and given["where"]:
        click.echo("No run fits --where.", err=True)
    elif not found.records and found.left_out:
        click.echo(f"No run is left: --since or --shard leaves out all {found.left_out:,}.", err=True)
    elif not found.records:
        _say_nothing_found(found)
        sys.exit(EXIT_NOTHING)
    sys.exit(exit_code((f["severity"] for r in found.records for f in r.findings), given["fail_on"]))


def _say_nothing_found(found: Audit) -> None:
    from analyzer.report.escape import plain

    click.echo("No run was found.", err=True)
    for problem in found.problems[:20]:
        click.echo(f"  {plain(problem.path)}: {plain(problem.message)}", err=True)


def _asked(given: dict[str, Any]) -> Options:
    from analyzer.auditing.course import Options
    from analyzer.auditing.engines import Engine, cores

    same = ("ledger", "limit", "since", "shard", "where", "select", "ignore", "timeout")
    return Options(
        engine=Engine(given["engine"], given["jobs"] or cores(), given["address"]),
        rules=tuple(map(str, given["rule_folders"])),
        roles=tuple(overrides(given["roles"]).items()),
        memory=int(given["memory"] * 2**30),
        **{name: given[name] for name in same},
    )


@contextmanager
def _errors() -> Iterator[None]:
    """What the user can mend, or did, as a message without a traceback."""
    try:
        with usage_errors():
            yield
    except KeyboardInterrupt:
        click.echo("\nInterrupted. What was done is kept: the same command goes on from here.", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _targets(output: Path | None, formats: Sequence[str]) -> dict[str, Path | None]:
    """Where each format goes: None is stdout. HTML and Parquet go to a file unless one is named."""
    from analyzer.auditing.outputs import SUFFIXES

    names = list(dict.fromkeys(formats))
    stem = output if output and str(output) != "-" else None
    if stem and len(names) == 1:
        return {names[0]: stem}
    targets: dict[str, Path | None] = {}
    for name in names:
        own = beside(stem or Path("audit"), SUFFIXES[name], SUFFIXES.values())
        bare = name in ("html", "parquet") and not output
        targets[name] = own if bare or (stem and name != "terminal") else None
    one_on_stdout(targets.values())
    if targets.get("parquet", stem) is None and "parquet" in targets:
        raise click.UsageError("Parquet is no text: name its file with --output.")
    return targets


def _write(audit: Audit, targets: dict[str, Path | None], verbose: bool) -> None:
    from analyzer.auditing.outputs import OutputError, write

    for name, target in targets.items():
        try:
            write(audit, name, target, sys.stdout, verbose)
        except OSError as error:
            raise OutputError(f"{target or 'stdout'}: cannot be written: {error.strerror}") from None
        if target:
            click.echo(f"{name} report: {target}", err=True)


@audit_group.command("merge")
@click.argument("ledgers", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--ledger",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The ledger to add them to; made if there is none.",
)
def merge_command(ledgers: tuple[Path, ...], ledger: Path) -> None:
    """Put the LEDGERS of several shards into one; an audit with it then reads nothing again."""
    from analyzer.auditing.ledger import open_ledger

    with _errors(), open_ledger(ledger) as into:
        for other in ledgers:
            into.take(other)
        click.echo(f"{len(into.entries()):,} bundles of files in {ledger}", err=True)


@audit_group.command("diff")
@click.argument("old", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("new", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option(
    "--fail-on",
    type=click.Choice(LEVELS),
    default="never",
    show_default=True,
    help="Exit with 1 when a finding that is new or worse is at least this severe.",
)
def diff_command(old: Path, new: Path, as_json: bool, fail_on: str) -> None:
    """What changed from the audit OLD to NEW: ledgers, or what --report json or jsonl wrote."""
    from analyzer.auditing.changes import as_json_text, as_text, at_least, changes, findings_of

    with _errors():
        found: Changes = changes(findings_of(old), findings_of(new))
    click.echo(as_json_text(found) if as_json else as_text(found), nl=False)
    sys.exit(EXIT_FOUND if fail_on != "never" and at_least(found, fail_on) else 0)
