"""The role table: what a tag means, alone and in its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.model import Histograms, Series
from analyzer.roles import ROLES, RoleMatch, assign_roles, parse_override, with_histogram_roles, with_roles

CASES = yaml.safe_load(Path(__file__).with_name("role_cases.yaml").read_text(encoding="utf-8"))
TRAINERS = yaml.safe_load(Path(__file__).with_name("role_tags.yaml").read_text(encoding="utf-8"))
NOT_JUDGED = {"", "system", "counter", "epoch", "step_axis"}
ROOT = Path(__file__).parents[1]
TABLE = yaml.safe_load(Path(__file__).parents[1].joinpath("analyzer/roles.yaml").read_text(encoding="utf-8"))
UNMAPPED = RoleMatch("", "unknown", "")


def series(tag: str) -> Series:
    return Series(tag, np.arange(3.0), np.ones(3))


def histogram(tag: str) -> Histograms:
    one = np.ones(1)
    return Histograms(tag, one, one, one, one, one, one, one, np.array([0, 1]), one, one, one)


def role_of(tag: str, *others: str) -> str:
    return assign_roles([tag, *others]).get(tag, UNMAPPED).role


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_tags_of_one_run(case: dict[str, Any]) -> None:
    expected = {tag: RoleMatch(*match) for tag, match in case["tags"].items() if match}
    assert assign_roles(list(case["tags"])) == expected


@pytest.mark.parametrize("trainer", TRAINERS, ids=[trainer["trainer"] for trainer in TRAINERS])
def test_tags_of_popular_trainers(trainer: dict[str, Any]) -> None:
    roles = {role: tags for role, tags in trainer.items() if role not in ("trainer", "misread")}
    meant = {tag: role for role, tags in roles.items() for tag in tags}
    found = assign_roles(list(meant))
    wrong = {}
    for tag, role in meant.items():
        got = found.get(tag, UNMAPPED).role
        if got not in NOT_JUDGED if role == "other" else got != role:
            wrong[tag] = got
    assert list(wrong) == trainer.get("misread", [])


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_order_of_tags_does_not_matter(case: dict[str, Any]) -> None:
    tags = list(case["tags"])
    assert assign_roles(tags[::-1]) == assign_roles(tags)


@pytest.mark.parametrize("separator", ["/", "_", "-", ".", " ", ": "])
@pytest.mark.parametrize(
    ("word", "role"),
    [("train", "train_loss"), ("Training", "train_loss"), ("VAL", "val_loss"), ("valid", "val_loss"),
     ("dev", "val_loss"), ("eval", "val_loss"), ("validation", "val_loss"), ("test", "test_loss")],
)  # fmt: skip
def test_split_and_loss_in_any_order_and_spelling(separator: str, word: str, role: str) -> None:
    assert role_of(f"{word}{separator}loss") == role
    assert role_of(f"Loss{separator}{word}") == role


@pytest.mark.parametrize("metric", ["f1", "AUROC", "mIoU", "BLEU", "psnr", "kappa", "R2_score", "recall"])
def test_metrics_that_should_rise(metric: str) -> None:
    assert assign_roles([f"val_{metric}", "loss"])[f"val_{metric}"].direction == "higher"


@pytest.mark.parametrize("metric", ["wer", "CER", "rmse", "perplexity", "FID", "lpips", "error_rate", "mae"])
def test_metrics_that_should_fall(metric: str) -> None:
    assert assign_roles([f"val_{metric}", "loss"])[f"val_{metric}"].direction == "lower"


def test_train_and_validation_metric_share_their_subject() -> None:
    matches = assign_roles(["loss", "train/F1-Score_macro", "validation_f1_macro"])
    assert matches["train/F1-Score_macro"].subject == matches["validation_f1_macro"].subject


def test_a_data_set_is_no_term_of_the_loss() -> None:
    assert role_of("eval_wiki_loss", "eval_c4_loss", "loss") == "val_loss"
    assert role_of("val_box_loss", "val_cls_loss", "loss") == "val_loss_part"


def test_regression_is_a_term_in_a_detector_and_a_penalty_elsewhere() -> None:
    assert role_of("loss_reg", "loss_cls") == "train_loss_part"
    assert role_of("reg_loss", "loss") == "regularizer"


# --- with_roles ---------------------------------------------------------------------------------


def test_series_get_role_direction_and_subject() -> None:
    found = with_roles([series("val/box_loss"), series("val/cls_loss"), series("what")])
    assert [(s.role, s.direction, s.subject) for s in found] == [
        ("val_loss_part", "lower", "box"),
        ("val_loss_part", "lower", "cls"),
        ("", "unknown", ""),
    ]


def test_test_values_stand_in_for_missing_validation() -> None:
    found = with_roles([series("train_loss"), series("test_loss"), series("test_acc")])
    assert [s.role for s in found] == ["train_loss", "val_loss", "val_accuracy"]


def test_test_values_stay_beside_validation() -> None:
    found = with_roles([series("val_loss"), series("test_loss"), series("test_acc")])
    assert [s.role for s in found] == ["val_loss", "test_loss", "val_accuracy"]


def test_test_loss_stays_beside_parts_of_the_validation_loss() -> None:
    found = with_roles([series("val/box_loss"), series("val/cls_loss"), series("test/loss")])
    assert found[2].role == "test_loss"


def test_series_of_one_tag_get_one_role() -> None:
    assert [s.role for s in with_roles([series("loss"), series("loss")])] == ["train_loss", "train_loss"]


def test_stale_roles_are_replaced() -> None:
    stale = Series("linear_1", np.arange(3.0), np.ones(3), role="val_loss", direction="lower")
    assert with_roles([stale])[0].role == ""


@pytest.mark.parametrize(
    ("tag", "role", "subject"),
    [
        ("gradients/conv1.weight", "grad_hist", "conv1.weight"),
        ("fc1.weight.grad", "grad_hist", "fc1.weight"),
        ("gradient_histogram/_encoder.bias", "grad_hist", "encoder.bias"),
        ("conv1.weight", "weight_hist", "conv1.weight"),
        ("dense/kernel_0", "weight_hist", "dense/kernel_0"),
        ("parameters/lstm.bias_hh_l0", "weight_hist", "lstm.bias_hh_l0"),
        ("conv1/weights", "weight_hist", "conv1"),
        ("activations/relu1", "activation_hist", "relu1"),
        ("relu1/activations", "activation_hist", "relu1"),
        ("dense_1_out", "activation_hist", "dense_1"),
        ("classes", "", ""),
        ("Environment/Cumulative Reward_hist", "", ""),
    ],
)
def test_histograms(tag: str, role: str, subject: str) -> None:
    found = with_histogram_roles([histogram(tag)])[0]
    assert (found.role, found.subject) == (role, subject)


def test_histogram_role_by_hand() -> None:
    assert with_histogram_roles([histogram("w1")], {"w1": "weight_hist"})[0].role == "weight_hist"


# --- roles named by hand ------------------------------------------------------------------------


def test_override_wins_and_replaces_the_guess() -> None:
    matches = assign_roles(["loss", "my/odd tag"], {"my/odd tag": "train_loss"})
    assert matches == {"my/odd tag": RoleMatch("train_loss", "lower", "")}


def test_override_of_one_metric_leaves_the_others() -> None:
    matches = assign_roles(["val_f1", "val_wer", "q", "loss"], {"q": "val_metric"})
    assert matches["val_f1"].role == matches["val_wer"].role == matches["q"].role == "val_metric"
    assert matches["q"].direction == "unknown"


def test_override_keeps_what_the_name_says_of_direction() -> None:
    assert assign_roles(["bleu", "loss"], {"bleu": "train_metric"})["bleu"].direction == "higher"


def test_override_of_a_tag_that_is_not_there_changes_nothing() -> None:
    assert assign_roles(["loss"], {"other": "train_loss"}) == assign_roles(["loss"])


def test_test_loss_named_by_hand_is_not_promoted() -> None:
    assert with_roles([series("x")], {"x": "test_loss"})[0].role == "test_loss"


def test_parse_override() -> None:
    assert parse_override("train_loss=my/odd tag") == ("my/odd tag", "train_loss")
    assert parse_override("val_loss = a=b") == ("a=b", "val_loss")


@pytest.mark.parametrize("text", ["train_loss", "=tag", "train_loss=", "", "train_loss= "])
def test_parse_override_names_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="ROLE=TAG"):
        parse_override(text)


def test_parse_override_suggests_a_role() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'train_loss'\?.*learning_rate"):
        parse_override("Train-Los=x")


def test_parse_override_lists_roles_where_none_is_close() -> None:
    with pytest.raises(ValueError, match=r"unknown role 'zzz'\. Known roles: train_loss, val_loss"):
        parse_override("zzz=x")


# --- the table ----------------------------------------------------------------------------------


def test_every_role_of_the_rules_is_described() -> None:
    named = {rule["role"] for rule in TABLE["rules"] + TABLE["histogram_rules"]} - {""}
    spread = {role.replace("{split}", s) for role in named for s in ("train", "val", "test")}
    assert spread <= set(ROLES)
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "analyzer").rglob("*.py"))
    assert [
        role for role in set(ROLES) - spread if f'"{role}"' not in code
    ] == []  # given by what measures it
    assert all(info.meaning and info.direction in ("lower", "higher", "unknown") for info in ROLES.values())


def test_no_word_has_two_meanings() -> None:
    metrics = {name: words or [name] for kind in TABLE["metrics"].values() for name, words in kind.items()}
    groups = [TABLE["splits"], TABLE["qualifiers"], TABLE["vocabulary"], metrics, {"noise": TABLE["noise"]}]
    words = [word for group in groups for spellings in group.values() for word in spellings]
    assert len(words) == len(set(words))
    assert all(isinstance(word, str) for word in words)


def test_rules_ask_for_signals_that_exist() -> None:
    asked = {s for rule in TABLE["rules"] for s in rule.get("when", []) + rule.get("unless", [])}
    assert asked == set(TABLE["signals"])


def test_rules_ask_for_concepts_that_exist() -> None:
    metrics = [name for kind in TABLE["metrics"].values() for name in kind]
    groups = [TABLE["splits"], TABLE["qualifiers"], TABLE["vocabulary"], metrics, TABLE["noise"], ["METRIC"]]
    known = {concept for group in groups for concept in group}
    signals = [entry for entries in TABLE["signals"].values() for entry in entries]
    for rule in TABLE["rules"] + TABLE["histogram_rules"] + signals:
        asked = {c for group in rule["has"] for c in group.split("|")} | set(rule.get("lacks", []))
        assert asked <= known, rule


def test_a_word_is_not_taken_for_the_name_of_a_concept() -> None:
    assert role_of("spread_loss", "loss") == role_of("tensor_loss", "loss") == "train_loss_part"


def test_stand_ins_are_metrics() -> None:
    assert set(TABLE["stand_ins"]) <= {name for kind in TABLE["metrics"].values() for name in kind}


# --- hostile input ------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=12))
def test_any_tags_give_known_roles(tags: list[str]) -> None:
    for tag, match in assign_roles(tags).items():
        assert tag in tags
        assert match.role in ROLES


WORDS = sorted(
    {word for group in ("splits", "vocabulary") for spellings in TABLE[group].values() for word in spellings}
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map("_".join), max_size=8))
def test_known_words_in_any_mix_give_known_roles(tags: list[str]) -> None:
    for match in assign_roles(tags).values():
        assert match.role in ROLES
        assert match.direction in ("lower", "higher", "unknown")


def test_endless_tag_is_unmapped() -> None:
    assert assign_roles(["loss_" * 100_000]) == {}


def test_empty_tags() -> None:
    assert assign_roles([]) == {}
    assert assign_roles(["", "///", "\x1b[31m"]) == {}
    assert with_roles([]) == ()
