"""From paths to groups of files that are one run each.

What makes files one run:
- several event files of a folder; whatever a format says belongs to a folder (``shares_folder``);
- files of different formats in one folder: one run told twice (``results.csv`` beside events);
- the two streams of one program, ``slurm-7.out`` beside ``slurm-7.err``;
- folders that are named for the two halves of one run, ``train/`` beside ``validation/``, and
  files that are, ``train_metrics.csv`` beside ``val_metrics.csv``;
- the folders that a writer makes within its own: for ``add_hparams``, for ``add_scalars``, and
  the Hugging Face Trainer's ``runs/<date>_<host>`` (or ``runs``) beside its ``trainer_state.json``;
- a run folder's checkpoints and configurations, up to two folders below or above.
Several files of one table format in one folder are several runs.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from analyzer.checkpoints import container_for, leading
from analyzer.ingest import HEAD_BYTES, Ingestor, events, ingestor_for, wire
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
        *(".csv", ".tsv", ".jsonl", ".log", ".out", ".err", ".wandb", ".db"),
        *(".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz", ".pkl", ".pickle", ".h5", ".keras"),
        *(".index", ".gz", ".lz4", ".zst"),
    )
)
# Text beside runs that is never one's log, and the log that W&B keeps of itself.
NO_LOG = re.compile(
    r"(.*/)?((vocab|merges|classes|labels|requirements|constraints|licen[sc]e|notice|readme)[\w.-]*\.txt"
    r"|wandb/(.*/)?debug(-\w+)?\.log)",
    re.IGNORECASE,
)
LOG_TEXT = re.compile(r"log|train|loss|epoch|metric|histor|progress|std|out|err", re.IGNORECASE)
TENSORFLOW = re.compile(r"^checkpoint$|\.data-\d{5}-of-\d{5}$")
SESSION = re.compile(r"\d{10}\.\d+")
SESSION_TAG = "_hparams_/session_start_info"
STREAM = re.compile(r"(?<![a-z])(?:std)?(?:out|err)(?![a-z])")
TRAIN_WORDS = {"train", "training", "trn", "learn"}
EVALUATION_WORDS = {"val", "valid", "validation", "eval", "evaluation"}
HELD_OUT_WORDS = EVALUATION_WORDS | {"dev", "test", "testing"}
SPLIT_WORDS = TRAIN_WORDS | HELD_OUT_WORDS
CHECKPOINT_FOLDERS = re.compile(r"(checkpoints?|ckpts?|weights|models?|saved_models?)", re.I)
# the Hugging Face Trainer's (weights, optimizer, the log so far), DeepSpeed's, torchtitan's
STEP_FOLDER = re.compile(r"(checkpoint|(global_?)?step|iter)[-_]?\d+")
LONE_CONFIG = "hyperparameters of a run whose logs are not here"
CONFIG_FOLDERS = {".hydra", "conf", "config", "configs", "files"}


@dataclass(frozen=True, slots=True)
class LogFile:
    path: Path
    ingestor: Ingestor
    prefix: str = ""  # put before its tags: the half of the run its folder or name speaks of
    suffix: str = ""  # put behind its tags: the key of ``add_scalars``


@dataclass(slots=True)
class Group:
    """The files of one run. ``path`` is its folder, or its file where a folder holds several runs."""

    path: Path
    logs: list[LogFile] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)
    configs: list[LogFile] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)  # shards and companions, read along with a checkpoint

    @property
    def folder(self) -> Path:
        """The folder that the run lies in."""
        files = (*(log.path for log in self.logs), *self.checkpoints)
        return self.path.parent if self.path in files else self.path


class Discovery(NamedTuple):
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
        nothing = path.suffix.lower() in OTHER_SUFFIXES or NO_LOG.fullmatch(path.as_posix())
        if nothing and path not in named:
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
        elif path in named or _expected(path, head):
            problems.append(_unknown(path, head))
        else:
            passed_over.append(path)
    groups = _groups(logs)
    for group in groups:
        if len(group.logs) == 1 and group.logs[0].path in named:
            group.path = group.logs[0].path  # as it was given
    groups += _attach_checkpoints(groups, leading(checkpoints))
    problems += [Problem(str(path), "no-logs", LONE_CONFIG) for path in _attach_configs(groups, configs)]
    return Discovery(tuple(sorted(groups, key=lambda g: str(g.path))), tuple(problems), tuple(passed_over))


def read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def walk(paths: Iterable[Path], problems: list[Problem]) -> Iterator[Path]:
    """Every file below ``paths``, sorted, each once; links to folders are not followed."""
    seen: set[tuple[str, str]] = set()

    def note(error: OSError) -> None:
        problems.append(Problem(str(error.filename), "unreadable", error.strerror or "cannot be listed"))

    for given in paths:
        path = Path(given)
        if stat.S_ISDIR(_mode(path)):
            real = str(path.resolve())  # one folder may be given under several names
            for folder, folders, files in os.walk(path, onerror=note):
                folders[:] = sorted(f for f in folders if enters(f))
                if files:
                    below = real + folder.removeprefix(str(path))
                    yield from _fresh(Path(folder), sorted(files), below, seen, problems)
        elif stat.S_ISREG(_mode(path)):
            yield from _fresh(path.parent, [path.name], str(path.parent.resolve()), seen, problems)
        else:
            problems.append(_no_file(path))


def _mode(path: Path) -> int:
    """The kind of file, as ``stat`` has it; 0 for what cannot be looked at."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _no_file(path: Path) -> Problem:
    """Why there is nothing to read at a path."""
    try:
        path.stat()
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            return Problem(str(path), "unreadable", error.strerror or "cannot be looked at")
        link = path.is_symlink()
        return Problem(str(path), "missing", "a link to nothing" if link else "no such file or folder")
    except ValueError:  # a NUL in it
        return Problem(str(path), "missing", "no such file or folder")
    return Problem(str(path), "unsupported", "neither a file nor a folder")


