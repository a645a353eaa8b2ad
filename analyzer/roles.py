"""Tag names -> roles, by the table in ``roles.yaml``, read from its copy ``roles.json``.

A tag is cut into words, words and phrases become concepts, and the first rule of the table whose
concepts are there decides. What only the run as a whole can tell (whether a loss is a total or a
part, what stands in for a missing loss) is settled after that. What matches nothing stays unmapped:
a wrong role is worse than none.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from analyzer.model import Direction, Histograms, Series

SPLITS = ("train", "val", "test")
HEADINGS = ("activation", "params", "histogram")
LONGEST_TAG = 1000  # characters; nobody names a curve so
WORD = re.compile(r"((?!(?<=')s\b)[^\W_]+)")  # of "valid_0's auc" not the s
NOTHING: Mapping[tuple[str, ...], str] = {}
# valLoss, ExpRate, AUCScore; not mAP, IoU, WERs
CAMEL = re.compile(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z][a-z])(?=[A-Z][a-z])|(?<=[A-Z]{2})(?=[A-Z][a-z]{2})")


class RoleMatch(NamedTuple):
    """What a tag means. ``subject``: the layer, class, term or metric it speaks of."""

    role: str
    direction: Direction
    subject: str


class RoleInfo(NamedTuple):
    """``single``: a run has one such quantity, so naming it by hand replaces what was guessed."""

    direction: Direction
    meaning: str
    single: bool = False


class _Token(NamedTuple):
    concept: str  # "" for a word that the table does not list
    text: str
    start: int
    end: int


class _Rule(NamedTuple):
    role: str
    has: tuple[frozenset[str], ...]
    named: frozenset[str]  # all that `has` speaks of
    lacks: frozenset[str]
    when: frozenset[str]
    unless: frozenset[str]
    rest: str
    tag: str  # a pattern, compiled when it is first needed: few are
    split: str
    subject: str
    direction: Direction | None


class _Parsed(NamedTuple):
    tag: str
    tokens: tuple[_Token, ...]
    split: str  # "" where the tag names none
    metric: str  # the last metric named
    rules: tuple[_Rule, ...]  # every rule that holds but for the run's signals, first first
    signals: frozenset[str]


class _Draft(NamedTuple):
    match: RoleMatch
    split: str
    metric: str


# --- the table ---------------------------------------------------------------------------------


class _Rules:
    """A list of rules, asked by concepts."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]):
        self.rules = tuple(_rule(entry) for entry in entries)
        self.concepts = frozenset().union(*(c for r in self.rules for c in (*r.has, r.lacks)))
        self.known: dict[frozenset[str], tuple[_Rule, ...]] = {}

    def holding(self, tag: str, tokens: Sequence[_Token], concepts: frozenset[str]) -> tuple[_Rule, ...]:
        """The rules that hold for a tag, leaving signals aside, in the order of the table."""
        asked = concepts & self.concepts
        if asked not in self.known:
            self.known[asked] = tuple(r for r in self.rules if _fits(r, asked))
        return tuple(r for r in self.known[asked] if _holds(r, tag, tokens))


def _fits(rule: _Rule, concepts: frozenset[str]) -> bool:
    return rule.lacks.isdisjoint(concepts) and not any(group.isdisjoint(concepts) for group in rule.has)


