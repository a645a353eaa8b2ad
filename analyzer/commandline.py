"""What the command lines of a diagnosis and of an audit share: exit codes, roles, names of files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


def beside(stem: Path, suffix: str, known: Collection[str]) -> Path:
    """A file of several with a common stem, of which only a format's ``known`` suffix is taken off."""
    name = stem.stem if stem.suffix in known else stem.name
    return stem.with_name(name + suffix)


def one_on_stdout(targets: Collection[Path | None]) -> None:
    """Raises click.UsageError where several formats have no file."""
    if list(targets).count(None) > 1:
        raise click.UsageError("Several formats cannot share stdout: name their files with --output STEM.")