def enters(folder: str) -> bool:
    return folder in KEPT_HIDDEN or not (folder.startswith(".") or folder in SKIPPED_FOLDERS)


def _fresh(
    folder: Path, names: Iterable[str], real: str, seen: set[tuple[str, str]], problems: list[Problem]
) -> Iterator[Path]:
    """The files of a folder that were not met before, under whatever name of the folder."""
    for name in names:
        if (real, name) in seen:
            continue
        seen.add((real, name))
        path = folder / name
        mode = _mode(path)
        if stat.S_ISREG(mode):
            yield path
        elif not mode and (path.suffix.lower() in EXPECTED_SUFFIXES or "tfevents" in name):
            problems.append(_no_file(path))


def _expected(path: Path, head: bytes) -> bool:
    """Is a file that nothing reads worth a word? It ought to have been a log or a checkpoint."""
    suffix = path.suffix.lower()
    if suffix == ".json":  # an empty or broken one is damage
        begin = head.removeprefix(b"\xef\xbb\xbf").strip()[:1]
        return not begin or begin not in b'{["-0123456789tfn'
    if suffix == ".txt":
        return not about_anything(path)
    return suffix in EXPECTED_SUFFIXES or TENSORFLOW.search(path.name) is not None


def about_anything(path: Path) -> bool:
    """Whether a file of this name is as likely no log as one: JSON, YAML, and text not named for a log."""
    suffix = path.suffix.lower()
    return suffix in (".json", ".yaml", ".yml") or (suffix == ".txt" and not LOG_TEXT.search(path.stem))


def _unknown(path: Path, head: bytes) -> Problem:
    if not head:
        return Problem(str(path), "empty", "the file is empty")
    return Problem(str(path), "unsupported", "neither a known log format nor a known checkpoint container")


def passed_over_problem(paths: Sequence[Path]) -> Problem:
    """One line for all the files that are nothing of ours."""
    kind, what = "passed-over", "neither log nor checkpoint"
    if len(paths) == 1:
        return Problem(str(paths[0]), kind, what)
    names = ", ".join(p.name for p in paths[:20]) + (", …" if len(paths) > 20 else "")
    try:
        folder = os.path.commonpath([p.parent for p in paths])
    except ValueError:  # absolute beside relative
        folder = ""
    return Problem(folder or ".", kind, f"{len(paths)} files, {what}: {names}")


def _groups(logs: list[LogFile]) -> list[Group]:
    """Group by the folder each format names, then tell runs within a folder apart."""
    by_root: dict[Path, list[LogFile]] = defaultdict(list)
    for log in logs:
        run_root = getattr(log.ingestor, "run_root", None)
        by_root[run_root(log.path) if run_root else log.path.parent].append(log)
    by_root = _merge_split_folders(_merge_writers_folders(by_root))
    groups: list[Group] = []
    for root, members in by_root.items():
        groups += _split_root(root, members)
    return groups


def _merge_writers_folders(by_root: Mapping[Path, list[LogFile]]) -> dict[Path, list[LogFile]]:
    """Fold the folders that a writer makes within its own into the run that it writes."""
    merged = dict(by_root)
    sessions = _lone_sessions(by_root)
    for root in sorted(by_root, key=lambda root: len(root.parts), reverse=True):
        home, above = root.parent, root.parent.parent
        if root in sessions or (SESSION.fullmatch(root.name) and home in merged):
            merged[home] = merged[home] + merged.pop(root)
        elif key := _key_of_scalars(root, merged[root], merged.get(home, [])):
            moved = [replace(log, suffix=f"/{key}") for log in merged.pop(root)]
            merged[home] = merged[home] + moved
        elif home.name == "runs" and any(_is(log, "trainer_state") for log in merged.get(above, [])):
            merged[above] = merged[above] + merged.pop(root)
        elif root.name == "runs" and any(_is(log, "trainer_state") for log in merged.get(home, [])):
            merged[home] = merged[home] + merged.pop(root)
    return merged


