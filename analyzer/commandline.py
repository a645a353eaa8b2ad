"""What the command lines of a diagnosis and of an audit share: exit codes, roles, names of files."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

ANYWHERE = click.Path(readable=False)  # one path that cannot be read must not cost the others
LEVELS = ("never", "info", "warning", "critical")  # of --fail-on
EXIT_FOUND, EXIT_USAGE, EXIT_NOTHING, EXIT_INTERRUPTED = 1, 2, 3, 130
PATHS = "(paths)"  # the name of a group's command without a name: nobody has a path of this one


class Unnamed(click.Context):
    """The context of a command whose name is never typed: usage speaks of its group alone."""

    @property
    def command_path(self) -> str:
        return self.parent.command_path if self.parent else super().command_path


class UnnamedCommand(click.Command):
    context_class = Unnamed


def overrides(roles: Sequence[str]) -> dict[str, str]:
    """Tag -> role of what was given as ``--role``; raises click.BadParameter."""
    if not roles:
        return {}
    from analyzer.roles import parse_override

    try:
        return dict(parse_override(text) for text in roles)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--role") from error


@contextmanager
def usage_errors() -> Iterator[None]:
    """What the user can mend as a message and the exit code for it, without a traceback."""
    from analyzer.errors import AnalyzerError
    from analyzer.report.escape import plain_block

    try:
        yield
    except AnalyzerError as error:
        click.echo(plain_block(str(error)), err=True)
        sys.exit(EXIT_USAGE)


def exit_code(severities: Iterable[str], fail_on: str) -> int:
    """0, or 1 where one of the findings is at least as severe as ``fail_on``, one of LEVELS."""
    found = fail_on != "never" and any(LEVELS.index(s) >= LEVELS.index(fail_on) for s in severities)
    return EXIT_FOUND if found else 0


def beside(stem: Path, suffix: str, known: Collection[str]) -> Path:
    """A file of several with a common stem, of which only a format's ``known`` suffix is taken off."""
    name = stem.stem if stem.suffix in known else stem.name
    return stem.with_name(name + suffix)


def one_on_stdout(targets: Collection[Path | None]) -> None:
    """Raises click.UsageError where several formats have no file."""
    if list(targets).count(None) > 1:
        raise click.UsageError("Several formats cannot share stdout: name their files with --output STEM.")
