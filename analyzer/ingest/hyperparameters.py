"""Configuration files -> hyperparameters: YAML, JSON and TOML, nested keys joined with dots.

The content is data only: a YAML tag that asks for a Python object gives its name or its plain
contents, and nothing is imported or called.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from analyzer.errors import IngestError
from analyzer.model import Problem, Reading, Scalar

NAME = "hyperparameters"
SUMMARY = "Configurations in YAML, JSON and TOML: hparams.yaml, args.yaml, config.json, Hydra, W&B"
ORDER = 90

MAX_BYTES = 1 << 19  # PyYAML reads about 100 KiB a second, and no real configuration is this long
MAX_LEAVES = 5000
MAX_DEPTH = 20
MAX_FLOW = 100  # brackets within brackets
MAX_LIST = 20  # longer lists are data, not settings
MAX_TEXT = 500

SUFFIXES = frozenset([".yaml", ".yml", ".json", ".toml"])
CONFIG = re.compile(
    r"hparams?|hyp|hyper[_-]?param\w*|configs?|configuration|conf|cfg|args?|arguments|opts?|options"
    r"|params?|parameters|settings|flags|recipe"
)
NOT_CONFIG = re.compile(
    r"results?|metrics?|history|histories|state|logs?|losses|scores?|summary|tokeni[sz]er|vocab|tokens|merges"
    r"|preprocessor|generation|extractor|processor|index|package|lock|environment|conda|docker|compose|dvc"
    r"|metadata|meta|predictions?|annotations?|labels|manifest|mkdocs|hydra|overrides|pyproject|report"
)
JSON_LEAF = re.compile(rb'"\s*:\s*(-?\d|true|false|null|"|NaN|-?Infinity)')
WORDS = {"True": True, "False": False, "None": None}  # as Python prints them
TABLE_ROW = re.compile(r"^[ \t]*\|[ \t]*([^|\n]*[^|\s:-])[ \t]*\|[ \t]*([^|\n]*?)[ \t]*\|[ \t]*$", re.M)
YAML_KEY = re.compile(rb"^[\"']?[A-Za-z_][\w .\-/]*[\"']?\s*:(?:\s|$)", re.M)


def claims(path: Path, head: bytes) -> bool:
    """By name and by what the head holds: a mapping, not a list and not a log."""
    if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
        return False
    words = [w for w in re.split(r"[^a-z]+", path.stem.lower()) if w]
    named = any(CONFIG.fullmatch(w) for w in words)
    if any(NOT_CONFIG.fullmatch(w) for w in words):
        return False
    return plausible(path.suffix.lower(), head, named)


def plausible(suffix: str, head: bytes, named: bool) -> bool:
    """Can this be a mapping with settings? A name that says so is trusted with an empty one."""
    text = head.removeprefix(b"\xef\xbb\xbf").strip()
    if suffix == ".json" or text.startswith(b"{"):
        return text.startswith(b"{") and (named or JSON_LEAF.search(text) is not None)
    if suffix == ".toml":
        return re.search(rb"^\s*[\w.\-\"']+\s*=", text, re.M) is not None
    if text.startswith((b"[", b"- ")):
        return False
    return YAML_KEY.search(text) is not None or (named and (not text or text.startswith(b"!!python")))


def run_root(path: Path) -> Path:
    """The run's folder, where the file lies in a folder of its tool or of one checkpoint."""
    folder = path.parent
    if folder.name == ".hydra" or re.fullmatch(r"checkpoint-\d+", folder.name):
        return folder.parent
    if folder.name == "files" and re.match(r"(offline-)?run-|latest-run", folder.parent.name):
        return folder.parent
    return folder


def read(path: Path) -> Reading:
    """Flat hyperparameters; ``IngestError`` for what is no mapping."""
    data = path.read_bytes()[: MAX_BYTES + 1]
    if len(data) > MAX_BYTES:
        raise IngestError(str(path), f"more than {MAX_BYTES // 1024} KiB: not a configuration", "too-large")
    if not data.strip(b"\0\r\n\t \xef\xbb\xbf"):
        raise IngestError(str(path), "the file is empty", "empty")
    if data.startswith(b"version https://git-lfs"):
        raise IngestError(str(path), "a Git LFS pointer, not the file: run `git lfs pull`", "pointer")
    value = parsed(path, data.decode("utf-8-sig", errors="replace"))
    if not isinstance(value, Mapping):
        raise IngestError(str(path), "not a mapping of names to settings", "unsupported")
    return flat_reading(path, value)