def _lone_sessions(by_root: Mapping[Path, list[LogFile]]) -> set[Path]:
    """The folders that ``add_hparams(…, run_name=…)`` made below a writer's own, where it made but one.

    Several are the trials of a search, and runs of their own.
    """
    found: dict[Path, list[Path]] = defaultdict(list)
    for root, logs in by_root.items():
        written = any(_is(log, "tensorboard") for log in by_root.get(root.parent, []))
        if written and all(_is(log, "tensorboard") and _is_session(log.path) for log in logs):
            found[root.parent].append(root)
    return {roots[0] for roots in found.values() if len(roots) == 1}


def _is_session(path: Path) -> bool:
    """Whether every tag in a file has one value, and the hyperparameters are among them."""
    tags = Counter(_first_tags(path))
    return SESSION_TAG in tags and max(tags.values()) == 1 and len(read_head(path)) < HEAD_BYTES


def _is(log: LogFile, name: str) -> bool:
    return name == log.ingestor.NAME


def _key_of_scalars(root: Path, logs: list[LogFile], above: list[LogFile]) -> str:
    """``val`` where ``add_scalars("Loss", {"val": …})`` made the folder ``Loss_val``; else nothing.

    Its only tag is ``Loss``, and the writer's own event file lies in the folder above.
    """
    written = any(_is(log, "tensorboard") for log in above) and all(_is(log, "tensorboard") for log in logs)
    tags = {tag for log in logs for tag in _first_tags(log.path)} if written and "_" in root.name else set()
    if len(tags) != 1:
        return ""
    tag = re.sub(r"\W", "_", tags.pop())  # both lose their slashes, and by some writers more
    return root.name[len(tag) + 1 :] if re.sub(r"\W", "_", root.name).startswith(f"{tag}_") else ""


def _first_tags(path: Path) -> list[str]:
    """The tags in the first records of an event file, as often as they have values."""
    found: list[str] = []
    at = 0
    try:
        data = memoryview(read_head(path))
        while at + 12 < len(data):  # a record: length, its checksum, payload, its checksum
            end = at + 12 + int.from_bytes(data[at : at + 8], "little")
            if end > len(data):
                break
            found += [v.tag.decode("utf-8", "replace") for v in events.event(data, at + 12, end).values]
            at = end + 4
    except (wire.WireError, OSError):
        pass  # damage is told where the file is read
    return found


def _merge_split_folders(by_root: dict[Path, list[LogFile]]) -> dict[Path, list[LogFile]]:
    """Fold ``x/train`` and ``x/validation`` into ``x``, their names put before their tags.

    So too ``x/eval`` alone where ``x`` itself is written to, as TensorFlow's estimators do.
    """
    siblings: dict[Path, dict[str, Path]] = defaultdict(dict)
    for root in by_root:
        if root.name.lower() in SPLIT_WORDS:
            siblings[root.parent][root.name.lower()] = root
    merged = dict(by_root)
    for parent, halves in siblings.items():
        trained = halves.keys() & TRAIN_WORDS and halves.keys() & HELD_OUT_WORDS
        within = halves.keys() & EVALUATION_WORDS and any(
            _is(m, "tensorboard") for m in merged.get(parent, [])
        )
        if not (trained or within):
            continue
        for word, root in halves.items():
            moved = [replace(log, prefix=f"{word}/") for log in merged.pop(root)]
            merged[parent] = merged.get(parent, []) + moved
    return merged


def _split_root(root: Path, members: list[LogFile]) -> list[Group]:
    """One group for the folder, and one per file where one table format occurs several times."""
    shared: list[LogFile] = []
    tables: dict[str, list[LogFile]] = defaultdict(list)
    for member in members:
        if member.prefix or _shares_folder(member, root):
            shared.append(member)
        else:
            tables[member.ingestor.NAME].append(member)
    own: list[list[LogFile]] = []
    for same in tables.values():
        runs = _by_streams(same) or _by_halves(same)
        if len(runs) == 1:
            shared += runs[0]
        else:
            own += runs
    groups = [Group(run[0].path, run) for run in own]
    return [*groups, Group(root, shared)] if shared else groups


def _shares_folder(log: LogFile, root: Path) -> bool:
    """Whether files like this one in one folder are one run: the format says so, or it moved up."""
    shares = getattr(log.ingestor, "shares_folder", None)
    return bool(shares and shares(log.path)) or log.path.parent != root


