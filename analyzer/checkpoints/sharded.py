"""Hugging Face checkpoints in several files: an index that names the shard of each tensor."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from analyzer.checkpoints import HEAD, Container, container_for
from analyzer.checkpoints.entries import Found, natural
from analyzer.checkpoints.state import assemble
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem

NAME = "sharded"
SUMMARY = "Hugging Face checkpoints in shards (*.safetensors.index.json, *.bin.index.json)"
ORDER = 8
SUFFIXES = (".safetensors.index.json", ".bin.index.json")
MAX_INDEX = 1 << 26
MAX_SHARDS = 10_000


def claims(path: Path, head: bytes) -> bool:
    return path.name.endswith(SUFFIXES) and head.lstrip()[:1] == b"{"


def parts(path: Path) -> Iterable[Path]:
    """The shards that are there."""
    return [path.with_name(name) for name in _shards(path)[0]]


def open(path: Path) -> Checkpoint:
    """Index of the whole checkpoint. Raises IngestError where no shard can be read."""
    return assemble(find(path), NAME)


def find(path: Path) -> Found:
    """All shards' tensors; what is missing is a problem that names it."""
    shards, whole = _shards(path)
    found = Found(str(path), problems=whole.problems, ordered=True)
    for name, tensors in sorted(shards.items(), key=lambda item: natural(item[0])):
        try:
            part = found_in(path.with_name(name))
        except (IngestError, OSError) as error:
            _lose(found, path.with_name(name), name, tensors, error)
            continue
        _add(found, part, name, tensors)
    if not found.entries:
        problem = found.problems[0] if found.problems else Problem("", "damaged", "the index names no shard")
        raise IngestError(str(path), problem.message, problem.kind, problem.offset)
    if not found.ordered:
        found.entries.sort(key=lambda entry: natural(entry.name))
    return found


def found_in(path: Path, beyond: int = -1) -> Found:
    """What a file holds, by whichever container claims it. Raises IngestError, OSError."""
    container = claiming(path, beyond)
    find_in = getattr(container, "find", None)
    if find_in is None:
        if container is not None:
            container.open(path)  # says why it cannot be read
        raise IngestError(str(path), "not a checkpoint that can be a part of another", "unsupported")
    return cast(Found, find_in(path))


def claiming(path: Path, beyond: int = -1) -> Container | None:
    with path.open("rb") as file:
        return container_for(path, file.read(HEAD), beyond)


def _shards(path: Path) -> tuple[dict[str, list[str]], Found]:
    """The names of the tensors in each shard; names that lead out of the folder are refused."""
    found = Found(str(path))
    if path.stat().st_size > MAX_INDEX:
        raise IngestError(str(path), f"index larger than {MAX_INDEX} bytes", "too-large")
    try:
        weights = json.loads(path.read_bytes())["weight_map"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        message = f"index is not JSON with a weight_map ({str(error)[:60]})"
        raise IngestError(str(path), message, "damaged") from None
    shards: dict[str, list[str]] = {}
    for tensor, shard in weights.items() if isinstance(weights, dict) else ():
        if (
            not isinstance(shard, str)
            or Path(shard).name != shard
            or "\\" in shard
            or len(shards) > MAX_SHARDS
        ):
            found.fault(
                "unsafe", f"shard {str(shard)[:80]!r} lies outside the checkpoint's folder: not opened"
            )
            continue
        shards.setdefault(shard, []).append(tensor)
    return shards, found


def _lose(found: Found, shard: Path, name: str, tensors: list[str], error: Exception) -> None:
    missing = not shard.exists()
    reason = error.message if isinstance(error, IngestError) else str(error)
    what = "is missing" if missing else f"cannot be read ({reason})"
    kind = "missing" if missing else getattr(error, "kind", "unreadable")
    shown = ", ".join(tensor[:60] for tensor in tensors[:3]) + (", …" if len(tensors) > 3 else "")
    found.fault(kind, f"shard {name[:80]} {what}: {len(tensors)} tensors not read ({shown})")


def _add(found: Found, part: Found, name: str, tensors: list[str]) -> None:
    found.entries += part.entries
    found.ordered = found.ordered and part.ordered
    found.uses += part.uses
    found.metadata.update({key: value for key, value in part.metadata.items() if key == "format"})
    found.problems += [
        Problem(found.path, p.kind, f"{name[:80]}: {p.message}", p.offset) for p in part.problems
    ]
    held = {entry.path or entry.name for entry in part.entries} | {entry.name for entry in part.entries}
    absent = [tensor for tensor in tensors if tensor not in held]
    if absent and not part.faults:
        found.fault("damaged", f"{name[:80]} lacks {len(absent)} tensors of the index, as {absent[0][:80]}")
