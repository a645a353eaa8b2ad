"""PyTorch's distributed checkpoints (DCP): a folder of shards and a pickled ``.metadata``.

The metadata names each tensor's size and pieces, and where in which shard each piece was put: as
a torch archive of its own, at an offset. It is interpreted as any other pickle, imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from analyzer.checkpoints import torch_objects, torch_zip
from analyzer.checkpoints.entries import Found
from analyzer.checkpoints.pickle_machine import Record, Reference, Use
from analyzer.checkpoints.pickles import Loaded, load
from analyzer.checkpoints.regions import (
    JoinedBlocks,
    StoredBlocks,
    TiledBlocks,
    element_count,
)
from analyzer.checkpoints.scalars import attributes
from analyzer.checkpoints.state import assemble, gather, refuse_empty
from analyzer.checkpoints.torch_objects import StoredTensor, placed_tensor, stored_blocks, tensor_fault
from analyzer.checkpoints.zips import read_directory
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem

NAME = "torch-distributed"
SUMMARY = "PyTorch distributed checkpoints (folders of .distcp files with a .metadata), also of FSDP"
ORDER = 12
METADATA = ".metadata"
MAX_METADATA = 1 << 28
MAX_PIECES = 1_000_000


def claims(path: Path, head: bytes) -> bool:
    """The metadata by its name and the module it speaks of; a shard by its suffix."""
    return path.suffix == ".distcp" or (path.name == METADATA and b"checkpoint.metadata" in head)


def parts(path: Path) -> Iterable[Path]:
    """The shards, which are no checkpoints of their own."""
    return path.parent.glob("*.distcp") if path.name == METADATA else ()


def open(path: Path) -> Checkpoint:
    """Index of the whole checkpoint, given its metadata or one of its shards. Raises IngestError."""
    metadata = path.with_name(METADATA)
    if not metadata.is_file():
        message = (
            "a shard of a distributed checkpoint whose .metadata is not beside it: names and shapes are there"
        )
        raise IngestError(str(path), message, "missing")
    found = _find(metadata)
    refuse_empty(found)
    return assemble(found, NAME)


@dataclass(slots=True)
class _Shards:
    """The folder's shards: what is in them is read where the metadata says it is."""

    folder: Path
    uses: list[Use] = field(default_factory=list)
    sizes: dict[str, int | None] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)  # pieces lost, by the shard that is not there

    def value(self, place: Mapping[object, object]) -> object:
        """What is kept at one place. Raises IngestError."""
        name, start, length = place.get("relative_path"), place.get("offset"), place.get("length")
        if not isinstance(name, str) or Path(name).name != name:
            raise IngestError(str(self.folder), f"shard {str(name)[:80]!r} lies outside the folder", "unsafe")
        if not isinstance(start, int) or not isinstance(length, int) or start < 0 or length < 0:
            raise IngestError(str(self.folder), f"no place within shard {name[:80]!r}", "damaged")
        size = self._size(name)
        if size is None:
            self.lost[name] = self.lost.get(name, 0) + 1
            raise FileNotFoundError(name)
        if start + length > size:
            message = f"shard {name[:80]!r} ends {start + length - size} bytes before a piece does"
            raise IngestError(str(self.folder), message, "truncated", size)
        if place.get("transform_descriptors"):
            raise IngestError(
                str(self.folder), f"piece in {name[:80]!r} is compressed or encrypted", "unsupported"
            )
        path = self.folder / name
        members = read_directory(path, start, length)
        archive = torch_zip.find_archive(members)
        if archive is None:
            raise IngestError(str(path), "no data.pkl where the metadata says", "damaged", start)
        loaded = torch_zip.load_archive(path, members, archive)
        self.uses += loaded.references
        return loaded.value

    def _size(self, name: str) -> int | None:
        if name not in self.sizes:
            path = self.folder / name
            self.sizes[name] = path.stat().st_size if path.is_file() else None
        return self.sizes[name]


def _find(path: Path) -> Found:
    size = path.stat().st_size
    if size > MAX_METADATA:
        raise IngestError(
            str(path), f"metadata of {size} bytes, more than the {MAX_METADATA} allowed", "too-large"
        )
    loaded = load(path.read_bytes(), builds=torch_objects.BUILDS, path=str(path))
    facts = _facts(loaded.value)
    described, placed = facts.get("state_dict_metadata"), facts.get("storage_data")
    if not isinstance(described, dict) or not isinstance(placed, dict):
        found = gather(loaded, str(path))
        refuse_empty(found)
        found.problems.append(Problem(str(path), "damaged", "metadata without tensors and their places"))
        return found
    shards = _Shards(path.parent)
    problems = Found(str(path))
    places = _places(placed)
    values = {
        name: value
        for name, description in described.items()
        if isinstance(name, str)
        and (value := _value(name, description, places, shards, problems)) is not None
    }
    nested = _nested(values, facts.get("planner_data"))
    found = gather(Loaded(nested, (*loaded.references, *shards.uses), size), str(path))
    found.problems = [*_lost(path, shards), *problems.problems, *found.problems]
    return found


