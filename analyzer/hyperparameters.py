"""The many spellings of a hyperparameter -> the name that features know it by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from analyzer.model import Scalar

# Canonical name -> the spellings of a key's last component, most trusted first.
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "learning_rate": (
        "learning_rate", "lr", "lr0", "base_lr", "initial_lr", "init_lr", "peak_lr", "max_lr", "start_lr",
        "initial_learning_rate", "base_learning_rate", "peak_learning_rate", "max_learning_rate",
        "learningrate", "blr", "lr_init", "lr_base", "lr_max", "eta",
    ),
    "weight_decay": ("weight_decay", "wd", "weightdecay", "l2", "l2_reg", "l2_penalty", "l2_regularization"),
    "batch_size": (
        "batch_size", "per_device_train_batch_size", "train_batch_size", "batch", "batchsize", "bs",
        "mini_batch_size", "minibatch_size", "train_micro_batch_size_per_gpu", "samples_per_gpu",
        "global_batch_size", "batch_size_train", "ims_per_batch",
    ),
    "momentum": ("momentum", "sgd_momentum"),
    "epochs": (
        "max_epochs", "num_train_epochs", "num_epochs", "epochs", "n_epochs", "total_epochs", "nb_epochs",
        "max_epoch", "num_epoch", "n_epoch", "train_epochs", "training_epochs", "nepochs",
    ),
    "max_steps": (
        "max_steps", "num_train_steps", "total_steps", "num_steps", "train_steps", "max_iters", "max_iter",
        "n_timesteps", "total_timesteps", "num_iterations", "max_updates", "training_steps",
    ),
    "gradient_clip": (
        "gradient_clip_val", "max_grad_norm", "clip_grad_norm", "clip_grad", "grad_clip", "gradient_clip",
        "clip_norm", "clipnorm", "grad_norm_clip", "grad_clip_norm", "gradient_clipping", "global_clipnorm",
        "clip_gradients", "max_norm", "grad_clip_val",
    ),
    "warmup_steps": (
        "warmup_steps", "num_warmup_steps", "n_warmup_steps", "warmup_iters", "warmup_iterations",
        "warmup_updates", "warm_up_steps", "lr_warmup_steps", "warmup",
    ),
    "warmup_ratio": ("warmup_ratio", "warmup_proportion", "warmup_fraction"),
    "warmup_epochs": ("warmup_epochs", "num_warmup_epochs", "warm_up_epochs"),
    "label_smoothing": ("label_smoothing", "label_smoothing_factor", "smoothing", "label_smooth"),
    "patience": (
        "early_stopping_patience", "early_stop_patience", "es_patience", "patience", "early_stopping_rounds",
    ),
    "seed": (
        "seed", "random_seed", "manual_seed", "global_seed", "random_state", "rng_seed", "seed_everything",
    ),
    "num_classes": (
        "num_classes", "n_classes", "num_labels", "nc", "num_class", "n_class", "nb_classes", "n_labels",
        "number_of_classes", "classes",
    ),
    "accumulate_grad_batches": (
        "accumulate_grad_batches", "gradient_accumulation_steps", "accumulation_steps", "accum_steps",
        "grad_accum_steps", "gradient_accumulate_every", "grad_accum", "accum_iter", "update_freq",
    ),
}  # fmt: skip
WORDS: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("optimizer", "optim", "optimizer_name", "optim_name", "opt", "optimizer_type", "optimiser"),
    "scheduler": (
        "lr_scheduler_type", "lr_scheduler", "scheduler", "lr_schedule", "sched", "scheduler_name",
        "lr_policy", "lr_decay_style", "scheduler_type", "schedule",
    ),
    "model": (
        "model", "model_name", "architecture", "arch", "model_name_or_path", "_name_or_path", "model_type",
        "base_model_name_or_path", "network", "net", "backbone", "model_arch",
    ),
    "dataset": ("dataset", "dataset_name", "data", "task_name", "data_name", "datasets"),
}  # fmt: skip
DROPOUT = re.compile(r"(\w+_)?dropout(_\w+)?|p_?drop|drop(_rate|_prob)?|\w+_pdrop|\w+_drop(_rate)?")
NOT_DROPOUT = re.compile(r"\w*(path|token|last|layer_?drop|connect)\w*")
KINDS = frozenset(["name", "type", "_target_", "class_path", "class_name", "cls", "class", "kind"])
HELD_OUT = frozenset(["val", "valid", "validation", "eval", "evaluation", "test", "dev", "inference"])
POSITIVE = frozenset(  # where zero or less says: not set
    ["learning_rate", "batch_size", "epochs", "max_steps", "num_classes", "patience", "gradient_clip"]
)
REINFORCED = frozenset(["clip_range", "n_timesteps", "gae_lambda", "lambd", "buffer_size"])
PRECISIONS = {
    "bf16": re.compile(r"bf16|bfloat16|bf16-mixed|bf16-true|mixed_bfloat16"),
    "fp16": re.compile(r"16|fp16|float16|half|16-mixed|16-true|f16|mixed_float16|o[12]"),
    "fp32": re.compile(r"32|fp32|float32|32-true|full|no|none|float|o0"),
    "fp64": re.compile(r"64|fp64|float64|double|64-true"),
}
SWITCHES = {
    "bf16": "bf16", "use_bf16": "bf16", "fp16": "fp16", "use_fp16": "fp16", "half": "fp16",
    "amp": "amp", "use_amp": "amp", "mixed_precision": "amp",
}  # fmt: skip


Keys = list[tuple[tuple[str, ...], Scalar]]


def canonical(hyperparameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Known hyperparameters under their canonical names; the unknown, unset and impossible left out.

    Where several spellings are present the more trusted one wins, then the less nested, then the
    first by name. ``dropout`` is the largest of all that are set; ``precision`` one of fp16,
    bf16, amp (which half is not said), fp32, fp64.
    """
    keys = telling(hyperparameters)
    found: dict[str, Scalar] = {}
    for name, spellings in NUMBERS.items():
        number = best_number(name, spellings, keys)
        if number is not None:
            found[name] = number
    for name, spellings in WORDS.items():
        word = best_word(spellings, keys)
        if word:
            found[name] = word
    found.update(dropout_of(keys))
    found.update(precision_of(keys))
    return found


