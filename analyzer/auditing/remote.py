"""Trees of runs at a URL: listed folder by folder, and fetched one run at a time.

A folder with files of its own is taken whole, with all below it, as long as few folders lie in it; a
folder of many folders is entered. So a run's ``train/`` and ``checkpoints/`` stay with it, a stray file
beside a thousand runs does not make one of them, and no more than one run's files are here at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from analyzer.auditing.tasks import Bundle
from analyzer.discover import CHECKPOINT_FOLDERS, CONFIG_FOLDERS, SPLIT_WORDS, discover, enters
from analyzer.model import Problem, Rule, RunReport
from analyzer.pipeline import diagnose_run
from analyzer.reading import runs_of
from analyzer.remote import local_copies, masked
from analyzer.remote.limits import Refused, is_other, reason_of
from analyzer.remote.urls import filesystem

MANY = 8  # folders in one folder: more are runs, not parts of one
KEYS = ("ETag", "etag", "md5Hash", "checksum", "version_id", "generation", "LastModified", "mtime", "created")


def remote_bundles(url: str, problems: list[Problem]) -> Iterator[Bundle]:
    """One bundle for each folder to fetch, as the listing goes on; nothing is fetched for it."""
    try:
        files, root = filesystem(url)
        yield from _below(files, url.rstrip("/"), root, problems)
    except Refused as refused:
        problems.append(Problem(masked(url), refused.kind, refused.message))


def _below(files: Any, url: str, folder: str, problems: list[Problem]) -> Iterator[Bundle]:
    found = _listed(files, url, folder, problems)
    folders = [name for name, info in found.items() if info["type"] == "directory" and enters(name)]
    own = {name: info for name, info in found.items() if info["type"] != "directory"}
    telling = [name for name in own if not is_other(Path(name))]
    if (telling and len(folders) <= MANY) or any(map(_part_of_a_run, folders)):
        inside = dict(_files_below(files, url, folder, problems))
        yield _bundle(f"{url}/", inside)
        return
    if telling:
        for name in telling:
            yield _bundle(f"{url}/{name}", {name: own[name]})
    for name in folders:
        yield from _below(files, f"{url}/{name}", str(found[name]["name"]).rstrip("/"), problems)


def _listed(files: Any, url: str, folder: str, problems: list[Problem]) -> Mapping[str, Any]:
    """What lies in a folder, by name."""
    try:
        found = files.ls(folder, detail=True)
    except Exception as error:  # each driver has errors of its own
        problems.append(Problem(masked(url), "unreadable", f"cannot be listed: {reason_of(error)}"))
        return {}
    named = {str(info["name"]).rstrip("/").rsplit("/", 1)[-1]: info for info in found}
    inside = {name: info for name, info in named.items() if str(info["name"]).rstrip("/") != folder and name}
    return dict(sorted(inside.items()))


def _part_of_a_run(folder: str) -> bool:
    return (
        folder.lower() in SPLIT_WORDS
        or folder in CONFIG_FOLDERS
        or CHECKPOINT_FOLDERS.fullmatch(folder) is not None
    )


def _files_below(
    files: Any, url: str, folder: str, problems: list[Problem], below: str = ""
) -> Iterator[tuple[str, Any]]:
    for name, info in _listed(files, url, folder, problems).items():
        if info["type"] != "directory":
            yield below + name, info
        elif enters(name):
            yield from _files_below(files, url, str(info["name"]).rstrip("/"), problems, f"{below}{name}/")


def _bundle(url: str, inside: Mapping[str, Any]) -> Bundle:
    found = hashlib.blake2b(digest_size=16)
    for name, info in inside.items():
        state = [info.get("size"), *(info[key] for key in KEYS if key in info)]
        found.update(f"{name}\0{state}\0".encode("utf-8", "surrogatepass"))
    size = sum(int(info.get("size") or 0) for info in inside.values())
    newest = max((_time(info) for info in inside.values()), default=0.0)
    return Bundle(masked(url), url=url, fingerprint=found.hexdigest(), bytes=size, modified=newest)


def _time(info: Mapping[str, Any]) -> float:
    """Seconds since 1970, by whichever name the store has for it; 0 where it does not say."""
    for key in ("LastModified", "last_modified", "mtime", "modified", "updated"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0


def fetched(
    bundle: Bundle,
    rules: Sequence[Rule],
    roots: Sequence[str],
    roles: Mapping[str, str],
    problems: list[Problem],
    passed_over: list[Path],
) -> Iterator[RunReport]:
    """The runs of a folder that is brought here, named as they lie there; it is gone afterwards."""
    with local_copies([bundle.url.rstrip("/")]) as copies:
        found = discover(copies.paths)
        ours: list[Problem] = [*copies.problems, *found.problems]
        left: list[Path] = list(found.passed_over)
        above = [_root(bundle.url, root, path) for root in roots for path in copies.paths if "://" in root]
        for group in found.groups:
            for run in runs_of(group, above or copies.paths, roles, ours, left):
                yield copies.shown(diagnose_run(run, rules))
        problems += copies.shown(ours)
        passed_over += [Path(copies.shown(str(path))) for path in left]


def _root(url: str, root: str, path: Path) -> Path:
    """Where the folder that was given would lie, if ``path`` is where that at ``url`` does."""
    depth = len(url.rstrip("/").split("/")) - len(root.rstrip("/").split("/"))
    return [path, *path.parents][depth] if 0 <= depth <= len(path.parents) else path