def _by_halves(logs: list[LogFile]) -> list[list[LogFile]]:
    """Each log by itself, but together those whose names differ in the half they speak of alone."""
    families: dict[tuple[str, ...], list[tuple[list[str], LogFile]]] = defaultdict(list)
    for log in logs:
        words = re.split(r"[^a-z0-9]+", log.path.stem.lower())
        halves = [w for w in words if w in SPLIT_WORDS]
        families[tuple(w for w in words if w not in SPLIT_WORDS)].append((halves, log))
    runs: list[list[LogFile]] = []
    for family in families.values():
        told = {halves[0] for halves, _ in family if len(halves) == 1}
        if len(told) == len(family) > 1:
            runs.append([replace(log, prefix=f"{halves[0]}/") for halves, log in family])
        else:
            runs += [[log] for _, log in family]
    return runs


def _by_streams(logs: list[LogFile]) -> list[list[LogFile]]:
    """Printed logs, together those whose names differ in the stream alone; nothing where there are no such."""
    if not logs or not _is(logs[0], "text"):
        return []
    families: dict[str, list[LogFile]] = defaultdict(list)
    for log in logs:
        families[STREAM.sub("*", log.path.name.lower())].append(log)
    if all(len(family) != 2 for family in families.values()):
        return []
    return [
        run for same in families.values() for run in ([same] if len(same) == 2 else [[log] for log in same])
    ]


def _attach_checkpoints(groups: list[Group], checkpoints: Mapping[Path, frozenset[Path]]) -> list[Group]:
    """Give each checkpoint to the run around it; the others make groups of their own.

    ``checkpoints`` are the files that stand for one, each with those that are read along.
    """
    by_folder = _by_folder(groups)
    trained = {_home(path) for path in checkpoints if _home(path) != path.parent}
    alone: dict[tuple[Path, str], Group] = {}
    for path in checkpoints:
        owner = _owner(path, by_folder)
        if owner is None:
            series = "" if _home(path) in trained else re.sub(r"\d+", "#", path.name)
            owner = alone.setdefault((_home(path), series), Group(path.parent if checkpoints[path] else path))
        owner.checkpoints.append(path)
        owner.parts += sorted(checkpoints[path])
    homes = Counter(folder for folder, _ in alone)
    for (folder, _), group in alone.items():
        if len(group.checkpoints) > 1 and homes[folder] == 1:
            group.path = folder
    return list(alone.values())


def _home(checkpoint: Path) -> Path:
    """The folder it lies in, or the one above ``checkpoint-500``."""
    folder = checkpoint.parent
    return folder.parent if STEP_FOLDER.fullmatch(folder.name) else folder


def _by_folder(groups: Iterable[Group]) -> dict[Path, list[Group]]:
    found: dict[Path, list[Group]] = defaultdict(list)
    for group in groups:
        found[group.folder].append(group)
    return found


def _owner(path: Path, by_folder: Mapping[Path, list[Group]]) -> Group | None:
    """The run of the checkpoint's folder, or of the one above a folder that is for checkpoints."""
    folder = _home(path)
    for _ in range(3):
        if found := by_folder.get(folder):
            whole = [group for group in found if group.path == folder]
            return (whole or found)[0] if len(whole) == 1 or len(found) == 1 else None
        if not CHECKPOINT_FOLDERS.fullmatch(folder.name):
            return None
        folder = folder.parent
    return None


def _attach_configs(groups: list[Group], configs: list[LogFile]) -> list[Path]:
    """Give each configuration to the runs in its folder, else to the nearest above or below.

    Returns those that belong to none.
    """
    if not configs:
        return []
    by_folder, only_below = _by_folder(groups), cache(partial(_only_below, groups))
    strays = []
    for config in configs:
        run_root = getattr(config.ingestor, "run_root", None)
        folder = run_root(config.path) if run_root else config.path.parent
        while folder.name in CONFIG_FOLDERS:
            folder = folder.parent
        owners = by_folder.get(folder) or _runs_above(by_folder, folder) or only_below().get(folder, [])
        for group in owners:
            group.configs.append(config)
        if not owners:
            strays.append(config.path)
    return strays


def _runs_above(by_folder: Mapping[Path, list[Group]], folder: Path) -> list[Group]:
    for above in list(folder.parents)[:2]:
        if found := [g for g in by_folder.get(above, []) if g.path == above]:
            return found
    return []


def _only_below(groups: Iterable[Group]) -> dict[Path, list[Group]]:
    """The run below each folder, where there is only one: beside several, a YAML may be about anything."""
    below: dict[Path, list[Group]] = defaultdict(list)
    for group in groups:
        for above in group.path.parents:
            below[above] = [*below[above][:1], group]
    return {folder: found for folder, found in below.items() if len(found) == 1}