def _facts(value: object) -> Mapping[object, object]:
    """The attributes of a pickled dataclass."""
    own = attributes(value) if isinstance(value, Record) else value
    return own if isinstance(own, Mapping) else {}


def _lost(path: Path, shards: _Shards) -> Iterator[Problem]:
    for name, count in list(shards.lost.items())[:20]:
        yield Problem(str(path), "missing", f"shard {name[:80]} is missing, and with it {count} pieces")


def _places(
    placed: Mapping[object, object],
) -> dict[str, list[tuple[tuple[int, ...], Mapping[object, object]]]]:
    """Offsets of each piece within its tensor, and where it is kept, by the tensor's name."""
    places: dict[str, list[tuple[tuple[int, ...], Mapping[object, object]]]] = {}
    for index, info in list(placed.items())[:MAX_PIECES]:
        key = _facts(index)
        name, offset = key.get("fqn"), key.get("offset")
        if isinstance(name, str):
            places.setdefault(name, []).append((_sizes(offset), _facts(info)))
    return places


def _sizes(value: object) -> tuple[int, ...]:
    plain = isinstance(value, tuple) and len(value) <= 64
    numbers = tuple(n for n in value if isinstance(n, int) and 0 <= n < 1 << 48) if plain else ()  # type: ignore[attr-defined]
    return numbers if plain and len(numbers) == len(value) else ()  # type: ignore[arg-type]


def _value(
    name: str,
    description: object,
    places: Mapping[str, list[tuple[tuple[int, ...], Mapping[object, object]]]],
    shards: _Shards,
    problems: Found,
) -> object:
    """A tensor of all its pieces, or an object; None with a problem where it cannot be read."""
    try:
        pieces = [(offsets, shards.value(place)) for offsets, place in places.get(name, ())]
        reference = description.reference if isinstance(description, Record) else None
        if not isinstance(reference, Reference) or reference.name != "TensorStorageMetadata":
            return pieces[0][1] if pieces else None
        return _tensor(_sizes(_facts(description).get("size")), pieces)
    except FileNotFoundError:
        return None  # told once for each shard
    except (IngestError, ValueError) as error:
        kind, offset = (error.kind, error.offset) if isinstance(error, IngestError) else ("damaged", None)
        text = error.message if isinstance(error, IngestError) else str(error)
        problems.fault(kind, f"{name[:80]!r} not read: {text}", offset)
        return None


def _tensor(shape: tuple[int, ...], pieces: list[tuple[tuple[int, ...], object]]) -> object:
    """Raises ValueError where the pieces do not make up the tensor."""
    tiles: list[tuple[tuple[int, ...], StoredBlocks]] = []
    for offsets, piece in pieces:
        if not isinstance(piece, StoredTensor):
            raise ValueError("a piece is no tensor")
        if fault := tensor_fault(piece):
            raise ValueError(fault)
        offsets = offsets or (0,) * len(piece.shape)
        if (
            len(piece.shape) != len(shape)
            or len(offsets) != len(shape)
            or any(o + n > whole for o, n, whole in zip(offsets, piece.shape, shape, strict=True))
        ):
            raise ValueError(f"a piece of shape {list(piece.shape)} reaches out of {list(shape)}")
        tiles.append((offsets, stored_blocks(piece)))
    if len({offsets for offsets, _ in tiles}) < len(tiles):
        raise ValueError("two of its pieces begin at the same place")
    have, want = sum(element_count(tile.shape) for _, tile in tiles), element_count(shape)
    if have != want or len({tile.dtype for _, tile in tiles}) > 1:
        raise ValueError(f"its pieces hold {have} of {want} elements")
    if not tiles:
        raise ValueError("it has no pieces")
    tiles.sort(key=lambda tile: tile[0])
    dtype = tiles[0][1].dtype
    if len(tiles) == 1:
        return placed_tensor(shape, dtype, tiles[0][1])
    if all(tile.shape[1:] == shape[1:] for _, tile in tiles):
        return placed_tensor(shape, dtype, JoinedBlocks(tuple(tile for _, tile in tiles)))
    return placed_tensor(shape, dtype, TiledBlocks(shape, tuple(tiles)))


def _nested(values: Mapping[str, object], paths: object) -> object:
    """The state dict as it was before it was flattened, where the metadata keeps each value's path."""
    if not isinstance(paths, Mapping):
        return dict(values)
    root: dict[object, object] = {}
    for name, value in values.items():
        path = paths.get(name)
        keys = path if isinstance(path, tuple) and 0 < len(path) <= 32 else (name,)
        node = root
        for key in keys[:-1]:
            below = node.setdefault(key, {}) if isinstance(key, (str, int)) else None
            if not isinstance(below, dict):
                break
            node = below
        else:
            if isinstance(keys[-1], (str, int)):
                node[keys[-1]] = value
    return _lists(root)


def _lists(node: object) -> object:
    """Dicts that count from 0 are the lists they were; but optimizers number their parameters so."""
    if not isinstance(node, dict):
        return node
    return {
        key: [_lists(item) for item in value.values()]
        if key == "param_groups" and isinstance(value, dict)
        else _lists(value)
        for key, value in node.items()
    }
