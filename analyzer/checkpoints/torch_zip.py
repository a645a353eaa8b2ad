"""PyTorch checkpoints since 1.6: a zip archive of one pickle and a file for each storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from analyzer.checkpoints import torch_objects
from analyzer.checkpoints.entries import Found
from analyzer.checkpoints.pickles import Loaded, load
from analyzer.checkpoints.regions import DTYPES
from analyzer.checkpoints.state import assemble, gather, refuse_empty
from analyzer.checkpoints.torch_objects import Storage
from analyzer.checkpoints.zips import Member, checksum_holds, member_region, read_member, read_or_recover
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem

NAME = "torch-zip"
SUMMARY = "PyTorch checkpoints (.pt, .pth, .ckpt, .bin), also Lightning's; cut-off ones as far as they go"
ORDER = 20
MAX_PICKLE = 1 << 28
_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar", ".model", ".torch"}


def claims(path: Path, head: bytes) -> bool:
    """A zip by its first bytes, with a name of a checkpoint or torch's first member."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    return path.suffix.lower() in _SUFFIXES or b"/data.pkl" in head[:256] or b"/version" in head[:256]


def open(path: Path) -> Checkpoint:
    """Index of the checkpoint; no tensor is read. Raises IngestError."""
    found = find(path)
    refuse_empty(found)
    return assemble(found, NAME)


def find(path: Path) -> Found:
    """What is in the archive; of one that was cut off, what lies wholly before the cut."""
    loaded, cut = load_file(path)
    found = gather(loaded, str(path))
    if cut:
        found.problems.insert(0, cut)
    return found


def load_file(path: Path) -> tuple[Loaded, Problem | None]:
    """The archive's pickle, and what to say of an archive that was cut off. Raises IngestError."""
    members, cut = read_or_recover(path)
    archive = find_archive(members)
    if archive is None:
        if cut:
            raise IngestError(str(path), cut.message, cut.kind, cut.offset)
        raise IngestError(str(path), "zip archive without data.pkl: not a PyTorch checkpoint", "unsupported")
    return load_archive(path, members, archive), cut


def find_archive(members: Mapping[str, Member]) -> str | None:
    """The folder inside the zip that holds ``data.pkl``, with its slash; None when there is none."""
    roots = [name[: -len("data.pkl")] for name in members if name.endswith("data.pkl")]
    return min((r for r in roots if r == "" or r.endswith("/")), key=len, default=None)


def load_archive(path: Path, members: Mapping[str, Member], archive: str, stem: str = "data") -> Loaded:
    """The archive's pickle, its tensors as descriptions of where they are."""
    member = members[f"{archive}{stem}.pkl"]
    content = read_member(path, member, MAX_PICKLE)
    place = _Place(path, members, f"{archive}{stem}/", _big_endian(path, members, archive))
    try:
        return load(
            content,
            persistent=torch_objects.persistent_storages(place.storage),
            builds=torch_objects.BUILDS,
            path=str(path),
        )
    except IngestError as error:
        if error.kind == "damaged" and not checksum_holds(content, member):
            raise IngestError(str(path), f"{error.message}; its checksum is wrong too", "checksum") from None
        raise


def _big_endian(path: Path, members: Mapping[str, Member], archive: str) -> bool:
    member = members.get(f"{archive}byteorder")
    return member is not None and read_member(path, member, 64).strip() == b"big"


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    members: Mapping[str, Member]
    folder: str
    big_endian: bool

    def storage(self, key: str, dtype: str, elements: int) -> Storage:
        """The storage's member. What is wrong with it costs its tensors, not the file."""
        width = DTYPES[dtype].size if dtype in DTYPES else 1
        member = self.members.get(f"{self.folder}{key}")
        if member is None:
            return Storage(key, dtype, 0, fault=f"data/{key[:40]} is not in the archive")
        if elements * width > member.size:
            fault = f"data/{key[:40]} holds {member.size} bytes where {elements * width} are needed"
            return Storage(key, dtype, 0, fault=fault)
        try:
            region = member_region(self.path, member)
        except IngestError as error:
            return Storage(key, dtype, 0, fault=error.message)
        return Storage(key, dtype, member.size, region, self.big_endian)