class _Table:
    """The table, compiled."""

    def __init__(self, data: Mapping[str, Any]):
        self.roles = {name: RoleInfo(**info) for name, info in data["roles"].items()}
        self.directions: dict[str, Direction] = {}
        self.held_out: set[str] = set()
        self.phrases: dict[str, dict[tuple[str, ...], str]] = defaultdict(dict)
        for group in (data["splits"], data["qualifiers"], data["vocabulary"]):
            for concept, spellings in group.items():
                self._spell(concept, spellings)
        for kind, metrics in data["metrics"].items():
            for concept, spellings in metrics.items():
                self._spell(concept, spellings or [concept])
                self.directions[concept] = "higher" if kind.endswith("higher") else "lower"
                if kind.startswith("held_out"):
                    self.held_out.add(concept)
        for word in data["noise"]:
            self._spell(word, [word])
        for word, known in self.phrases.items():
            self.phrases[word] = dict(sorted(known.items(), key=lambda item: -len(item[0])))
        self.qualifiers = tuple(data["qualifiers"])
        self.noise = frozenset((*data["noise"], *self.qualifiers, *SPLITS))
        self.stand_ins: list[str] = data["stand_ins"]
        self.components = frozenset(data["components"])
        self.rules = _Rules(data["rules"])
        self.histogram_rules = _Rules(data["histogram_rules"])
        raised = [(name, entry) for name, entries in data["signals"].items() for entry in entries]
        self.signals = _Rules([{"role": name, **entry} for name, entry in raised])

    def _spell(self, concept: str, spellings: Sequence[str]) -> None:
        for spelling in spellings:
            words = tuple(spelling.split())
            self.phrases[words[0]][words] = concept


def _rule(entry: Mapping[str, Any]) -> _Rule:
    has = tuple(frozenset(group.split("|")) for group in entry["has"])
    return _Rule(
        entry["role"],
        has,
        frozenset().union(*has),
        frozenset(entry.get("lacks", ())),
        frozenset(entry.get("when", ())),
        frozenset(entry.get("unless", ())),
        entry.get("rest", "any"),
        entry.get("tag", ""),
        entry.get("split", ""),
        entry.get("subject", ""),
        entry.get("direction"),
    )


@lru_cache(maxsize=1)
def _table() -> _Table:
    text = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    return _Table(json.loads(text))


class _Roles(Mapping[str, RoleInfo]):
    """The roles of the table, read when first asked for."""

    def __getitem__(self, role: str) -> RoleInfo:
        return _table().roles[role]

    def __iter__(self) -> Iterator[str]:
        return iter(_table().roles)

    def __len__(self) -> int:
        return len(_table().roles)


ROLES: Mapping[str, RoleInfo] = _Roles()


# --- one tag -----------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 14)
def _pieces(word: str) -> tuple[tuple[str, int], ...]:
    """A word cut at camelCase and before the number at a known word's end: (lower case, length)."""
    cuts = [0, *([] if word.islower() else (m.start() for m in CAMEL.finditer(word))), len(word)]
    found = []
    for first, last in pairwise(cuts):
        piece, phrases = word[first:last].lower(), _table().phrases
        stem = piece.rstrip("0123456789")
        if piece not in phrases and 2 <= len(stem) < len(piece) and (stem,) in phrases.get(stem, ()):
            found += [(stem, len(stem)), (piece[len(stem) :], len(piece) - len(stem))]
        else:
            found.append((piece, last - first))
    return tuple(found)


def _words(tag: str) -> tuple[list[str], list[int], list[int]]:
    """The tag's words, where they start and where they end."""
    words, starts, ends = [], [], []
    at = 0
    for i, part in enumerate(WORD.split(tag)):
        if i % 2:
            for piece, length in _pieces(part):
                words.append(piece)
                starts.append(at)
                at += length
                ends.append(at)
        else:
            at += len(part)
    return words, starts, ends


def _tokens(tag: str) -> tuple[_Token, ...]:
    """Words and phrases as concepts; the longest phrase wins."""
    phrases = _table().phrases
    words, starts, ends = _words(tag)
    found: list[_Token] = []
    i = 0
    while i < len(words):
        text, concept, last = words[i], "", i
        for phrase, meaning in phrases.get(text, NOTHING).items():
            if len(phrase) == 1 or tuple(words[i : i + len(phrase)]) == phrase:
                text, concept, last = "_".join(phrase), meaning, i + len(phrase) - 1
                break
        found.append(_Token(concept, text, starts[i], ends[last]))
        i = last + 1
    return tuple(found)


