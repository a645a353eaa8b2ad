"""Python dicts and JSON objects printed within a line."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from math import isfinite

from analyzer.ingest.json_rows import (
    BARE_NONFINITE,
    EPOCH_NAMES,
    METRIC,
    STEP_NAMES,
    flatten,
    number,
    parse_object,
)
from analyzer.ingest.printed.entries import Entry, Plan, Slot
from analyzer.ingest.printed.words import FIGURE, MAX_TEMPLATES, Templates, last_section, names_section

MAX_LITERAL = 4000
# array([1, 2]), tensor(0.5, device='cuda:0'), np.float64(0.5)
WRAPPED = re.compile(
    r"(?:np\.|numpy\.|torch\.)?(?:array|tensor|float\d+|int\d+)\(\s*(\[[^\]()]*\]|[^(),]*)[^()]*\)"
)


def literal_pairs(text: str) -> dict[str, float] | None:
    """The numbers of a Python dict or JSON object printed in a line; None where there is none."""
    source = text[text.find("{") : text.rfind("}") + 1] if "{" in text else ""
    if not source or len(source) > MAX_LITERAL or ":" not in source:
        return None
    data: object = parse_object(source if '"' in source else source.replace("'", '"'))
    if data is None:
        data = _literal(source)
    if not isinstance(data, dict):
        return None
    named: Mapping[str, object] = {str(key): value for key, value in data.items()}
    return {tag: figure for tag, value in flatten(named) if (figure := number(value)) is not None}


def _literal(source: str) -> object:
    """A Python literal without its nan and its arrays' wrapping; None for anything else. Nothing is run."""
    try:
        value: object = ast.literal_eval(BARE_NONFINITE.sub(r"'\g<0>'", WRAPPED.sub(r"\1", source)))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
    return value


def entry_of_pairs(
    before: str, pairs: Mapping[str, float], at: int, clock: float | None, templates: Templates
) -> Entry | None:
    """An entry from names and numbers; the words before them may say what they are of."""
    by_name = {tag.lower(): tag for tag in pairs}
    epoch = next((by_name[name] for name in EPOCH_NAMES if name in by_name), None)
    inner = next((by_name[name] for name in STEP_NAMES if name in by_name), None)
    tags = [tag for tag in pairs if tag not in (epoch, inner)]
    if not any(METRIC.search(tag) for tag in tags):
        return None
    template = f"{FIGURE.sub('#', before)}{{{','.join(sorted(tags))}}}"
    known = templates.numbers.get(template)
    if known is None:
        if len(templates.numbers) >= MAX_TEMPLATES:
            return None
        known = templates.numbers[template] = len(templates.plans)
        templates.plans.append(Plan(slots=_slots(tags, last_section(before))))
        templates.lines.append(0)
    return Entry(
        line=at,
        template=known,
        plan=templates.plans[known],
        values=tuple([pairs[tag] for tag in tags]),
        epoch=pairs[epoch] if epoch and isfinite(pairs[epoch]) else None,
        inner=pairs[inner] if inner and isfinite(pairs[inner]) else None,
        clock=clock,
    )


def _slots(tags: list[str], section: str) -> tuple[Slot, ...]:
    """The metrics of a dict; the section that the words before it name is that of tags without one."""
    own = [names_section(tag) for tag in tags]
    return tuple(
        Slot(i, tag if named or not section else f"{section}_{tag}", section or named)
        for i, (tag, named) in enumerate(zip(tags, own, strict=True))
    )