def named(name: str, hyperparameters: Mapping[str, Scalar]) -> str:
    """One of the canonical words alone; "" where it is not known."""
    return best_word(WORDS[name], telling(hyperparameters))


def telling(hyperparameters: Mapping[str, Scalar]) -> Keys:
    """The keys taken apart, by name, without those that are unset or of an evaluation."""
    split_keys = ((split(key), value) for key, value in sorted(hyperparameters.items()))
    return [(parts, v) for parts, v in split_keys if v is not None and HELD_OUT.isdisjoint(parts[:-1])]


@lru_cache(maxsize=4096)  # runs of one project share their names
def split(key: str) -> tuple[str, ...]:
    """``Trainer/maxEpochs`` -> ("trainer", "max_epochs")."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)
    return tuple(re.sub(r"[^a-z0-9_]+", "_", part.lower()).strip() for part in re.split(r"[./]", snake))


def best_number(name: str, spellings: tuple[str, ...], keys: Keys) -> int | float | None:
    ranked = [
        (spellings.index(parts[-1]), len(parts), value)
        for parts, value in keys
        if parts[-1] in spellings and belongs(name, parts, keys)
    ]
    for _, _, value in sorted(ranked, key=lambda r: r[:2]):
        number = number_of(value)
        if number is not None and (number > 0 or name not in POSITIVE):
            return number
    return None


def belongs(name: str, parts: tuple[str, ...], keys: Keys) -> bool:
    """Exceptions to the rule that the last component tells."""
    if name == "patience":  # ReduceLROnPlateau has one too
        return not any("sched" in p or "plateau" in p or p.startswith("lr") for p in parts[:-1])
    if parts[-1] in ("n_epochs", "num_epoch"):  # of PPO: passes over each batch of experience
        return not any(other[-1] in REINFORCED for other, _ in keys)
    if parts[-1] in ("momentum", "eta", "l2"):  # of a batch-norm layer, of some other formula
        return len(parts) == 1 or any("opt" in p or "train" in p for p in parts[:-1])
    return True


def number_of(value: Scalar) -> int | float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return value if value == value and abs(value) != float("inf") else None
    try:
        return float(value) if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value.strip(), re.I) else None
    except ValueError:
        return None


def best_word(spellings: tuple[str, ...], keys: Keys) -> str:
    """The value of a key so called, or of its ``name`` or ``_target_`` below it."""
    ranked = []
    for parts, value in keys:
        if not isinstance(value, str) or not value or value.lower() == "none":
            continue
        if parts[-1] in spellings:
            ranked.append((spellings.index(parts[-1]), len(parts), value))
        elif len(parts) > 1 and parts[-1] in KINDS and parts[-2] in spellings:
            ranked.append((spellings.index(parts[-2]), len(parts), value))
    if not ranked:
        return ""
    word = min(ranked, key=lambda r: r[:2])[2]
    return word.rsplit(".", 1)[-1] if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){2,}", word) else word


def dropout_of(keys: Keys) -> Iterator[tuple[str, Scalar]]:
    rates = [
        number
        for parts, value in keys
        if DROPOUT.fullmatch(parts[-1]) and not NOT_DROPOUT.fullmatch(parts[-1])
        if (number := number_of(value)) is not None and 0 <= number < 1
    ]
    if rates:
        yield "dropout", max(rates)


def precision_of(keys: Keys) -> Iterator[tuple[str, Scalar]]:
    """From ``precision`` where it is said, else from the switches fp16, bf16 and amp."""
    said = {parts[-1]: value for parts, value in reversed(keys)}
    for key in (
        "precision",
        "mixed_precision",
        "mixed_precision_policy",
        "amp_dtype",
        "dtype",
        "torch_dtype",
    ):
        text = str(said.get(key, "")).lower().rsplit(".", 1)[-1]
        for name, pattern in PRECISIONS.items():
            if pattern.fullmatch(text) and not (name == "fp32" and any(switched(said, s) for s in SWITCHES)):
                yield "precision", name
                return
    on = next((name for switch, name in SWITCHES.items() if switched(said, switch)), None)
    if on or any(switch in said for switch in SWITCHES):
        yield "precision", on or "fp32"


def switched(said: Mapping[str, Scalar], switch: str) -> bool:
    return said.get(switch) is True