@lru_cache(maxsize=1 << 14)
def _parse(tag: str) -> _Parsed:
    table = _table()
    tokens = _tokens(tag) if len(tag) <= LONGEST_TAG else ()
    split = metric = ""
    for token in tokens:
        if token.concept in SPLITS:
            split = token.concept
        elif token.concept in table.directions:
            metric = token.concept
    concepts = frozenset([t.concept for t in tokens] + ["METRIC"] * bool(metric))
    signals = frozenset(rule.role for rule in table.signals.holding(tag, tokens, concepts))
    return _Parsed(tag, tokens, split, metric, table.rules.holding(tag, tokens, concepts), signals)


def _holds(rule: _Rule, tag: str, tokens: Sequence[_Token]) -> bool:
    """Whether a rule that fits a tag's concepts holds for what else it asks."""
    if rule.tag and not re.search(rule.tag, tag):
        return False
    if rule.rest == "any":
        return True
    noise = _table().noise
    rest = any(t.concept not in rule.named and t.concept not in noise for t in tokens)
    return rest == (rule.rest == "some")


# --- subjects ----------------------------------------------------------------------------------


def _subject(rule: _Rule, parsed: _Parsed) -> str:
    return SUBJECTS[rule.subject](rule, parsed) if rule.subject else ""


def _name(rule: _Rule, parsed: _Parsed) -> str:
    """The words but those that every such tag has."""
    dropped = _table().noise | {"loss", "accuracy"}
    return "_".join(t.text for t in parsed.tokens if t.concept not in dropped) or _qualifier(rule, parsed)


def _qualifier(rule: _Rule, parsed: _Parsed) -> str:
    concepts = {t.concept for t in parsed.tokens}
    return next((q for q in _table().qualifiers if q in concepts), "")


def _measure(rule: _Rule, parsed: _Parsed) -> str:
    """The metric under its one name, with the words beside it, so that train and val agree."""
    table = _table()
    kept = [t for t in parsed.tokens if t.concept not in table.noise]
    return "_".join(t.concept if t.concept in table.directions else t.text for t in kept)


def _class(rule: _Rule, parsed: _Parsed) -> str:
    dropped = {*_table().directions, "accuracy", "class"}
    return _stretch(parsed, [t.concept in dropped for t in parsed.tokens])


def _layer(rule: _Rule, parsed: _Parsed) -> str:
    dropped = rule.named - {"tensor", "params"}  # `conv1.weight` is a name, `weights/conv1` has a heading
    return _stretch(parsed, [t.concept in dropped or _is_heading(t, parsed.tag) for t in parsed.tokens])


def _is_heading(token: _Token, tag: str) -> bool:
    """Whether `activations`, `params` … is the folder of a tag and not in a layer's name."""
    around = tag[token.start - 1 : token.start] + tag[token.end : token.end + 1]
    return token.concept in HEADINGS and all(c in "/_ " for c in around)


def _stretch(parsed: _Parsed, dropped: Sequence[bool]) -> str:
    """The longest part of the tag, as written, between dropped tokens; the last of equally long ones."""
    edge = {*SPLITS, *_table().qualifiers, "mean"}
    groups: list[list[_Token]] = [[]]
    for token, drop in zip(parsed.tokens, dropped, strict=True):
        if drop:
            groups.append([])
        elif groups[-1] or token.concept not in edge:
            groups[-1].append(token)
    spans = [""]
    for group in groups:
        while group and group[-1].concept in edge:
            group.pop()
        if group:
            spans.append(parsed.tag[group[0].start : group[-1].end])
    return max(reversed(spans), key=len)


SUBJECTS: Mapping[str, Callable[[_Rule, _Parsed], str]] = {
    "words": _name,
    "qualifier": _qualifier,
    "measure": _measure,
    "class": _class,
    "layer": _layer,
    "number": lambda rule, parsed: parsed.tag[len(parsed.tag.rstrip("0123456789")) :],
    "split": lambda rule, parsed: parsed.split.replace("train", ""),
}


# --- a run's tags ------------------------------------------------------------------------------


