"""YAML text -> nodes with line and column, and typed readings of them.

Rule files may come from anybody: no tags, no duplicate keys, bounded size, depth and aliases.
Numbers are read as people write them: ``1e-3`` is a number here, unlike in plain PyYAML.
Every mistake is noted in ``Source.problems``; reading goes on with a stand-in value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import yaml

from analyzer.errors import RuleProblem

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
MAX_NODES = 100_000
DEEP = 2_000  # libyaml's composer recurses on the C stack: far below where it would overflow

PLAIN_TAGS = {yaml.ScalarNode: "text", yaml.SequenceNode: "list", yaml.MappingNode: "mapping"}
NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?")
WORDS: dict[str, object] = {
    "": None, "~": None, "null": None, "true": True, "false": False,
    ".nan": float("nan"), ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"),
}  # fmt: skip


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes nodes without guessing their types from their text, which :func:`plain` does."""

    def resolve(self, kind: type[yaml.Node], value: object, implicit: object) -> str:
        return PLAIN_TAGS[kind]

    def descend_resolver(self, *_: object) -> None: ...
    def ascend_resolver(self) -> None: ...


@dataclass(slots=True)
class Source:
    """One rule file, its path as shown to the user, and the mistakes found in it."""

    path: str
    problems: list[RuleProblem] = field(default_factory=list)

    def wrong(self, node: yaml.Node | None, message: str, hint: str = "", offset: int = 0) -> None:
        """Note a mistake at ``node``, ``offset`` characters into its text."""
        line, column = (node.start_mark.line, node.start_mark.column) if node else (0, 0)
        shown = column + 1 + (offset if isinstance(node, yaml.ScalarNode) and not node.style else 0)
        self.problems.append(RuleProblem(self.path, line + 1, shown, message, hint))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""


def compose(source: Source, text: str) -> yaml.Node | None:
    """The root node of ``text``, or None with the reasons in ``source.problems``."""
    try:
        if _may_be_deep(text) and _depth(text) > MAX_DEPTH:
            source.wrong(None, f"nested more than {MAX_DEPTH} levels deep")
            return None
        loader = Loader(text)
        try:
            root: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        _note_yaml_error(source, error)
        return None
    if root is None:
        source.wrong(None, "the file is empty")
        return None
    return root if _is_plain(source, root) else None


def _may_be_deep(text: str) -> bool:
    """An upper bound of the depth, from the text alone: brackets plus the longest line."""
    longest = max(map(len, text.splitlines()), default=0)
    return text.count("[") + text.count("{") + longest > DEEP


def _depth(text: str) -> int:
    """Depth of nesting, counted on parser events, which need no recursion."""
    depth = deepest = 0
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return deepest


def _note_yaml_error(source: Source, error: yaml.YAMLError) -> None:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not valid YAML"
    line, column = (mark.line, mark.column) if mark else (0, 0)
    source.problems.append(RuleProblem(source.path, line + 1, column + 1, f"not valid YAML: {what}"))


def _is_plain(source: Source, root: yaml.Node) -> bool:
    """Check tags, keys and expanded size once per node; False when the tree must not be walked."""
    before = len(source.problems)
    size = _size(source, root, {}, 0)
    if size > MAX_NODES:
        source.wrong(root, f"nested too deeply, or expands to more than {MAX_NODES:,} values")
    return size <= MAX_NODES and len(source.problems) == before


