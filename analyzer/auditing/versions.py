"""What an entry of the ledger depends on besides its files: the code that reads, and the rules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable

from analyzer._version import __version__
from analyzer.model import Rule

# What neither reads nor measures; any change of all the rest means that runs must be read again.
TELLING = (
    "auditing", "callbacks", "cli.py", "commandline.py", "insight", "notebook.py", "report", "rulebook",
    "tensorboard_plugin.py",
)  # fmt: skip
KEEPING = ("auditing/record.py", "insight/member.py", "report/json_report.py")  # what is kept of a run
JUDGING = ("rulebook", "auditing/examine.py", "insight/waste.py")
PLUGINS = "analyzer.ingest"


def reader_version(roles: Mapping[str, str]) -> str:
    """Changes with the code that reads and measures, its plugins, and the roles that were given."""
    plugins = sorted(
        f"{p.name} {p.value} {p.dist.version if p.dist else ''}" for p in metadata.entry_points(group=PLUGINS)
    )
    return _digest(
        [_reading(), _code(KEEPING), *plugins, *(f"{tag}={role}" for tag, role in sorted(roles.items()))]
    )


def rules_version(rules: Iterable[Rule]) -> str:
    """Changes with anything that the rules say, and with the code that applies them."""
    return _digest([_code(JUDGING), *(repr(rule).replace(repr(rule.path), "''") for rule in rules)])


@cache
def _reading() -> str:
    package = resources.files("analyzer")
    names = sorted(entry.name for entry in package.iterdir() if entry.name not in (*TELLING, "_rules"))
    return _code(tuple(names))


@cache
def _code(names: tuple[str, ...]) -> str:
    package = resources.files("analyzer")
    return _digest([__version__, *(text for name in names for text in _texts(package.joinpath(name)))])


def _texts(place: Traversable) -> Iterable[str]:
    if place.is_file() and place.name.endswith((".py", ".yaml")):
        yield place.read_text(encoding="utf-8")
    elif place.is_dir():
        for inner in sorted(place.iterdir(), key=lambda entry: entry.name):
            yield from _texts(inner)


def _digest(texts: Iterable[str]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for text in texts:
        found.update(text.encode("utf-8", "surrogatepass"))
        found.update(b"\0")
    return found.hexdigest()