def assign_roles(tags: Sequence[str], overrides: Mapping[str, str] | None = None) -> dict[str, RoleMatch]:
    """The role of every tag of one run that has one; ``overrides`` maps tags to roles."""
    own = _common_prefix(tags)
    parsed = {tag: _parse(tag[len(own) :].strip()) for tag in dict.fromkeys(tags)}
    signals = frozenset[str]().union(*(p.signals for p in parsed.values()))
    drafts = {tag: draft for tag, p in parsed.items() if (draft := _draft(p, signals))}
    _tell_data_sets_from_parts(drafts)
    _promote_totals(drafts, parsed)
    _promote_lone_parts(drafts)
    _demote_partial_accuracies(drafts)
    _tell_classes_by_number(drafts)
    _let_metric_stand_in(drafts)
    _give_bare_metrics_to_held_out_data(drafts, parsed)
    _leave_twins_to_training(drafts, parsed)
    matches = {tag: draft.match for tag, draft in drafts.items()}
    return _overridden(matches, overrides, parsed) if overrides else matches


def _common_prefix(tags: Sequence[str]) -> str:
    """A first path segment that every tag has and that means nothing (a run's name), or nothing."""
    head, slash, _ = tags[0].partition("/") if tags else ("", "", "")
    prefix = head + slash
    if not slash or len(tags) < 2 or not all(tag.startswith(prefix) for tag in tags):
        return ""
    return "" if any(word in _table().phrases for word in _words(head)[0]) else prefix


def _draft(parsed: _Parsed, signals: frozenset[str]) -> _Draft | None:
    rule = next((r for r in parsed.rules if r.when <= signals and r.unless.isdisjoint(signals)), None)
    if rule is None or not rule.role:
        return None
    table = _table()
    held_out = "val" if parsed.metric in table.held_out else "train"
    split = parsed.split or rule.split or held_out
    role = rule.role.replace("{split}", split)
    named = role.partition("_")[0]
    split = named if named in SPLITS else split
    direction = rule.direction or table.roles[role].direction
    if role.endswith("_metric") and not rule.direction and direction == "unknown":
        direction = table.directions.get(parsed.metric, "higher")
    return _Draft(RoleMatch(role, direction, _subject(rule, parsed)), split, parsed.metric)


def _change(drafts: dict[str, _Draft], tag: str, role: str) -> None:
    """Give a tag another role, with that role's direction where it has one."""
    draft = drafts[tag]
    direction = ROLES[role].direction
    if direction == "unknown":
        direction = draft.match.direction
    drafts[tag] = draft._replace(match=draft.match._replace(role=role, direction=direction))


def _of(drafts: Mapping[str, _Draft], role: str) -> dict[str, RoleMatch]:
    return {tag: draft.match for tag, draft in drafts.items() if draft.match.role == role}


def _tell_data_sets_from_parts(drafts: dict[str, _Draft]) -> None:
    """`eval_wiki_loss` is the loss on a set of its own unless it is a term of a known name."""
    terms = {m.subject for m in _of(drafts, "train_loss_part").values()}
    for split in ("val", "test"):
        if any(m.subject != "ema" for m in _of(drafts, f"{split}_loss").values()):
            continue
        for tag, match in _of(drafts, f"{split}_loss_part").items():
            if match.subject not in terms and _table().components.isdisjoint(match.subject.split("_")):
                _change(drafts, tag, f"{split}_loss")


def _promote_totals(drafts: dict[str, _Draft], parsed: Mapping[str, _Parsed]) -> None:
    """Where no loss is the whole one, a part that is called the total is."""
    for split in SPLITS:
        parts = _of(drafts, f"{split}_loss_part")
        totals = [tag for tag in parts if any(token.text == "total" for token in parsed[tag].tokens)]
        if len(totals) == 1 and len(parts) > 1 and not _of(drafts, f"{split}_loss"):
            _change(drafts, totals[0], f"{split}_loss")