def parsed(path: Path, text: str) -> object:
    """The plain data of a file, or an ``IngestError`` that says where it is broken."""
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text)
        if path.suffix.lower() == ".toml":
            return tomllib.loads(text)
        return parse_yaml(text)
    except RecursionError:
        raise IngestError(str(path), "nested too deeply", "unsafe") from None
    except ValueError as error:
        raise IngestError(str(path), f"broken {path.suffix.lstrip('.')}: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def flat_reading(path: Path, value: Mapping[Any, Any]) -> Reading:
    found: dict[str, Scalar] = {}
    for name, scalar in leaves(value, "", 0):
        if len(found) >= MAX_LEAVES:
            message = f"more than {MAX_LEAVES} settings; the rest is left out"
            return Reading(hyperparameters=found, problems=(Problem(str(path), "too-large", message),))
        found[name] = scalar
    return Reading(hyperparameters=found)


def leaves(value: object, name: str, depth: int) -> Iterator[tuple[str, Scalar]]:
    """The scalars of nested mappings with dotted names; short lists of scalars as text."""
    if depth > MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        if name and set(value) <= {"value", "desc"} and "value" in value:  # Weights & Biases
            yield from leaves(value["value"], name, depth + 1)
            return
        for key, inner in value.items():
            word = str(key)[:MAX_TEXT]
            if not word.startswith("__") and word not in ("_wandb", "wandb_version"):
                yield from leaves(inner, f"{name}.{word}" if name else word, depth + 1)
    elif isinstance(value, list | tuple):
        yield from list_leaves(list(value), name, depth)
    elif name:
        yield name, scalar_of(value)


def list_leaves(items: list[object], name: str, depth: int) -> Iterator[tuple[str, Scalar]]:
    if len(items) > MAX_LIST:
        return
    if not any(isinstance(item, Mapping | list | tuple) for item in items):
        yield name, ("[" + ", ".join(str(scalar_of(item)) for item in items) + "]")[:MAX_TEXT]
        return
    for i, item in enumerate(items):
        if isinstance(item, Mapping):
            yield from leaves(item, f"{name}.{i}", depth + 1)


def scalar_of(value: object) -> Scalar:
    """A plain scalar; text that is a number becomes one (PyYAML reads 1e-3 as text)."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)[:MAX_TEXT]
    if re.fullmatch(r"[-+]?(0|[1-9]\d{0,17})", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=e))(e[-+]?\d+)?", text, re.I):
        return float(text)
    return text


def settings_in_text(tag: str, text: str) -> dict[str, Scalar]:
    """The settings that a run logged as text: JSON, as Transformers does, or a Markdown table, as CleanRL."""
    words = [w for w in re.split(r"[^a-z]+", tag.lower().removesuffix("/text_summary")) if w]
    if len(text) > MAX_BYTES or not any(CONFIG.fullmatch(w) for w in words):
        return {}
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = dict(TABLE_ROW.findall(text))
        header = next(iter(value), None)
        value = {n: WORDS.get(v, scalar_of(v)) for n, v in value.items() if n != header}
    return dict(islice(leaves(value, "", 0), MAX_LEAVES)) if isinstance(value, Mapping) else {}


# YAML, with every tag read inertly


def parse_yaml(text: str) -> object:
    """Plain data; raises ``ValueError`` where the YAML is broken or expands without bound."""
    import yaml

    try:
        loader = _loader()(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark and what else ""
        raise ValueError(place + (what or first_line(error))) from None


def _loader() -> Any:
    """A SafeLoader that turns unknown tags into data, without dates and with bounded merges."""
    import yaml

    class InertLoader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012 - a table PyYAML looks up by this name
            first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith(":timestamp")]
            for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level > MAX_FLOW:  # the scanner's work grows with the square of the depth
                raise RecursionError
            super().fetch_flow_collection_start(token)

        def flatten_mapping(self, node: Any) -> None:
            super().flatten_mapping(node)
            if len(node.value) > MAX_LEAVES:
                raise yaml.constructor.ConstructorError(
                    None, None, "merged keys without end", node.start_mark
                )

    InertLoader.add_multi_constructor("", lambda loader, tag, node: _inert(loader, tag, node))
    InertLoader.add_constructor(None, lambda loader, node: _inert(loader, node.tag, node))
    return InertLoader


def _inert(loader: Any, tag: str, node: Any) -> object:
    """What a tagged node says, as plain data."""
    import yaml

    kind, _, name = tag.removeprefix("tag:yaml.org,2002:").partition(":")
    if isinstance(node, yaml.ScalarNode):
        text = str(loader.construct_scalar(node))
        return name if kind in ("python/name", "python/module") and name else text
    if isinstance(node, yaml.SequenceNode):
        items = loader.construct_sequence(node, deep=True)
        return called(name, items) if kind.startswith("python/object") else items
    mapping = loader.construct_mapping(node, deep=True)
    if not kind.startswith("python/object"):
        return mapping
    if isinstance(mapping.get("dictitems"), dict):
        return mapping["dictitems"]
    if "args" in mapping:
        return called(name, mapping["args"])
    if isinstance(mapping.get("state"), dict):
        mapping = mapping["state"]
    return name if any(str(key).startswith("_") for key in mapping) else mapping


def called(name: str, arguments: object) -> object:
    """What calling ``name`` with plain arguments would have held; its name where that is unknown."""
    items = arguments if isinstance(arguments, list) else [arguments]
    last = name.rsplit(".", 1)[-1]
    if last.lower() in ("ordereddict", "dict", "defaultdict"):
        pairs = next((i for i in items if isinstance(i, list | dict)), [])
        return pairs_of(pairs)
    if last == "dtype" and items and isinstance(items[0], str):
        return items[0]
    if last == "scalar" and len(items) == 2 and isinstance(items[1], bytes):
        return numpy_scalar(str(items[0]), items[1])
    if last.endswith("Path") and all(isinstance(i, str) for i in items):
        return str(PurePosixPath(*[str(i) for i in items]))
    if len(items) == 1 and isinstance(items[0], str | int | float | bool):
        return items[0]
    return name


def pairs_of(pairs: list[object] | dict[Any, Any]) -> dict[Any, Any]:
    if isinstance(pairs, dict):
        return pairs
    return {str(p[0]): p[1] for p in pairs if isinstance(p, list) and len(p) == 2}


def numpy_scalar(code: str, data: bytes) -> object:
    """The number behind a pickled numpy scalar of a simple type."""
    if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        return f"numpy {code}"
    dtype = np.dtype(code).newbyteorder("<")
    if len(data) != dtype.itemsize:
        return f"numpy {code}"
    number = np.frombuffer(data, dtype)[0].item()
    return number if not isinstance(number, float) or math.isfinite(number) else str(number)
