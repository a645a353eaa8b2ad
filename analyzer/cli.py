"""The command line: click commands, no logic. Everything heavy is imported when it is needed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from analyzer._version import __version__
from analyzer.auditing.commands import audit_group
from analyzer.commandline import (
    ANYWHERE,
    EXIT_FOUND,
    EXIT_INTERRUPTED,
    EXIT_NOTHING,
    EXIT_USAGE,
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
    from analyzer.model import Report, Rule, RunReport
    from analyzer.pipeline import Forward

FORMATS = ("terminal", "html", "json", "markdown", "junit", "github", "csv", "png", "pdf")


class PathOrCommand(click.Group):
    """A group whose first word may also be a path to analyse.

    A word that names both a command and an existing path is the command only when what follows
    makes sense for it; ``./word`` is always the path.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in ("--help", "-h", "--version") and not self._is_command(args):
            args = [PATHS, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # 1, click's own code for it, means that something was found
            click.echo("\nInterrupted.", err=True)
            sys.exit(EXIT_INTERRUPTED)

    def _is_command(self, args: Sequence[str]) -> bool:
        word, rest = args[0], args[1:]
        command = self.commands.get(word)
        if command is None or command.hidden:
            return False
        if not Path(word).exists() or "--help" in rest or "-h" in rest:
            return True
        if isinstance(command, click.Group):
            return bool(rest) and (rest[0] in command.commands or self._asks_more(command, rest))
        own = {name for param in command.params for name in param.opts}
        foreign = any(a.startswith("-") and a.partition("=")[0] not in own for a in rest)
        words = [a for a in rest if not a.startswith("-")]
        return bool(words) and not foreign and not Path(words[0]).is_dir()

    def _asks_more(self, group: click.Group, rest: Sequence[str]) -> bool:
        """Whether an option follows that the group's command for paths has, and the diagnosis has not."""
        ours, theirs = (found.commands.get(PATHS) for found in (self, group))
        known = {name for param in ours.params for name in param.opts} if ours else set()
        more = {name for param in theirs.params for name in param.opts} - known if theirs else set()
        return any(word.partition("=")[0] in more for word in rest)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("analyze", "PATH... [OPTIONS]\n       analyze COMMAND [ARGS]...")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of the diagnosis first: they are what ``analyze --help`` is asked for."""
        options = (p for p in self.commands[PATHS].params if isinstance(p, click.Option))
        records = (option.get_help_record(ctx) for option in options)
        with formatter.section("Options of a diagnosis"):
            formatter.write_dl([record for record in records if record])
        super().format_options(ctx, formatter)


@click.group(
    cls=PathOrCommand, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True
)
@click.version_option(__version__, prog_name="analyze")
def cli() -> None:
    """Find out what went wrong in deep-learning runs, and what to change.

    \b
    analyze runs/                     diagnose every run below a folder
    analyze runs/ --report html       the same as a self-contained page
    analyze audit ~/experiments       thousands of runs: what ails them, what the sick share
    analyze checkpoint best.ckpt      what is in a checkpoint, and what is wrong with it
    analyze rules list                everything that can be diagnosed
    """


def _paths_argument(function: Any) -> Any:
    """Paths and URLs: as text, since ``Path`` would make ``s3:/x`` of ``s3://x``."""
    return click.argument("paths", nargs=-1, required=True, type=ANYWHERE)(function)


@cli.command(PATHS, cls=UnnamedCommand, hidden=True)
@_paths_argument
@click.option(
    "--report",
    "formats",
    multiple=True,
    type=click.Choice(FORMATS),
    help="Output format; may be repeated. Default: terminal.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="File to write; with several formats, their common stem. '-' is stdout.",
)
@click.option(
    "--rules",
    "rule_folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of further rules; may be repeated.",
)
@click.option("--select", multiple=True, metavar="ID", help="Apply these rules only.")
@click.option("--ignore", multiple=True, metavar="ID", help="Leave these rules out.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ROLE=TAG",
    help="Say what a tag is, e.g. 'train_loss=my/odd tag'.",
)
@click.option(
    "--fail-on",
    type=click.Choice(LEVELS),
    default="never",
    show_default=True,
    help="Exit with 1 when a finding is at least this severe.",
)
@click.option("--verbose", "-v", is_flag=True, help="Every finding of every run, all remedies.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
def run_command(
    paths: tuple[str, ...],
    formats: tuple[str, ...],
    output: Path | None,
    rule_folders: tuple[Path, ...],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    roles: tuple[str, ...],
    fail_on: str,
    verbose: bool,
    quiet: bool,
) -> None:
    """Diagnose the runs at or below PATHS (the default command).

    A path may be a folder, a file, an archive (zip, tar) or a URL (s3://, gs://, hf://, https://).

    \b
    Exit codes: 0 nothing at or above --fail-on; 1 something was;
    2 wrong usage or a broken rule; 3 nothing could be read.
    """
    from analyzer.pipeline import analyze_paths

    targets = _targets(output, formats or ("terminal",))
    rules = _rules(rule_folders, select, ignore)
    given_roles = overrides(roles)
    progress = None if quiet else _progress()
    report = analyze_paths(paths, rules, given_roles, progress)
    if progress:
        progress(-1, 0, "")
    if not report.runs and targets.get("terminal", paths) is None:
        del targets["terminal"]  # stderr says it all
    _write(report, targets, verbose)
    if not report.runs:
        _say_nothing_read(report, paths)
        sys.exit(EXIT_NOTHING)
    sys.exit(exit_code((f.severity for f in report.findings), fail_on))


def _rules(
    folders: Sequence[Path], select: Sequence[str] = (), ignore: Sequence[str] = ()
) -> tuple[Rule, ...]:
    from analyzer.rulebook import load_rules, selected

    with usage_errors():
        return selected(load_rules(folders), select, ignore)


def _progress() -> Any:
    """A line on stderr while a terminal watches; nothing otherwise."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int, name: str) -> None:
        from analyzer.report.escape import plain

        text = f"{done + 1}/{total} {plain(name)}"[:78] if total else ""
        click.echo(f"\r{text:<78}\r", nl=False, err=True)

    return show


def _targets(output: Path | None, names: Sequence[str]) -> dict[str, Path | None]:
    """Where each format goes: None is stdout. Pages and pictures go to a file unless stdout is asked for."""
    from analyzer.report import formats as known

    suffixes = {name: known()[name].SUFFIX for name in dict.fromkeys(names)}
    targets: dict[str, Path | None] = dict.fromkeys(suffixes)
    if output is None:
        files = {name: getattr(known()[name], "DEFAULT_FILE", None) for name in targets}
        targets |= {name: Path(file) for name, file in files.items() if file}
    elif str(output) != "-":
        stem = output / "report" if output.is_dir() else output
        own = len(targets) == 1 and stem is output
        every = {module.SUFFIX for module in known().values()}
        for name, suffix in suffixes.items():
            if own or name != "terminal":
                targets[name] = output if own else beside(stem, suffix, every)
    one_on_stdout(targets.values())
    return targets


def _write(report: Report, targets: Mapping[str, Path | None], verbose: bool) -> None:
    from analyzer.errors import AnalyzerError
    from analyzer.report import formats as known

    for name, target in targets.items():
        options = _terminal_options(target is None) if name == "terminal" else {}
        try:
            text = known()[name].render(report, verbose=verbose, **options)
        except AnalyzerError as error:
            click.echo(f"{name} report: {error}", err=True)
            sys.exit(EXIT_USAGE)
        if target is None:
            _print(text)
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            kept = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
            target.write_bytes(kept)
        except OSError as error:
            click.echo(f"{target}: cannot be written: {error.strerror}", err=True)
            sys.exit(EXIT_USAGE)
        click.echo(f"{name} report: {target}", err=True)


def _terminal_options(to_stdout: bool) -> dict[str, Any]:
    import shutil

    look = _look() if to_stdout else {**_look(), "color": False}
    return {**look, "width": shutil.get_terminal_size((80, 24)).columns}


def _look() -> dict[str, bool]:
    """Whether stdout shows colours, and whether only ASCII."""
    import os

    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return {"color": color, "ascii_only": not _encodes(sys.stdout)}


def _encodes(stream: Any) -> bool:
    try:
        "─█▁●✓".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _print(text: str | bytes) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    shown = text if isinstance(text, bytes) else text.encode(encoding, "replace").decode(encoding)
    try:
        click.echo(shown, nl=isinstance(text, str) and not text.endswith("\n"), color=True)
    except BrokenPipeError:  # who read it has seen enough
        raise
    except OSError as error:
        click.echo(f"stdout: cannot be written: {error.strerror}", err=True)
        sys.stdout = None  # else Python tries once more when it ends
        sys.exit(EXIT_USAGE)


def _say_nothing_read(report: Report, paths: Sequence[str]) -> None:
    from analyzer.remote import masked
    from analyzer.report.escape import plain

    named = ", ".join(plain(masked(p)) for p in paths)
    click.echo(f"Nothing could be read at {named}.", err=True)
    for problem in report.problems[:20]:
        hint = _meant(problem.path) if problem.kind == "missing" else ""
        click.echo(f"  {plain(problem.path)}: {plain(problem.message)}{plain(hint)}", err=True)
    if len(report.problems) > 20:
        click.echo(f"  and {len(report.problems) - 20} more", err=True)
    if not report.problems:
        click.echo(
            "  No training log and no checkpoint was found there. Give the folder of a run or of", err=True
        )
        click.echo("  several, or a log itself: event files, CSV, JSON, console output and more.", err=True)


def _meant(path: str) -> str:
    """``; did you mean …`` for a path like a command, or whose folder holds something of a similar name."""
    from difflib import get_close_matches

    if path == "-":
        return "; standard input is not read, save it to a file"
    if command := get_close_matches(path, [name for name in cli.commands if name != PATHS], 1, 0.8):
        return f"; did you mean the command `analyze {command[0]}`?"
    given = Path(path)
    try:
        beside = [entry.name for entry in given.parent.iterdir()]
    except OSError:
        return ""
    close = get_close_matches(given.name, beside, 1)
    return f"; did you mean {given.with_name(close[0])}?" if close else ""


@cli.command("checkpoint")
@click.argument("files", nargs=-1, required=True, type=ANYWHERE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout (with --each a list).")
@click.option("--csv", "as_csv", is_flag=True, help="One row per tensor on stdout.")
@click.option(
    "--html", "page", type=click.Path(path_type=Path), help="Write a page with heat strips and histograms."
)
@click.option("--layer", "pattern", metavar="GLOB", help="Only tensors whose name matches.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(("worst", "name", "size", "depth")),
    default="worst",
    show_default=True,
)
@click.option("--each", is_flag=True, help="Report several files one by one instead of comparing them.")
@click.option("--spectral", is_flag=True, help="Singular values, too: ranks and tail of every weight matrix.")
@click.option(
    "--model",
    metavar="PACKAGE.MODULE:FACTORY",
    help="Measure activations: run this model of yours, filled with the weights. Executes your code.",
)
@click.option("--inputs", type=click.Path(path_type=Path), help="A batch to run on: .pt, .npz, .npy or .csv.")
@click.option(
    "--run",
    "run_file",
    is_flag=True,
    help="Run the graph in a TorchScript, torch.export or ONNX file that you trust.",
)
@click.option("--verbose", "-v", is_flag=True, help="Every tensor, all remedies.")
@click.option(
    "--fail-on",
    type=click.Choice(LEVELS),
    default="never",
    show_default=True,
    help="Exit with 1 when a finding is at least this severe.",
)
def checkpoint_command(
    files: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    page: Path | None,
    pattern: str | None,
    order: Any,
    each: bool,
    spectral: bool,
    model: str | None,
    inputs: Path | None,
    run_file: bool,
    verbose: bool,
    fail_on: str,
) -> None:
    """What is in a checkpoint and what is wrong with it; nothing in it is executed.

    Two files are compared tensor by tensor, more are followed along the run.
    """
    from analyzer.pipeline import Forward, to_report

    if as_json and as_csv:
        raise click.UsageError("--json and --csv cannot share stdout: choose one.")
    form = "json" if as_json else "csv" if as_csv else None
    if inputs and not (model or run_file):
        raise click.UsageError("--inputs goes with --model or --run.")
    if len(files) > 1 and not each:
        _compare_checkpoints(files, form, pattern, verbose)
        return
    forward = Forward(inputs, model or "") if model or run_file else None
    reports = _checkpoint_reports(files, spectral, forward)
    if not reports:
        sys.exit(EXIT_NOTHING)
    if page:
        _write(to_report(reports, ()), {"html": page}, verbose)
    if form or not page:
        _print(_checkpoints_shown(reports, form, pattern, order, verbose, spectral, len(files) > 1))
    sys.exit(exit_code((f.severity for r in reports for f in r.findings), fail_on))


def _checkpoint_reports(files: Sequence[str], spectral: bool, forward: Forward | None) -> list[RunReport]:
    """Of those that can be read; why the others cannot goes to stderr."""
    from analyzer.errors import AnalyzerError
    from analyzer.pipeline import diagnose_checkpoint
    from analyzer.report.escape import plain

    rules, reports = _rules(()), []
    for file in files:
        try:
            reports.append(diagnose_checkpoint(file, rules, spectral, forward))
        except (AnalyzerError, OSError) as error:
            click.echo(plain(str(error)), err=True)
    return reports


def _checkpoints_shown(
    reports: Sequence[RunReport],
    form: str | None,
    pattern: str | None,
    order: Any,
    verbose: bool,
    spectral: bool,
    several: bool,
) -> str:
    from analyzer.report.checkpoint import as_csv, as_json, as_text

    if form == "csv":
        return "\n".join(as_csv(report, pattern, order) for report in reports)
    if form == "json":
        documents = [as_json(report, pattern, order) for report in reports]
        return f"[{','.join(documents)}]" if several else documents[0]
    look = _terminal_options(True) | {"verbose": verbose, "spectral": spectral}
    return "\n".join(as_text(report, pattern, order, **look) for report in reports)


def _compare_checkpoints(files: Sequence[str], form: str | None, pattern: str | None, verbose: bool) -> None:
    from analyzer.checkpoints.changes import WEIGHTS
    from analyzer.errors import AnalyzerError
    from analyzer.pipeline import compare_checkpoints
    from analyzer.report.checkpoint_changes import matching, render
    from analyzer.report.escape import plain

    try:
        groups = (*WEIGHTS, "optimizer") if verbose else WEIGHTS
        held, changes, paths = compare_checkpoints(files, groups)
    except (AnalyzerError, OSError) as error:
        click.echo(plain(str(error)), err=True)
        sys.exit(EXIT_NOTHING)
    look = _terminal_options(True) | {"verbose": verbose}
    _print(render(held, matching(changes, pattern), matching(paths, pattern), form, **look))


@cli.group("rules")
def rules_group() -> None:
    """List, show, check and test rules."""


@rules_group.command("list")
@click.option(
    "--rules", "folders", multiple=True, type=click.Path(path_type=Path), help="Folder of further rules."
)
def rules_list(folders: tuple[Path, ...]) -> None:
    """Every rule with its severity and title."""
    for rule in _rules(folders):
        click.echo(f"{rule.id:<30} {rule.severity:<9} {rule.title}")


@rules_group.command("show")
@click.argument("rule_id")
@click.option(
    "--rules", "folders", multiple=True, type=click.Path(path_type=Path), help="Folder of further rules."
)
def rules_show(rule_id: str, folders: tuple[Path, ...]) -> None:
    """What a rule means, when it fires and what it advises."""
    from analyzer.report.terminal import rule_page
    from analyzer.rulebook import explain

    _print(rule_page(explain(_rules(folders, [rule_id])[0]), **_look()))


cli.add_command(rules_show, "explain")


@rules_group.command("new")
@click.argument("rule_id", metavar="ID")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("my-rules"),
    show_default=True,
    help="Where to put it.",
)
def rules_new(rule_id: str, folder: Path) -> None:
    """Write a rule to start from: complete, commented, passing its own tests."""
    from analyzer.rulebook.scaffold import new_rule

    with usage_errors():
        path = new_rule(rule_id, folder, {rule.id for rule in _rules(())})
    click.echo(f"{path}\nChange it, then: analyze rules test {folder}")


@rules_group.command("check")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def rules_check(folder: Path | None) -> None:
    """Check rule files: every mistake at once, as path:line:column."""
    from analyzer.rulebook import check_rules

    with usage_errors():
        rules = check_rules(folder)
    click.echo(f"{len(rules)} rules, no mistakes")


@rules_group.command("test")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--verbose", "-v", is_flag=True, help="List the examples that pass, too.")
def rules_test(folder: Path | None, verbose: bool) -> None:
    """Run the examples embedded in the rules."""
    from analyzer.roles import with_roles
    from analyzer.rulebook import check_rules, run_examples

    with usage_errors():
        rules = check_rules(folder)
    results = run_examples(rules, with_roles)
    for result in results:
        if verbose or not result.passed:
            word = "ok  " if result.passed else "FAIL"
            click.echo(f"{word} {result.rule}: {result.test}: {result.detail}")
    failed = sum(not r.passed for r in results)
    click.echo(f"{len(results) - failed} passed, {failed} failed")
    sys.exit(EXIT_FOUND if failed else 0)


cli.add_command(audit_group)


def main() -> None:
    """Entry point of ``analyze``."""
    import atexit
    import gc
    import os

    # numpy's BLAS would start threads for small products, which wait for one another on a busy machine
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    atexit.register(gc.freeze)  # or Python looks through all that is left for garbage, twice, as it ends
    cli(prog_name="analyze")
