"""From paths to groups of files that are one run each.

What makes files one run:
- several event files of a folder; whatever a format says belongs to a folder (``shares_folder``);
- files of different formats in one folder: one run told twice (``results.csv`` beside events);
- folders that are named for the two halves of one run, ``train/`` beside ``validation/``, and
  files that are, ``train_metrics.csv`` beside ``val_metrics.csv``;
- a run folder's checkpoints and configurations, up to two folders below or above.
Several files of one table format in one folder are several runs.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from analyzer.checkpoints import container_for
from analyzer.ingest import HEAD_BYTES, Ingestor, ingestor_for
from analyzer.model import Problem

SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages", "venv", "env"}
KEPT_HIDDEN = {".hydra"}
# Never a log, whatever is inside: not even opened.
OTHER_SUFFIXES = frozenset(
    (
        *(".py", ".pyc", ".ipynb", ".md", ".rst", ".html", ".htm", ".css", ".js", ".ts", ".tex", ".xml"),
        *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".webp", ".bmp", ".ico", ".ttf", ".woff"),
        *(".mp4", ".avi", ".wav", ".mp3", ".flac", ".sh", ".bat", ".c", ".h", ".cpp", ".cu", ".java"),
        *(".go", ".rs", ".so", ".dll", ".exe", ".o", ".a", ".whl", ".lock", ".gitignore", ".patch", ".diff"),
    )
)
# A file with one of these that nothing reads is worth a word; any other is passed over.
EXPECTED_SUFFIXES = frozenset(
    (
        *(".csv", ".tsv", ".json", ".jsonl", ".log", ".txt", ".out", ".err", ".wandb", ".db"),
        *(".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz", ".pkl", ".pickle", ".h5", ".keras"),
        *(".index", ".gz", ".lz4", ".zst"),
    )
)
TENSORFLOW = re.compile(r"^checkpoint$|\.data-\d{5}-of-\d{5}$")
SESSION = re.compile(r"\d{10}\.\d+")
TRAIN_WORDS = {"train", "training", "trn"}
HELD_OUT_WORDS = {"val", "valid", "validation", "eval", "evaluation", "dev", "test", "testing"}
SPLIT_WORDS = TRAIN_WORDS | HELD_OUT_WORDS
CHECKPOINT_FOLDERS = re.compile(r"(checkpoints?|ckpts?|weights|models?|saved_models?|checkpoint-\d+)", re.I)
CONFIG_FOLDERS = {".hydra", "conf", "config", "configs", "files"}


@dataclass(frozen=True, slots=True)
class LogFile:
    path: Path
    ingestor: Ingestor
    prefix: str = ""  # put before its tags: the half of the run its folder or name speaks of


@dataclass(slots=True)
class Group:
    """The files of one run. ``path`` is its folder, or its file where a folder holds several runs."""

    path: Path
    logs: list[LogFile] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)
    configs: list[LogFile] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Discovery:
    groups: tuple[Group, ...]
    problems: tuple[Problem, ...]
    passed_over: tuple[Path, ...]  # files that are neither logs nor checkpoints


def discover(paths: Sequence[Path]) -> Discovery:
    """Find the runs below ``paths`` (files or folders); a path that does not exist is a problem."""
    logs: list[LogFile] = []
    configs: list[LogFile] = []
    checkpoints: list[Path] = []
    problems: list[Problem] = []
    passed_over: list[Path] = []
    named = {Path(p) for p in paths}
    for path in walk(paths, problems):
        if path.suffix.lower() in OTHER_SUFFIXES and path not in named:
            passed_over.append(path)
            continue
        try:
            head = read_head(path)
        except OSError as error:
            problems.append(Problem(str(path), "unreadable", error.strerror or "cannot be opened"))
            continue
        if ingestor := ingestor_for(path, head):
            (configs if ingestor.NAME == "hyperparameters" else logs).append(LogFile(path, ingestor))
        elif container_for(path, head):
            checkpoints.append(path)
        elif path.suffix.lower() in EXPECTED_SUFFIXES or TENSORFLOW.search(path.name) or path in named:
            problems.append(_unknown(path, head))
        else:
            passed_over.append(path)
    if passed_over:
        problems.append(_passed_over(passed_over))
    groups = _groups(logs)
    for group in groups:
        if len(group.logs) == 1 and group.logs[0].path in named:
            group.path = group.logs[0].path  # as it was given
    groups += _attach_checkpoints(groups, checkpoints)
    problems += _attach_configs(groups, configs)
    return Discovery(tuple(sorted(groups, key=lambda g: str(g.path))), tuple(problems), tuple(passed_over))


def read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def walk(paths: Iterable[Path], problems: list[Problem]) -> Iterator[Path]:
    """Every file below ``paths``, sorted, each once; links to folders are not followed."""
    seen: set[Path] = set()

    def note(error: OSError) -> None:
        problems.append(Problem(str(error.filename), "unreadable", error.strerror or "cannot be listed"))

    for given in paths:
        path = Path(given)
        if not path.exists():
            problems.append(Problem(str(path), "missing", "no such file or folder"))
        elif path.is_dir():
            for folder, folders, files in os.walk(path, onerror=note):
                folders[:] = sorted(f for f in folders if _enters(f))
                yield from _fresh((Path(folder, f) for f in sorted(files)), seen)
        else:
            yield from _fresh([path], seen)


def _enters(folder: str) -> bool:
    return folder in KEPT_HIDDEN or not (folder.startswith(".") or folder in SKIPPED_FOLDERS)


def _fresh(files: Iterable[Path], seen: set[Path]) -> Iterator[Path]:
    for file in files:
        if file not in seen and file.is_file():
            seen.add(file)
            yield file


def _unknown(path: Path, head: bytes) -> Problem:
    if not head:
        return Problem(str(path), "empty", "the file is empty")
    return Problem(str(path), "unsupported", "neither a known log format nor a known checkpoint container")


def _passed_over(paths: list[Path]) -> Problem:
    names = ", ".join(p.name for p in paths[:5]) + (", …" if len(paths) > 5 else "")
    one = len(paths) == 1
    message = (
        f"{len(paths)} {'file that is' if one else 'files that are'} neither log nor checkpoint: {names}"
    )
    return Problem(os.path.commonpath([p.parent for p in paths]), "passed-over", message)


def _groups(logs: list[LogFile]) -> list[Group]:
    """Group by the folder each format names, then tell runs within a folder apart."""
    by_root: dict[Path, list[LogFile]] = defaultdict(list)
    for log in logs:
        run_root = getattr(log.ingestor, "run_root", None)
        by_root[run_root(log.path) if run_root else log.path.parent].append(log)
    by_root = _merge_split_folders(_merge_session_folders(by_root))
    groups: list[Group] = []
    for root, members in by_root.items():
        groups += _split_root(root, members)
    return groups


def _merge_session_folders(by_root: dict[Path, list[LogFile]]) -> dict[Path, list[LogFile]]:
    """Fold the folder that ``add_hparams`` makes, named by the time, into the run it was called on."""
    merged: dict[Path, list[LogFile]] = defaultdict(list)
    for root, members in by_root.items():
        session = SESSION.fullmatch(root.name) and root.parent in by_root
        merged[root.parent if session else root] += members
    return dict(merged)


def _merge_split_folders(by_root: dict[Path, list[LogFile]]) -> dict[Path, list[LogFile]]:
    """Fold ``x/train`` and ``x/validation`` into ``x``, their names put before their tags."""
    siblings: dict[Path, dict[str, Path]] = defaultdict(dict)
    for root in by_root:
        if root.name.lower() in SPLIT_WORDS:
            siblings[root.parent][root.name.lower()] = root
    merged = dict(by_root)
    for parent, halves in siblings.items():
        if not (halves.keys() & TRAIN_WORDS and halves.keys() & HELD_OUT_WORDS):
            continue
        for word, root in halves.items():
            moved = [LogFile(log.path, log.ingestor, f"{word}/") for log in merged.pop(root)]
            merged[parent] = merged.get(parent, []) + moved
    return merged


def _split_root(root: Path, members: list[LogFile]) -> list[Group]:
    """One group for the folder, or one per file where one table format occurs several times."""
    shared = [m for m in members if m.prefix or _shares_folder(m, root)]
    tables: dict[str, list[LogFile]] = defaultdict(list)
    for member in members:
        if member not in shared:
            tables[member.ingestor.NAME].append(member)
    own: list[LogFile] = []
    for same in tables.values():
        halves = _named_for_halves(same)
        if halves:
            shared += halves
        elif len(same) == 1:
            shared += same
        else:
            own += same
    groups = [Group(log.path, [log]) for log in own]
    if shared:
        groups.append(Group(root if len(members) > 1 or not own else shared[0].path, shared))
    return groups


def _shares_folder(log: LogFile, root: Path) -> bool:
    """Whether files like this one in one folder are one run: the format says so, or it moved up."""
    shares = getattr(log.ingestor, "shares_folder", None)
    return bool(shares and shares(log.path)) or log.path.parent != root


def _named_for_halves(logs: list[LogFile]) -> list[LogFile]:
    """The logs with their prefixes, where their names differ in the half they speak of alone."""
    if len(logs) < 2:
        return []
    words = [re.split(r"[^a-z0-9]+", log.path.stem.lower()) for log in logs]
    halves = [[w for w in name if w in SPLIT_WORDS] for name in words]
    rests = {tuple(w for w in name if w not in SPLIT_WORDS) for name in words}
    if len(rests) != 1 or any(len(h) != 1 for h in halves) or len({h[0] for h in halves}) != len(logs):
        return []
    return [LogFile(log.path, log.ingestor, f"{h[0]}/") for log, h in zip(logs, halves, strict=True)]


def _attach_checkpoints(groups: list[Group], checkpoints: list[Path]) -> list[Group]:
    """Give each checkpoint to the run around it; the others make groups of their own."""
    by_path: dict[Path, list[Group]] = defaultdict(list)
    for group in groups:
        by_path[group.path if group.path.is_dir() else group.path.parent].append(group)
    alone: dict[tuple[Path, str], Group] = {}
    for path in checkpoints:
        owner = _owner(path, by_path)
        if owner is None:
            folder = path.parent
            key = (folder, re.sub(r"\d+", "#", path.name))
            owner = alone.setdefault(key, Group(path))
            if owner.checkpoints:
                owner.path = folder
        owner.checkpoints.append(path)
    return list(alone.values())


def _owner(path: Path, by_path: dict[Path, list[Group]]) -> Group | None:
    folder = path.parent
    for _ in range(3):
        if folder in by_path:
            found = by_path[folder]
            return found[0] if len(found) == 1 else None
        if not CHECKPOINT_FOLDERS.fullmatch(folder.name):
            return None
        folder = folder.parent
    return None


def _attach_configs(groups: list[Group], configs: list[LogFile]) -> list[Problem]:
    """Give each configuration to the runs in its folder, else to the nearest above or below."""
    problems = []
    for config in configs:
        folder = config.path.parent
        while folder.name in CONFIG_FOLDERS:
            folder = folder.parent
        owners = _runs_at(groups, folder) or _runs_above(groups, folder) or _runs_below(groups, folder)
        for group in owners:
            group.configs.append(config)
        if not owners:
            message = "hyperparameters of a run whose logs are not here"
            problems.append(Problem(str(config.path), "no-logs", message))
    return problems


def _runs_at(groups: list[Group], folder: Path) -> list[Group]:
    return [g for g in groups if folder in (g.path, g.path.parent if g.path.is_file() else g.path)]


def _runs_above(groups: list[Group], folder: Path) -> list[Group]:
    for above in list(folder.parents)[:2]:
        if found := [g for g in groups if g.path == above]:
            return found
    return []


def _runs_below(groups: list[Group], folder: Path) -> list[Group]:
    """The run below, where there is only one: beside several, a YAML may be about anything."""
    below = [g for g in groups if PurePath(folder) in g.path.parents]
    return below if len(below) == 1 else []
