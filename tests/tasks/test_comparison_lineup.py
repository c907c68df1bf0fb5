"""Who is in a comparison of models, and with which settings."""

import re

import pytest

from mfn_core.errors import ConfigError
from tasks.comparison import lineup
from tasks.comparison.lineup import NETWORKS, RECBOLE, train_config
from tasks.dag_configs import CompareConfig
from tasks.rivals import RIVALS
from tests.tasks.comparisons import SMALL

ALL_TASKS = ("activity", "attribute", "recommendation")
BOTH, ONE = ("macro", "micro"), ("micro",)


def names(config, views=BOTH, tasks=ALL_TASKS, skipped=None):
    found = lineup.line_up(config, views, tasks, skipped or {})
    return list(dict.fromkeys(item["model"] for item in found.items)), found.left_out


def test_everybody_is_compared_on_both_views_and_all_tasks_but_recbole_that_did_not_run():
    there, left_out = names(CompareConfig())
    assert there == [*NETWORKS, *RIVALS]
    assert left_out == dict.fromkeys(RECBOLE, "recbole_scores names no folder; run RecBole on the dataset first")


def test_all_models_of_a_seed_come_before_the_next_seed():
    found = lineup.line_up(CompareConfig(models=("bigram", "mfn"), seeds=2, seed=7), BOTH, ALL_TASKS, {})
    assert [(item["model"], item["seed"]) for item in found.items] == [("mfn", 7), ("bigram", 7), ("mfn", 8), ("bigram", 8)]


def test_on_one_view_a_network_that_would_equal_another_is_left_out_with_the_reason():
    there, left_out = names(CompareConfig(models=tuple(NETWORKS)), views=ONE)
    assert there == ["mfn", "paper", "no_gate"]
    assert left_out == {
        "macro_only": "there is no macro view",
        "micro_only": "the same network as mfn: micro is the only view",
        "concatenation": "micro is the only view: there is nothing to concatenate",
        "no_alignment": "micro is the only view: there is nothing to align",
        "no_mutual_information": "micro is the only view: the views cannot inform of one another",
        "shuffled_macro": "micro is the only view: there is no other view that could gain from it",
    }


def test_a_part_that_the_form_takes_away_is_not_taken_away_twice():
    _, left_out = names(CompareConfig(models=("mfn", "no_mutual_information"), mutual_information_weight=0))
    assert left_out == {"no_mutual_information": "the same network as mfn: the form sets what it changes"}


def test_a_rival_of_tasks_that_the_dataset_leaves_out_is_left_out_with_their_reasons():
    skipped = {"activity": "too short", "attribute": "no users table"}
    there, left_out = names(CompareConfig(models=("bigram", "logistic")), tasks=("recommendation",), skipped=skipped)
    assert (there, left_out) == (["bigram"], {"logistic": "activity: too short; attribute: no users table"})


def test_the_form_names_every_model():
    described = str(CompareConfig.model_fields["models"].description)
    assert set(lineup.MODELS) <= set(re.findall(r"\w+", described))


def test_a_misspelt_model_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ConfigError, match="unknown model 'bigrams', did you mean 'bigram'"):
        lineup.check(CompareConfig(models=("bigrams",)))
    with pytest.raises(ConfigError, match=r"unknown model 'x'\. Known are mfn, paper"):
        lineup.check(CompareConfig(models=("x",)))


def test_the_form_may_not_set_what_the_networks_differ_in():
    with pytest.raises(ConfigError, match="gate=False: the compared networks differ in gate"):
        lineup.check(CompareConfig(gate=False))


def test_a_form_of_which_a_chosen_network_cannot_be_built_is_refused_before_any_work():
    with pytest.raises(
        ConfigError,
        match=r"paper: num_heads=8 does not divide width=200 .* The width of paper is the source's, whatever the form says: change "
        "num_heads, or leave paper out of models",
    ):
        lineup.check(CompareConfig(num_heads=8))
    with pytest.raises(ConfigError, match=r"mfn: num_heads=3 does not divide width=128 into heads of an even width; change either\.$"):
        lineup.check(CompareConfig(num_heads=3, models=("mfn",)))


def test_a_network_that_is_not_chosen_may_be_one_that_cannot_be_built():
    lineup.check(CompareConfig(num_heads=8, models=("mfn", "bigram")))


def test_a_network_is_that_of_the_form_with_its_own_change_and_seed():
    plain, without = (train_config(SMALL, name, 3) for name in ("mfn", "no_alignment"))
    assert (plain.width, plain.seed, plain.max_epochs, plain.alignment) == (8, 3, 1, True)
    assert without == plain.model_copy(update={"alignment": False})


def test_the_paper_network_has_the_width_of_the_source_whatever_the_form_says():
    assert (train_config(SMALL, "paper", 0).preset, train_config(SMALL, "paper", 0).encoder_width) == ("paper", 200)