def _size(source: Source, node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """Nodes below ``node`` with aliases expanded; a cycle counts as too many."""
    if id(node) in sizes:
        return sizes[id(node)]
    if depth > MAX_DEPTH:
        return MAX_NODES + 1
    if node.tag != PLAIN_TAGS[type(node)]:
        source.wrong(node, f"the tag {node.tag!r} is not allowed: plain YAML values only")
    sizes[id(node)] = MAX_NODES + 1  # what an alias to a node still being visited finds
    total = 1
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicate_keys(source, node)
        for key, value in node.value:
            total += _size(source, key, sizes, depth + 1) + _size(source, value, sizes, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            total += _size(source, item, sizes, depth + 1)
    sizes[id(node)] = min(total, MAX_NODES + 1)
    return sizes[id(node)]


def _refuse_duplicate_keys(source: Source, node: yaml.MappingNode) -> None:
    seen: set[object] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            source.wrong(key, "a key must be a word")
        elif key.value in seen:
            source.wrong(key, f"duplicate key '{key.value}'")
        else:
            seen.add(key.value)


def plain(node: yaml.Node) -> object:
    """The value of a checked node: dict, list, str, int, float, bool or None."""
    if isinstance(node, yaml.MappingNode):
        return {plain(key): plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    return _scalar(node)


def _scalar(node: yaml.Node) -> object:
    text: str = node.value
    if getattr(node, "style", None):  # quoted or a block: text, whatever it looks like
        return text
    if text in WORDS:
        return WORDS[text]
    return parse_number(text) if NUMBER.fullmatch(text) else text


def parse_number(text: str) -> int | float:
    """``1e-3``, ``.5``, ``1_000``, ``.inf`` as a number; ValueError otherwise."""
    word = WORDS.get(text)
    if isinstance(word, float):
        return word
    if not NUMBER.fullmatch(text):
        raise ValueError(f"'{text}' is not a number")
    digits = text.replace("_", "")
    whole = digits.lstrip("+-").isdigit() and len(digits) < 18
    return int(digits) if whole else float(digits)


def mapping(
    source: Source, node: yaml.Node, what: str, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, yaml.Node]:
    """The values of a mapping by key; unknown and missing keys are noted."""
    if not isinstance(node, yaml.MappingNode):
        source.wrong(node, f"{what} must be a mapping of keys to values")
        return {}
    found: dict[str, yaml.Node] = {}
    known = [*required, *optional]
    for key, value in node.value:
        if key.value in known:
            found[key.value] = value
        else:
            source.wrong(key, f"unknown key '{key.value}' in {what}", did_you_mean(key.value, known))
    for key in required:
        if key not in found:
            source.wrong(node, f"{what} lacks the key '{key}'")
    return found


def entries(source: Source, node: yaml.Node | None, what: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
    """(key, key node, value node) of a mapping with free keys."""
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        source.wrong(node, f"{what} must be a mapping of keys to values")
        return []
    return [(key.value, key, value) for key, value in node.value]


def items(source: Source, node: yaml.Node | None, what: str) -> list[yaml.Node]:
    if node is None:
        return []
    if not isinstance(node, yaml.SequenceNode):
        source.wrong(node, f"{what} must be a list")
        return []
    return list(node.value)


def text(source: Source, node: yaml.Node | None, what: str) -> str:
    """A non-empty text, surrounding space removed."""
    if node is None:
        return ""
    if not isinstance(node, yaml.ScalarNode) or not isinstance(value := _scalar(node), str):
        source.wrong(node, f"{what} must be text")
        return ""
    if not value.strip():
        source.wrong(node, f"{what} is empty")
    return value.strip()


def texts(source: Source, node: yaml.Node | None, what: str) -> tuple[str, ...]:
    return tuple(text(source, item, f"an entry of {what}") for item in items(source, node, what))


def number(source: Source, node: yaml.Node | None, what: str, low: float, high: float) -> float:
    """A finite number within [low, high]."""
    if node is None:
        return low
    value = plain(node) if isinstance(node, yaml.ScalarNode) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        source.wrong(node, f"{what} must be a number")
        return low
    if not low <= value <= high or value in (float("inf"), float("-inf")):
        within = f" from {low:g} to {high:g}" if high < float("inf") else ""
        source.wrong(node, f"{what} must be a finite number{within}, not {value}")
    return float(value)


def choice(source: Source, node: yaml.Node | None, what: str, allowed: Collection[str]) -> str:
    word = text(source, node, what)
    if word and word not in allowed:
        hint = did_you_mean(word, allowed)
        source.wrong(node, f"{what} must be one of {', '.join(allowed)}, not '{word}'", hint)
    return word
