"""DeepSpeed's folders: the module's weights in one file, ZeRO's partitions in a file for each rank.

ZeRO keeps a parameter group as one flat vector, cut into equal parts among the ranks; stage 3 cuts
every parameter by itself. Which stretch is whose follows from ``param_shapes`` in the model's file
(after DeepSpeed's own ``zero_to_fp32`` description of the layout).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analyzer.checkpoints import torch_zip
from analyzer.checkpoints.entries import Found
from analyzer.checkpoints.pickle_machine import Record, Use
from analyzer.checkpoints.pickles import Loaded
from analyzer.checkpoints.regions import DTYPES, JoinedBlocks, StoredBlocks, element_count
from analyzer.checkpoints.scalars import attributes, scalar_of
from analyzer.checkpoints.state import assemble, gather, refuse_empty
from analyzer.checkpoints.torch_objects import StoredTensor, placed_tensor, stored_blocks, tensor_fault
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem

NAME = "deepspeed"
SUMMARY = "DeepSpeed folders (mp_rank_*_model_states.pt with ZeRO stages 1 to 3)"
ORDER = 11  # before torch-zip: each file is one of those
_MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")
_OPTIMIZER = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")

Attributes = Mapping[object, object]


def claims(path: Path, head: bytes) -> bool:
    named = _MODEL.fullmatch(path.name) or _OPTIMIZER.fullmatch(path.name)
    return named is not None and head.startswith(b"PK\x03\x04")


def parts(path: Path) -> Iterable[Path]:
    """Every file of the folder's checkpoint, which the first model file stands for."""
    files = _Files.beside(path)
    return [*files.models, *files.optimizers] if path == files.lead else ()


def open(path: Path) -> Checkpoint:
    """Index of the whole checkpoint, given any of its files. Raises IngestError."""
    found = _find(_Files.beside(path))
    refuse_empty(found)
    return assemble(found, NAME)


@dataclass(frozen=True, slots=True)
class _Files:
    """The folder's files in the order of their ranks, those of the first tensor-parallel rank."""

    models: tuple[Path, ...]
    optimizers: tuple[Path, ...]
    parallel: int  # tensor-parallel ranks
    given: Path

    @property
    def lead(self) -> Path:
        return next(iter((*self.models, *self.optimizers)), self.given)

    @staticmethod
    def beside(path: Path) -> _Files:
        models: dict[tuple[int, int], Path] = {}
        optimizers: dict[tuple[int, int], Path] = {}
        for file in path.parent.iterdir():
            for pattern, kept in ((_MODEL, models), (_OPTIMIZER, optimizers)):
                if match := pattern.fullmatch(file.name):
                    kept[int(match[2]), int(match[1] or 0)] = file
        ranks = {rank for rank, _ in (*models, *optimizers)}
        return _Files(_sorted(models), _sorted(optimizers), len(ranks), path)


def _sorted(files: Mapping[tuple[int, int], Path]) -> tuple[Path, ...]:
    return tuple(files[key] for key in sorted(files))


@dataclass(slots=True)
class _Ranks:
    """What the optimizer's files hold, rank by rank."""

    states: list[Attributes] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _find(files: _Files) -> Found:
    loaded, cut = torch_zip.load_file(files.lead)
    model = _mapping(loaded.value)
    ranks = _Ranks(uses=list(loaded.references), problems=[cut] if cut else [])
    if files.parallel == 1:
        _read_ranks(files.optimizers, ranks)
    else:
        message = f"{files.parallel} tensor-parallel ranks: only the first one's part of each tensor was read"
        ranks.problems.append(Problem(str(files.lead), "unsupported", message))
    nested = {
        key: value for key, value in model.items() if key not in ("optimizer", "param_shapes", "ds_config")
    }
    nested["config"] = model.get("ds_config")
    nested["global_step"] = model.get("global_steps")
    try:
        nested.update(_partitioned(model, ranks))
    except ValueError as error:
        message = f"ZeRO's partitions do not fit the parameters ({error}): not read"
        ranks.problems.append(Problem(str(files.lead), "damaged", message))
    found = gather(Loaded(nested, tuple(ranks.uses), 0), str(files.lead))
    found.problems = [*ranks.problems, *found.problems]
    return found


def _read_ranks(paths: Sequence[Path], ranks: _Ranks) -> None:
    for path in paths:
        try:
            loaded, cut = torch_zip.load_file(path)
        except (IngestError, OSError) as error:
            kind, reason = getattr(error, "kind", "unreadable"), getattr(error, "message", str(error))
            ranks.problems.append(Problem(str(path), kind, reason, getattr(error, "offset", None)))
            continue
        ranks.states.append(_mapping(_mapping(loaded.value).get("optimizer_state_dict")))
        ranks.uses += loaded.references
        ranks.problems += [cut] if cut else []


def _mapping(value: object) -> Attributes:
    own = attributes(value) if isinstance(value, Record) else value
    return own if isinstance(own, Mapping) else {}


