"""Stable-Baselines3 models: a zip of a JSON of settings and PyTorch files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from analyzer.checkpoints import torch_zip
from analyzer.checkpoints.entries import Found
from analyzer.checkpoints.pickles import Loaded
from analyzer.checkpoints.scalars import flatten
from analyzer.checkpoints.state import assemble, gather
from analyzer.checkpoints.zips import Member, first_name, nested_directory, read_directory, read_member
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem, Scalar

NAME = "stable-baselines3"
SUMMARY = "Stable-Baselines3 models (.zip)"
ORDER = 15  # before torch-zip: the PyTorch files lie within
_MAX_JSON = 1 << 24


def claims(path: Path, head: bytes) -> bool:
    """A zip whose first member is what Stable-Baselines writes first."""
    first = first_name(head)
    return head.startswith(b"PK\x03\x04") and path.suffix.lower() == ".zip" and first.startswith(
        ("data", "policy.pth", "policy.optimizer.pth", "parameter_list", "pytorch_variables.pth",
         "_stable_baselines3_version", "actor.optimizer.pth")
    ) and not first.startswith("data/")  # fmt: skip


def open(path: Path) -> Checkpoint:
    """Index of the policy's and the optimizers' tensors; none is read. Raises IngestError."""
    members = read_directory(path)
    if "parameter_list" in members:
        message = "a model of Stable-Baselines 2 (TensorFlow), whose format is not supported"
        raise IngestError(str(path), message, "unsupported")
    settings, problems = _settings(path, members)
    found = Found(str(path), hyperparameters=settings, problems=problems)
    for name in sorted((n for n in members if n.endswith(".pth")), key=lambda n: (n != "policy.pth", n)):
        try:
            _add(found, name, gather(_nested(path, members[name]), str(path)))
        except IngestError as error:
            problems.append(Problem(str(path), error.kind, f"{name[:80]}: {error.message}", error.offset))
    if not found.entries:
        kind = problems[0].kind if problems else "unsupported"
        raise IngestError(
            str(path), problems[0].message if problems else "no policy.pth in the archive", kind
        )
    if "num_timesteps" in settings:
        found.metadata["num_timesteps"] = settings["num_timesteps"]
    return assemble(found, NAME)


def _add(found: Found, name: str, part: Found) -> None:
    """The policy's tensors are the model; other files' tensors that are no optimizer's come along."""
    group = "model" if name == "policy.pth" else "other"
    found.entries += [replace(entry, group=group) for entry in part.entries]
    found.optimizers += [(name, optimizer) for _, optimizer in part.optimizers]
    found.problems += part.problems
    found.uses += part.uses


def _settings(path: Path, members: dict[str, Member]) -> tuple[dict[str, Scalar], list[Problem]]:
    """Plain values of the JSON; its base64 pickles are left alone."""
    if "data" not in members:
        return {}, []
    try:
        data = json.loads(read_member(path, members["data"], _MAX_JSON))
    except (ValueError, RecursionError):
        return {}, [Problem(str(path), "damaged", "the settings in 'data' are not JSON")]
    except IngestError as error:
        return {}, [Problem(str(path), error.kind, error.message, error.offset)]
    settings: dict[str, Scalar] = {}
    if isinstance(data, dict):
        plain = {key: value for key, value in data.items() if not isinstance(value, dict)}
        flatten(plain, "", settings)
    return settings, []


def _nested(path: Path, member: Member) -> Loaded:
    """A PyTorch file stored, not compressed, within the archive is read in place."""
    _, members = nested_directory(path, member)
    archive = torch_zip.find_archive(members)
    if archive is None:
        raise IngestError(str(path), "no data.pkl in it", "unsupported")
    return torch_zip.load_archive(path, members, archive)
