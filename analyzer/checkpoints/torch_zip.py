"""PyTorch checkpoints since 1.6: a zip archive of one pickle and a file for each storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from analyzer.checkpoints import torch_objects
from analyzer.checkpoints.pickles import Loaded, load
from analyzer.checkpoints.regions import DTYPES
from analyzer.checkpoints.state import checkpoint_of
from analyzer.checkpoints.torch_objects import Storage
from analyzer.checkpoints.zips import Member, checksum_holds, member_region, read_directory, read_member
from analyzer.errors import IngestError
from analyzer.model import Checkpoint

NAME = "torch-zip"
SUMMARY = "PyTorch checkpoints (.pt, .pth, .ckpt, .bin), also Lightning's and TorchScript"
ORDER = 20
MAX_PICKLE = 1 << 28
_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar", ".model", ".pt2", ".torch"}


def claims(path: Path, head: bytes) -> bool:
    """A zip by its first bytes, with a name of a checkpoint or torch's first member."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    return path.suffix.lower() in _SUFFIXES or b"/data.pkl" in head[:256] or b"/version" in head[:256]


def open(path: Path) -> Checkpoint:
    """Index of the checkpoint; no tensor is read. Raises IngestError."""
    members = read_directory(path)
    archive = find_archive(members)
    if archive is None:
        raise IngestError(str(path), "zip archive without data.pkl: not a PyTorch checkpoint", "unsupported")
    return checkpoint_of(load_archive(path, members, archive), str(path), NAME)


def find_archive(members: Mapping[str, Member]) -> str | None:
    """The folder inside the zip that holds ``data.pkl``, with its slash; None when there is none."""
    roots = [name[: -len("data.pkl")] for name in members if name.endswith("data.pkl")]
    return min((r for r in roots if r == "" or r.endswith("/")), key=len, default=None)


def load_archive(path: Path, members: Mapping[str, Member], archive: str) -> Loaded:
    """The archive's pickle, its tensors as descriptions of where they are."""
    member = members[f"{archive}data.pkl"]
    content = read_member(path, member, MAX_PICKLE)
    place = _Place(path, members, archive, _big_endian(path, members, archive))
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
    archive: str
    big_endian: bool

    def storage(self, key: str, dtype: str, elements: int) -> Storage:
        """The storage's member. What is wrong with it costs its tensors, not the file."""
        width = DTYPES[dtype].size if dtype in DTYPES else 1
        member = self.members.get(f"{self.archive}data/{key}")
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