def _partitioned(model: Attributes, ranks: _Ranks) -> Iterator[tuple[object, object]]:
    """The optimizer's state by parameter and, from stage 3, the module's weights.

    Raises ValueError where partitions are missing or do not fit.
    """
    if not ranks.states:
        return
    first = ranks.states[0]
    expected = first.get("partition_count")
    count = (
        max((n for n in expected if isinstance(n, int)), default=0)
        if isinstance(expected, list)
        else expected
    )
    if isinstance(count, int) and count != len(ranks.states):
        raise ValueError(f"{len(ranks.states)} of {count} ranks are there")
    shapes = _shapes(model.get("param_shapes"))
    stage = scalar_of(first.get("zero_stage"))  # an enumeration's member
    third = isinstance(stage, int) and stage >= 3
    inner = "optimizer_state_dict" if third else "base_optimizer_state"
    bases = [_mapping(state.get(inner)) for state in ranks.states]
    state: dict[object, dict[object, object]] = {}
    for group, parameters in enumerate(shapes):
        slots = [_mapping(_mapping(base.get("state")).get(group)) for base in bases]
        _name_slots(state, slots, parameters, third)
    settings = bases[0].get("param_groups")
    groups = [
        {**_mapping(given), "params": list(parameters)}
        for given, parameters in zip(
            settings if isinstance(settings, list) else [{}] * len(shapes), shapes, strict=False
        )
    ]
    yield "optimizer", {"state": state, "param_groups": groups}
    if third:
        yield "module", _weights(ranks, shapes)


def _name_slots(
    state: dict[object, dict[object, object]],
    slots: Sequence[Attributes],
    parameters: Mapping[str, tuple[int, ...]],
    each: bool,
) -> None:
    """A group's slots, of every rank, given to its parameters; what is one number is everybody's."""
    for slot, value in slots[0].items():
        if isinstance(value, StoredTensor) and value.shape and element_count(value.shape) > 1:
            pieces = _divided([rank.get(slot) for rank in slots], parameters, each)
            for name, tensor in pieces.items():
                state.setdefault(name, {})[slot] = tensor
        else:
            for name in parameters:
                state.setdefault(name, {})[slot] = value


def _weights(ranks: _Ranks, shapes: Sequence[Mapping[str, tuple[int, ...]]]) -> dict[str, object]:
    """Stage 3's weights in float32, from the optimizer's copy: the model's file has none."""
    weights: dict[str, object] = {}
    for group, parameters in enumerate(shapes):
        flats = []
        for state in ranks.states:
            kept = state.get("fp32_flat_groups")
            flats.append(kept[group] if isinstance(kept, list) and group < len(kept) else None)
        weights.update(_divided(flats, parameters, True))
    return weights


def _shapes(value: object) -> list[dict[str, tuple[int, ...]]]:
    """Names and shapes of each parameter group, in order."""
    groups = value if isinstance(value, list) else [value]
    found = []
    for group in groups:
        named = {}
        for name, shape in _mapping(group).items():
            if (
                isinstance(name, str)
                and isinstance(shape, tuple)
                and all(isinstance(n, int) and n >= 0 for n in shape)
            ):
                named[name] = shape
        found.append(named)
    return found


def _divided(
    flats: Sequence[object], parameters: Mapping[str, tuple[int, ...]], each: bool
) -> dict[str, object]:
    """Parameters cut out of the ranks' flat vectors; ``each``: every one is cut among the ranks."""
    stored: list[StoredBlocks] = []
    for flat in flats:
        if not isinstance(flat, StoredTensor) or tensor_fault(flat) or len(flat.shape) != 1:
            raise ValueError("a rank's flat vector is missing or damaged")
        stored.append(stored_blocks(flat))
    divided: dict[str, object] = {}
    at = 0
    for name, shape in parameters.items():
        count = element_count(shape)
        share = -(-count // len(stored))
        pieces = _each(stored, at, share, count) if each else list(_stretch(stored, at, count))
        at += share if each else count
        divided[name] = placed_tensor(shape, stored[0].dtype, JoinedBlocks(tuple(pieces)))
    return divided


def _each(stored: Sequence[StoredBlocks], at: int, share: int, count: int) -> list[StoredBlocks]:
    """The same stretch of every rank, the last one without its padding."""
    pieces = []
    for rank, blocks in enumerate(stored):
        length = min(share, max(0, count - rank * share))
        if length:
            pieces.append(_part(blocks, at, length))
    return pieces


def _stretch(stored: Sequence[StoredBlocks], at: int, count: int) -> Iterator[StoredBlocks]:
    """``count`` elements from ``at`` of all ranks' vectors put together."""
    begin = 0
    for blocks in stored:
        end = begin + blocks.shape[0]
        first, last = max(at, begin), min(at + count, end)
        if first < last:
            yield _part(blocks, first - begin, last - first)
        begin = end
    if at + count > begin:
        raise ValueError(f"{at + count} elements are needed where {begin} are")


def _part(blocks: StoredBlocks, at: int, length: int) -> StoredBlocks:
    if at + length > blocks.shape[0]:
        raise ValueError(f"{at + length} elements are needed where {blocks.shape[0]} are")
    offset = blocks.offset + at * blocks.strides[0] * DTYPES[blocks.dtype].size
    return StoredBlocks(blocks.region, blocks.dtype, (length,), blocks.strides, offset, blocks.big_endian)