def _promote_lone_parts(drafts: dict[str, _Draft]) -> None:
    """A loss with a first name is the loss where it is the only one."""
    names = {s: {m.subject for m in _of(drafts, f"{s}_loss_part").values()} for s in SPLITS}
    for split in SPLITS:
        is_term = split != "train" and len(names["train"]) > 1 and names[split] <= names["train"]
        if len(names[split]) == 1 and not is_term and not _of(drafts, f"{split}_loss"):
            for tag in _of(drafts, f"{split}_loss_part"):
                _change(drafts, tag, f"{split}_loss")


def _demote_partial_accuracies(drafts: dict[str, _Draft]) -> None:
    """Beside a plain accuracy, one with a first name (of a head, of a class) is another metric."""
    qualifiers = {"", *_table().qualifiers}
    for split in SPLITS:
        found = _of(drafts, f"{split}_accuracy")
        if any(m.subject in qualifiers for m in found.values()):
            for tag, match in found.items():
                if match.subject not in qualifiers:
                    _change(drafts, tag, f"{split}_metric")
                    named = drafts[tag].match._replace(
                        direction="higher", subject=f"{match.subject}_accuracy"
                    )
                    drafts[tag] = drafts[tag]._replace(match=named)


def _tell_classes_by_number(drafts: dict[str, _Draft]) -> None:
    """`recall_0`, `recall_1`, …: one metric of several classes, counted from 0 and without a gap."""
    numbered: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for tag, draft in drafts.items():
        name, _, number = draft.match.subject.rpartition("_")
        if (
            draft.match.role == f"{draft.split}_metric"
            and name
            and name == draft.metric
            and number.isdecimal()
        ):
            numbered[draft.match.role, name][int(number)] = tag
    for by_number in numbered.values():
        if len(by_number) > 1 and set(by_number) == set(range(len(by_number))):
            for index, tag in by_number.items():
                role = f"{drafts[tag].split}_class_metric"
                match = drafts[tag].match._replace(role=role, subject=str(index))
                drafts[tag] = drafts[tag]._replace(match=match)


def _let_metric_stand_in(drafts: dict[str, _Draft]) -> None:
    """Where no loss of any kind was logged, the first of the stand-ins is the loss."""
    if any("_loss" in draft.match.role for draft in drafts.values()):
        return
    metrics = {
        t: d for t, d in drafts.items() if d.match.role.endswith("_metric") and d.match.subject == d.metric
    }
    logged = {draft.metric for draft in metrics.values()}
    chosen = next((m for m in _table().stand_ins if m in logged), None)
    for tag, draft in metrics.items():
        if draft.metric == chosen:
            _change(drafts, tag, f"{draft.split}_loss")


def _give_bare_metrics_to_held_out_data(drafts: dict[str, _Draft], parsed: Mapping[str, _Parsed]) -> None:
    """Where every loss names its data and a metric does not, the metric was measured on held-out data."""
    losses = {parsed[tag].split for s in SPLITS for tag in _of(drafts, f"{s}_loss")}
    if not {"train", "val"} <= losses or "" in losses:
        return
    told = {_quantity(draft) for tag, draft in drafts.items() if parsed[tag].split}
    for tag, draft in drafts.items():
        bare = not parsed[tag].split and _quantity(draft) not in told
        if bare and draft.match.role in ("train_accuracy", "train_metric", "train_class_metric"):
            _change(drafts, tag, draft.match.role.replace("train", "val"))


def _leave_twins_to_training(drafts: dict[str, _Draft], parsed: Mapping[str, _Parsed]) -> None:
    """A bare metric beside the same one named for validation was measured in training, whatever it is."""
    told = {_quantity(draft) for tag, draft in drafts.items() if parsed[tag].split == "val"}
    for tag, draft in drafts.items():
        if not parsed[tag].split and draft.match.role == "val_metric" and _quantity(draft) in told:
            _change(drafts, tag, "train_metric")


def _quantity(draft: _Draft) -> tuple[str, str]:
    """What was measured, whatever the data."""
    return draft.match.role.removeprefix(f"{draft.split}_"), draft.match.subject


