"""The classical rivals: features and ranks by hand, nothing learned from what is to be told, scores in the evaluator's form."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from mfn_core.data.histories import ViewHistories
from mfn_core.errors import ConfigError, InsufficientDataError
from mfn_core.evaluation import evaluator
from mfn_core.evaluation.comparison import compare
from mfn_core.schema import UNKNOWN
from tasks.rivals import RIVALS, classifiers, features, recommenders
from tasks.rivals.features import category_counts, category_crosses, id_counts, recency_and_volume
from tasks.rivals.recommenders import target_ranks
from tests.factories import app_log, dataset_of, item_log, patterned_dataset
from tests.models import predictor_of

ONE, TWO, THREE = np.log1p([1.0, 2.0, 3.0])
NAMES_BY_TASK = [(name, task) for name, rival in RIVALS.items() for task in rival.tasks]


def score(name, dataset, task, *, split="test", seed=0, trials=1, **settings):
    return RIVALS[name].fit_and_score(dataset, task, split=split, seed=seed, trials=trials, **settings)


# Features. Columns begin with PAD and UNKNOWN.


@pytest.fixture
def two_users():
    apps = [("u1", "chess", "games", "2026-05-31T23:00:00"), ("u1", "bank", "money", "2026-05-20T00:00:00")]
    apps += [("u1", "chess", "games", "2026-05-30T00:00:00"), ("u1", "chess", "games", "2026-01-02T00:00:00")]
    items = [("u1", "ball", "sports", "2026-05-31T22:00:00"), ("u2", "ball", "sports", "2026-05-31T21:00:00")]
    return dataset_of(app_log(apps), item_log(items), users=["u1", "u2"])


def test_ids_are_counted_view_beside_view(two_users):
    assert id_counts(two_users).toarray() == pytest.approx(np.array([[0, 0, THREE, ONE, 0, 0, ONE], [0, 0, 0, 0, 0, 0, ONE]]))


def test_categories_are_counted_view_beside_view(two_users):
    assert category_counts(two_users).toarray() == pytest.approx(np.array([[0, 0, THREE, ONE, 0, 0, ONE], [0, 0, 0, 0, 0, 0, ONE]]))


def test_categories_are_crossed_by_the_root_of_the_product_of_their_shares(two_users):
    crosses = category_crosses(two_users).toarray().reshape(2, 4, 3)
    assert crosses[0, :, 2] == pytest.approx([0, 0, np.sqrt(3 / 4), np.sqrt(1 / 4)])
    assert crosses[0].sum() == pytest.approx(crosses[0, :, 2].sum())
    assert (crosses[1] == 0).all()  # no apps


def test_the_rarest_categories_are_crossed_as_one(two_users, monkeypatch):
    monkeypatch.setattr(features, "MAX_CROSSED_CATEGORIES", 1)
    # Rows: PAD, UNKNOWN, which money is now, games. Columns: PAD, UNKNOWN, sports.
    assert category_crosses(two_users).toarray()[0].reshape(3, 3) == pytest.approx(
        np.array([[0, 0, 0], [0, 0, np.sqrt(1 / 4)], [0, 0, np.sqrt(3 / 4)]])
    )
    assert category_counts(two_users).shape == (2, 4 + 3)  # each by itself all the same


def test_recency_is_in_hours_and_volume_in_windows_of_days(two_users):
    macro, micro = np.split(recency_and_volume(two_users).toarray()[0], 2)
    # First, latest, 2nd, 3rd, 5th latest; events and days; events of the last 1, 3, 7, 14, 28, 56, 91, 182, 365, 730 days.
    ages = np.log1p([150 * 24, 1, 48, 12 * 24, np.nan])
    four = np.log1p(4)
    assert macro == pytest.approx([*ages, four, four, ONE, TWO, TWO, THREE, THREE, THREE, THREE, four, four, four], nan_ok=True)
    assert micro == pytest.approx([TWO, TWO, np.nan, np.nan, np.nan, *[ONE] * 12], nan_ok=True)


def test_several_events_of_a_day_are_one_day():
    items = [("u1", "ball", "sports", f"2026-05-{time}") for time in ("30T01:00:00", "30T23:00:00", "31T01:00:00")]
    items.append(("u2", "ball", "sports", "2026-05-31T02:00:00"))  # the day on which u1 ends
    counted = recency_and_volume(dataset_of(app_log([]), item_log(items), users=["u1", "u2", "u3"])).toarray()
    assert counted[0, 17 + 5 :][:2] == pytest.approx([THREE, TWO])
    assert counted[1, 17 + 5 :][:2] == pytest.approx([ONE, ONE])
    assert counted[2, 17 + 5 :][:2].tolist() == [0, 0]


def test_the_times_of_an_absent_view_are_missing(two_users):
    macro = recency_and_volume(two_users).toarray()[1, :17]
    assert macro == pytest.approx([np.nan] * 5 + [0] * 12, nan_ok=True)


# Ranks, as those of the network: items 2 to 5 of a vocabulary of six.

SCORES = np.array([9, 9, 4, 3, 3, 1], np.float32)


def ranks(*ids_by_user, dropped=1, mask_seen=True):
    offsets = np.append(0, np.cumsum([len(ids) for ids in ids_by_user])).astype(np.int64)
    ids = np.concatenate(ids_by_user).astype(np.int32)
    micro = ViewHistories(offsets, ids, np.zeros_like(ids), np.arange(len(ids), dtype=np.int64))
    rows = np.arange(len(ids_by_user))
    return target_ranks(
        lambda rows, _: np.tile(SCORES, (len(rows), 1)), micro, rows, num_items=6, dropped=dropped, mask_seen=mask_seen
    ).tolist()


def test_special_items_are_no_rivals_and_ties_count_half():
    assert ranks([5, 2], [5, 3], [2, 5]) == [0, 1.5, 2]


def test_seen_items_are_no_rivals_unless_asked_for():
    assert ranks([2, 4, 5]) == [1]
    assert ranks([2, 4, 5], mask_seen=False) == [3]


def test_a_target_that_was_seen_before_still_competes():
    assert ranks([3, 3]) == [1.5]


def test_the_validation_target_is_the_last_but_one():
    assert ranks([2, 3, 4], dropped=2) == [0.5]


def test_an_unknown_target_stands_behind_every_item():
    assert ranks([2, UNKNOWN]) == [6]


def test_blocks_of_users_change_no_rank(monkeypatch):
    monkeypatch.setattr(recommenders, "_MAX_SCORES_PER_BLOCK", 6)
    assert ranks([5, 2], [2, 4, 5], [3, 3]) == [0, 1, 1.5]


# Recommenders. The last two items of a user are held out: the training histories are "a b", "a b", "a c", and "e" of t.


def shop(**items_by_user):
    items = [
        (user, item, "things", f"2026-05-{day:02d}T00:00:00") for user, ids in items_by_user.items() for day, item in enumerate(ids, 1)
    ]
    return dataset_of(app_log([]), item_log(items), users=list(items_by_user))


@pytest.fixture
def followers():
    return shop(n1="abpq", n2="abpq", n3="acpq", t="eac")


def rank_of(name, dataset, user, **settings):
    table, _ = score(name, dataset, "recommendation", **settings)
    return dict(zip(table["user_id"].to_pylist(), table["rank"].to_pylist(), strict=True))[user]


def test_popularity_ranks_by_training_events(followers):
    # c ties with b behind p and q; e and a are seen
    assert rank_of("popularity", followers, "t") == 2.5


def test_a_bigram_ranks_by_what_followed_the_validation_item(followers):
    # backoff 10: b 2 + 10 * 2/15, c 1 + 10 * 2/15, p and q 10 * 3/15
    assert rank_of("bigram", followers, "t") == 1


def test_a_bigram_of_an_item_that_nothing_followed_is_popularity(followers):
    # after the held-out p: q is the most popular that n1 has not seen
    assert rank_of("bigram", followers, "n1") == 0
    assert rank_of("bigram", followers, "n1", mask_seen=False) == 1.5  # behind a, tied with p


def test_a_skip_bigram_sees_past_what_stands_between(followers):
    between = shop(n1="axbpq", n2="aybpq", n3="azcpq", t="eac")
    assert rank_of("bigram", between, "t") > rank_of("skip_bigram", between, "t")


def test_item_knn_ranks_by_the_users_who_met_both(followers):
    # a is with b in 2 users and with c in 1: 2 / (root of 3 * 2 + 10) over 1 / (root of 3 * 1 + 10); p and q are with nobody
    assert rank_of("item_knn", followers, "t") == 1


def test_who_is_nobodys_neighbour_stands_by_popularity(followers):
    # after a, b and the held-out p: c is a neighbour of a; q and e are with nobody that n1 has seen, q is met more often
    assert rank_of("item_knn", followers, "n1") == 1


def test_shrunk_cosine_by_hand():
    met = sp.csr_array(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1]], np.float32))
    near, far = 2 / (np.sqrt(6) + 1), 1 / (np.sqrt(3) + 1)
    assert recommenders._similarities(met, 1.0, 2).toarray() == pytest.approx(np.array([[0, near, far], [near, 0, 0], [far, 0, 0]]))
    assert recommenders._similarities(met, 1.0, 1).toarray() == pytest.approx(np.array([[0, near, 0], [near, 0, 0], [far, 0, 0]]))


def test_equal_neighbours_are_kept_in_the_order_of_the_vocabulary(monkeypatch):
    met = sp.csr_array(np.ones((1, 4), np.float32))
    kept = [[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert recommenders._similarities(met, 0.0, 1).toarray().tolist() == kept
    monkeypatch.setattr(recommenders, "_MAX_SCORES_PER_BLOCK", 4)
    assert recommenders._similarities(met, 0.0, 1).toarray().tolist() == kept


def test_the_latest_items_weigh_most():
    micro = shop(u="abcd").histories.micro
    weights = recommenders._latest(micro, np.array([0]), 1, 2, 1.0, 6).toarray()
    assert weights[0, micro.ids].tolist() == [0, 0.5, 1, 0]


@pytest.mark.parametrize("name", ["bigram", "skip_bigram", "item_knn"])
def test_the_held_out_items_of_others_teach_nothing(name, followers):
    micro = followers.histories.micro
    ids = micro.ids.copy()
    for user in range(3):
        ids[micro.offsets[user + 1] - 2 : micro.offsets[user + 1]] = [ids[0], ids[-1]]  # as if a c, c of t, had followed
    taught = replace(followers, histories=replace(followers.histories, micro=replace(micro, ids=ids)))
    assert rank_of(name, taught, "t") == rank_of(name, followers, "t")


def test_the_validation_target_chooses_the_settings(followers, monkeypatch):
    is_p_N = np.array(["<pad>", "<unknown>", *followers.vocabularies.micro_id.tokens.to_pylist()]) == "p"

    def scorers(dataset):
        return lambda backoff, **_: lambda rows, dropped: np.tile(np.float32(is_p_N * (backoff - 10)), (len(rows), 1))

    monkeypatch.setattr(recommenders, "_bigram_scorers", scorers)
    _, chosen = score("bigram", followers, "recommendation", trials=2)
    facts = chosen["recommendation"]
    # backoffs of 1 and 100: the second puts p first, the validation target of three; t has seen e, and its a ties with b, c and q
    assert facts["settings"]["backoff"] == pytest.approx(100)
    assert facts["trials"] == 2
    assert facts["validation_ndcg@10"] == pytest.approx((3 + 1 / np.log2(2.5 + 2)) / 4)


# Classifiers.


def planted(num_users=120, *, attributes=None, apps=True):
    """The active open apps of money, the others games; items say nothing. A fourth has no items, every ninth user no label."""
    users = [f"u{number:03d}" for number in range(num_users)]
    opened = [
        (user, f"app{number % 2}{step}", ("games", "money")[number % 2], f"2026-05-{20 + step}T0{number % 7}:00:00")
        for number, user in enumerate(users)
        for step in range(2)
    ]
    items = [(user, f"item{number % 5}", "news", "2026-05-09T00:00:00") for number, user in enumerate(users) if number % 4]
    return dataset_of(
        app_log(opened if apps else []),
        item_log(items),
        users=users,
        split={user: ("train", "train", "train", "validation", "test")[number // 2 % 5] for number, user in enumerate(users)},
        activity={user: number % 2 for number, user in enumerate(users) if number % 9},
        attributes=attributes(users) if attributes else None,
    )


def metric_of(task, table, name):
    return evaluator.figures_of(task, table)(np.arange(table.num_rows))[name]


CLASSIFIERS = ["logistic", "lightgbm_counts", "lightgbm_crosses", "lightgbm_items"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_planted_activity_is_found(name):
    table, chosen = score(name, planted(), "activity")
    assert metric_of("activity", table, "auc") == 1
    assert chosen["activity"]["validation_auc"] == 1


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_world_without_apps_is_guessed_and_not_refused(name):
    table, _ = score(name, planted(apps=False), "activity")
    assert 0 <= metric_of("activity", table, "auc") <= 1


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_class_that_no_training_user_has_keeps_its_place(name):
    def attributes(users):
        colours = ("green", "red")
        return {
            "colour": {user: "blue" if user == "u006" else colours[number % 2] for number, user in enumerate(users)}
        }  # u006: validation

    table, _ = score(name, planted(attributes=attributes), "attribute")
    probabilities = np.stack(table["probabilities"].to_numpy())
    assert probabilities.shape[1] == 3
    assert probabilities[:, 0] == pytest.approx(np.zeros(len(probabilities)), abs=1e-3)
    assert metric_of("attribute", table, "accuracy") == 1


def test_an_attribute_that_cannot_be_learned_is_left_out_with_the_reason():
    def attributes(users):
        return {
            "colour": {user: ("green", "red")[number % 2] for number, user in enumerate(users)},
            "size": {user: "large" if user == "u008" else "small" for user in users},  # u008: test
            "team": {user: f"team{number % 11}" for number, user in enumerate(users)},
        }

    table, chosen = score("lightgbm_items", planted(attributes=attributes), "attribute")
    assert table["attribute"].unique().to_pylist() == ["colour"]
    assert chosen["size"] == {"left_out": "classes among the labelled training users: 1, at least 2 are needed"}
    assert chosen["team"] == {"left_out": "11 classes, at most 10 are fitted"}


def test_nothing_to_learn_is_an_error_with_the_reason():
    silent = planted()
    silent.activity_B[silent.rows_of("validation")] = -1
    with pytest.raises(InsufficientDataError, match="activity: 0 users of the validation split"):
        score("logistic", silent, "activity")


def test_the_best_validation_auc_chooses_the_settings_the_first_of_equals(monkeypatch):
    def fit(examples, seed, trials):
        for trial, sign in enumerate([-1, 1, 1][:trials]):
            yield (
                {"trial": trial},
                lambda features, sign=sign: features.toarray()[:, [2, 4]] * sign,
            )  # an app of the others, one of the active

    monkeypatch.setattr(classifiers, "_fit_logistic", fit)
    _, chosen = score("logistic", planted(), "activity", trials=3)
    assert chosen["activity"]["settings"] == {"trial": 1}
    assert chosen["activity"]["trials"] == 3


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_scores_are_those_of_the_chosen_trial(name):
    table, chosen = score(name, patterned_dataset(), "attribute", split="validation", trials=3)
    assert metric_of("attribute", table, "auc") == pytest.approx(chosen["colour"]["validation_auc"])


def test_a_later_trial_of_logistic_regression_does_not_sharpen_an_earlier():
    (strong, chosen), (weak, _) = (score("logistic", planted(), "activity", trials=trials) for trials in (3, 1))
    assert chosen["activity"]["settings"]["C"] == pytest.approx(10**-2.5)  # trials=1: 10**-1.5
    assert strong["score"].to_numpy().max() < weak["score"].to_numpy().max()


# Every rival.


@pytest.mark.parametrize(("name", "task"), NAMES_BY_TASK)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_scores_have_the_form_and_the_users_of_the_evaluator(name, task, split, tmp_path):
    dataset = patterned_dataset()
    ours = evaluator.score(predictor_of(dataset, tmp_path / "model"), dataset, task, split=split, mask_seen=True, batch_size=16)
    theirs, _ = score(name, dataset, task, split=split)
    assert theirs.schema.equals(ours.schema)
    told = {
        "activity": ["user_id", "label"],
        "attribute": ["user_id", "attribute", "label"],
        "recommendation": ["user_id", "baseline_rank"],
    }
    assert theirs.select(told[task]).equals(ours.select(told[task]))
    assert [line.n for line in compare(task, ours, theirs, samples=10)] == [ours.num_rows]


@pytest.mark.parametrize(("name", "task"), NAMES_BY_TASK)
def test_the_same_seed_gives_the_same_scores(name, task):
    first, second = (score(name, patterned_dataset(), task, seed=3, trials=2)[0] for _ in range(2))
    assert first.equals(second)


@pytest.mark.parametrize(("name", "task"), NAMES_BY_TASK)
def test_a_task_that_the_dataset_leaves_out_is_refused_with_the_reason(name, task):
    dataset = dataset_of(app_log([]), item_log([]), users=["u1"])
    with pytest.raises(ConfigError, match=f"{task} cannot be scored: left out by the test"):
        score(name, dataset, task)
