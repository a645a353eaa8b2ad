"""What makes two runs the same configuration: every hyperparameter but those that only name the run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from analyzer.hyperparameters import NUMBERS, split
from analyzer.model import Member, Scalar

# Where a run writes, on what it ran, what it is called: nothing that training depends on.
# Compiled when it is first asked for, which takes longer than to import all else beside it.
INCIDENTAL = (
    r"(\w+_)?(dir|directory|path|file|filename|folder|root|prefix|suffix)|(log|save|out|output|ckpt|cache)(_\w+)?|"
    r"((run|exp|expt|experiment|trial|job|task|session|slurm|wandb|mlflow|display|version)_?)?"
    r"(name|id|uid|uuid|version|number|no|tag|tags|notes|group|desc|description|comment)|"
    r"(\w+_)?(time|timestamp|date|datetime|started|created|url|uri|host|hostname|port|addr|address)|"
    r"(local_|global_|node_)?rank|world_size|device|devices|gpu|gpus|gpu_ids?|cuda|num_workers|n_?workers|workers|"
    r"n_jobs|verbose|verbosity|debug|quiet|entity|project|resume\w*|print_\w+|report_to|user|username|command|argv"
)
MEANT = r"(\w+_)?(model|network|tokenizer|dataset|data|pretrained)\w*_(path|name|dir|file|version|id)"
SEEDS = frozenset(NUMBERS["seed"])

Value = tuple[str, str]


def configuration(hyperparameters: Mapping[str, Scalar]) -> frozenset[Value]:
    """The hyperparameters that tell configurations apart, as text, the seed left out."""
    return frozenset(
        (key, value_text(value))
        for key, value in hyperparameters.items()
        if matters(key) and not is_seed(key)
    )


@lru_cache(maxsize=4096)
def matters(key: str) -> bool:
    """Whether training can depend on it, by its name; ``_name_or_path`` of a model does."""
    last = split(key)[-1].lstrip("_")
    return bool(re.fullmatch(MEANT, last) or last == "name_or_path" or not re.fullmatch(INCIDENTAL, last))


def is_seed(key: str) -> bool:
    last = split(key)[-1]
    return last in SEEDS or last.endswith("_seed")


def value_text(value: Scalar) -> str:
    """Equal for equal values: 1 and 1.0 alike, but not 1 and True."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def varying(members: Sequence[Member]) -> tuple[str, ...]:
    """Hyperparameters that matter and have more than one value among these runs, by name."""
    keys = {key for m in members for key in m.hyperparameters if matters(key) and not is_seed(key)}
    return tuple(
        key for key in sorted(keys) if len({value_text(m.hyperparameters.get(key)) for m in members}) > 1
    )