# --- roles named by hand -----------------------------------------------------------------------


def parse_override(text: str) -> tuple[str, str]:
    """'train_loss=my/odd tag' -> ('my/odd tag', 'train_loss'). ValueError says what is wrong."""
    role, equals, tag = (part.strip() for part in text.partition("="))
    if not equals or not role or not tag:
        raise ValueError(f"{text!r} is not ROLE=TAG, such as 'train_loss=my/odd tag'")
    if role not in ROLES:
        from difflib import get_close_matches

        close = get_close_matches(role.lower().replace("-", "_"), list(ROLES), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"unknown role {role!r}{hint} Known roles: {', '.join(ROLES)}")
    return tag, role


def _overridden(
    matches: dict[str, RoleMatch], overrides: Mapping[str, str], parsed: Mapping[str, _Parsed]
) -> dict[str, RoleMatch]:
    """Roles named by hand win; where a run has one such quantity the guesses at it are dropped."""
    chosen = {tag: role for tag, role in overrides.items() if tag in parsed}
    taken = {role for role in chosen.values() if ROLES[role].single}
    kept = {tag: m for tag, m in matches.items() if tag not in chosen and m.role not in taken}
    return kept | {tag: _named(tag, role, matches, parsed[tag]) for tag, role in chosen.items()}


def _named(tag: str, role: str, matches: Mapping[str, RoleMatch], parsed: _Parsed) -> RoleMatch:
    direction, guess = ROLES[role].direction, matches.get(tag)
    if direction == "unknown" and role.endswith("_metric"):
        direction = guess.direction if guess else _table().directions.get(parsed.metric, "unknown")
    return RoleMatch(role, direction, guess.subject if guess and guess.role == role else "")


# --- series and histograms ---------------------------------------------------------------------


def with_roles(series: Sequence[Series], overrides: Mapping[str, str] | None = None) -> tuple[Series, ...]:
    """The series with role, direction and subject. Test values stand in for validation never logged."""
    matches = _assigned(tuple(s.tag for s in series), tuple((overrides or {}).items()))
    return tuple(_with_role(s, matches.get(s.tag)) for s in series)


@lru_cache(maxsize=16)
def _assigned(tags: tuple[str, ...], overrides: tuple[tuple[str, str], ...]) -> Mapping[str, RoleMatch]:
    """As ``assign_roles``, test values standing in; the runs of a folder mostly have the same tags."""
    given = dict(overrides)
    matches = assign_roles(tags, given)
    logged = Counter(match.role for match in matches.values())
    for tag, match in matches.items():
        held_out = match.role.replace("test_", "val_")
        if match.role.startswith("test_") and not _logged(held_out, logged) and tag not in given:
            matches[tag] = match._replace(role=held_out)
    return matches


def _logged(role: str, logged: Mapping[str, int]) -> bool:
    """Whether a role, or the same quantity in parts or as a whole, was logged."""
    whole = role.removesuffix("_part")
    return bool(logged.get(whole) or logged.get(f"{whole}_part"))


def _with_role(series: Series, match: RoleMatch | None) -> Series:
    match = match or RoleMatch("", "unknown", "")
    return replace(series, role=match.role, direction=match.direction, subject=match.subject)


def with_histogram_roles(
    histograms: Sequence[Histograms], overrides: Mapping[str, str] | None = None
) -> tuple[Histograms, ...]:
    """The histograms with role (of gradients, weights, activations) and layer."""
    return tuple(_with_histogram_role(h, overrides or {}) for h in histograms)


def _with_histogram_role(histogram: Histograms, overrides: Mapping[str, str]) -> Histograms:
    parsed = _parse(histogram.tag)
    concepts = frozenset(t.concept for t in parsed.tokens)
    rules = _table().histogram_rules.holding(parsed.tag, parsed.tokens, concepts)
    role = rules[0].role if rules else ""
    subject = _subject(rules[0], parsed) if rules else ""
    return replace(histogram, role=overrides.get(histogram.tag, role), subject=subject)
