"""TorchScript archives: PyTorch's zip with code beside the tensors. The code is not looked at."""

from __future__ import annotations

import re
from pathlib import Path

from analyzer.checkpoints import torch_zip
from analyzer.checkpoints.entries import Found
from analyzer.checkpoints.state import assemble, gather, refuse_empty
from analyzer.checkpoints.zips import first_name, read_or_recover
from analyzer.model import Checkpoint

NAME = "torchscript"
SUMMARY = "TorchScript models (torch.jit.save): parameters, buffers, and the constants of frozen ones"
ORDER = 19  # before torch-zip
_FIRST = re.compile(r"[^/]+/(data|constants)/\d+")


def claims(path: Path, head: bytes) -> bool:
    """A zip that begins with a storage, or with a pickle and code: plain checkpoints have no code."""
    first = first_name(head)
    return _FIRST.fullmatch(first) is not None or (first.endswith("/data.pkl") and b"/code/__torch__" in head)


def open(path: Path) -> Checkpoint:
    """Index of the archive; no tensor is read. Raises IngestError."""
    found = find(path)
    refuse_empty(found)
    return assemble(found, NAME)


def find(path: Path) -> Found:
    found = torch_zip.find(path)
    found.hyperparameters.clear()  # every module's own attributes
    members, _ = read_or_recover(path)
    archive = torch_zip.find_archive(members)
    if archive is not None and f"{archive}constants.pkl" in members:
        group = "other" if found.entries else "model"
        constants = gather(torch_zip.load_archive(path, members, archive, "constants"), str(path))
        found.uses += constants.uses
        found.problems += constants.problems
        for entry in constants.entries:
            found.entries.append(entry.renamed(f"constants.{entry.name}", group))
    return found
