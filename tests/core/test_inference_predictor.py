"""The predictor: the same answers in any order and batch, nothing from after the query time, nothing already seen."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
import torch

from mfn_core.data.batch import Batch
from mfn_core.data.sequences import build_histories
from mfn_core.errors import ConfigError
from mfn_core.inference import predictor as predicting
from mfn_core.inference.predictor import Predictor
from tests.factories import app_log, dataset_of, item_log
from tests.models import predictor_of

APPS = [
    ("ann", "bank", "finance", "2026-05-01T08:00:00"),
    ("ann", "chat", "social", "2026-05-03T08:00:00"),
    ("bob", "chat", "social", "2026-05-02T08:00:00"),
]
ITEMS = [
    ("ann", "i1", "sports", "2026-05-01T09:00:00"),
    ("ann", "i2", "sports", "2026-05-02T09:00:00"),
    ("ann", "i3", "news", "2026-05-04T09:00:00"),
    ("bob", "i4", "news", "2026-05-01T09:00:00"),
    ("bob", "i5", "news", "2026-05-02T09:00:00"),
    ("bob", "i6", "news", "2026-05-03T09:00:00"),
    ("bob", "i7", "news", "2026-05-04T09:00:00"),
    ("bob", "i8", "news", "2026-05-05T09:00:00"),
    ("bob", "i9", "news", "2026-05-06T09:00:00"),
]
USERS = ["ann", "bob", "cat"]  # nothing is known of cat
JUNE = 1780272000


def seconds(time):
    return int(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp())


@pytest.fixture(scope="module")
def dataset():
    return dataset_of(
        app_log(APPS),
        item_log(ITEMS),
        users=USERS,
        activity={"ann": 1, "bob": 0, "cat": 0},
        attributes={"colour": {"ann": "red", "bob": "blue", "cat": "green"}},
    )


@pytest.fixture(scope="module")
def predictor(dataset, tmp_path_factory):
    return predictor_of(dataset, tmp_path_factory.mktemp("bundle"))


def test_answers_in_the_order_of_the_question(predictor, dataset):
    said = predictor.predict(dataset.histories, query_time=JUNE, rows=np.array([2, 0]))
    assert said.user_ids.tolist() == ["cat", "ann"]


def test_a_user_gets_the_same_answer_in_any_batch(predictor, dataset):
    together = predictor.predict(dataset.histories, query_time=JUNE)
    alone = predictor.predict(dataset.histories, query_time=JUNE, batch_size=1)
    np.testing.assert_allclose(together.embedding_BD, alone.embedding_BD, atol=1e-5)
    np.testing.assert_allclose(together.activity_B, alone.activity_B, atol=1e-5)


def test_events_at_or_after_the_query_time_are_not_read(predictor, dataset):
    then = "2026-05-03T08:00:00"
    past = build_histories(
        app_log([row for row in APPS if row[3] < then]), item_log([row for row in ITEMS if row[3] < then]), USERS, dataset.vocabularies
    )
    full, cut = (predictor.predict(histories, query_time=seconds(then)) for histories in (dataset.histories, past))
    np.testing.assert_array_equal(full.embedding_BD, cut.embedding_BD)
    assert [items.tolist() for items in full.top_items] == [items.tolist() for items in cut.top_items]


def test_labels_know_the_ids_of_before_the_window(dataset, tmp_path):
    predictor = predictor_of(dataset, tmp_path)
    (i4,) = dataset.vocabularies.micro_id.encode(pa.array(["i4"]))  # the first of bob's six items, of which the encoder reads four
    for reader in predictor.bundle.network.label_readers[0].readers:
        if reader.ids is not None:
            reader.ids.micro.weight.data[i4] = torch.tensor([-5.0, 5.0])
    told = Predictor(predictor.bundle, "cpu")
    before, after = (each.predict(dataset.histories, query_time=JUNE).activity_B for each in (predictor, told))
    assert after[1] > before[1] + 0.1
    assert after[[0, 2]].tolist() == before[[0, 2]].tolist()


def test_a_user_without_any_event_is_answered(predictor, dataset):
    said = predictor.predict(dataset.histories, query_time=JUNE, rows=np.array([2]), top_k=4)
    assert np.isfinite(said.embedding_BD).all()
    assert 0 < said.activity_B[0] < 1
    assert said.attributes["colour"][0].sum() == pytest.approx(1)
    assert len(said.top_items[0]) == 4


def test_a_seen_item_is_not_recommended_though_it_lies_outside_the_networks_window(predictor, dataset):
    said = predictor.predict(dataset.histories, query_time=JUNE, rows=np.array([1]), top_k=9)
    assert predictor.bundle.config.max_micro_length == 4
    assert set(said.top_items[0]) == {"i1", "i2", "i3"}


def test_seen_items_may_be_recommended_on_demand(predictor, dataset):
    said = predictor.predict(dataset.histories, query_time=JUNE, rows=np.array([1]), top_k=9, mask_seen=False)
    assert len(said.top_items[0]) == 9


def test_the_models_own_setting_decides_whether_seen_items_are_recommended(predictor, dataset):
    repeating = Predictor(replace(predictor.bundle, facts={**predictor.bundle.facts, "mask_seen": False}), "cpu")
    assert len(repeating.predict(dataset.histories, query_time=JUNE, rows=np.array([1]), top_k=9).top_items[0]) == 9


def test_top_scores_fall(predictor, dataset):
    said = predictor.predict(dataset.histories, query_time=JUNE, top_k=5)
    assert all((np.diff(scores) <= 0).all() for scores in said.top_scores)


def test_what_the_model_did_not_learn_is_absent(dataset, tmp_path):
    silent = predictor_of(dataset, tmp_path, tasks=()).predict(dataset.histories, query_time=JUNE)
    assert silent.activity_B is None
    assert silent.attributes == {}
    assert [items.tolist() for items in silent.top_items] == [[], [], []]


def test_the_rank_of_the_test_item_is_its_place_among_the_recommendations_just_before_it(predictor, dataset):
    rows = np.array([0, 1])
    ranks = predictor.rank_targets(dataset.histories, rows, dataset.held_out_B, prefix="test")
    for row, rank, target, time in zip(rows, ranks, ("i3", "i9"), ("2026-05-04T09:00:00", "2026-05-06T09:00:00"), strict=True):
        just_before = predictor.predict(dataset.histories, query_time=seconds(time), rows=np.array([row]), top_k=9)
        assert just_before.top_items[0].tolist().index(target) == rank


def test_a_test_item_that_the_vocabulary_lacks_stands_behind_every_item(predictor, dataset):
    strange = [*ITEMS[:-1], ("bob", "never-seen", "news", "2026-05-06T09:00:00")]
    histories = build_histories(app_log(APPS), item_log(strange), USERS, dataset.vocabularies)
    (rank,) = predictor.rank_targets(histories, np.array([1]), dataset.held_out_B, prefix="test")
    assert rank >= 9


def test_the_mean_alignment_is_over_users_with_both_views(predictor, dataset):
    everybody = predictor.mean_alignment_GK(dataset.histories, query_time=JUNE, rows=np.arange(3))
    both = predictor.mean_alignment_GK(dataset.histories, query_time=JUNE, rows=np.array([0, 1]))
    np.testing.assert_allclose(everybody, both)
    assert everybody.shape == (2 + 2, 2 + 2)


def test_without_a_user_of_both_views_there_is_no_mean_alignment(predictor, dataset):
    assert predictor.mean_alignment_GK(dataset.histories, query_time=JUNE, rows=np.array([2])) is None


def test_cuda_is_refused_where_there_is_none(predictor, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="device=cuda"):
        Predictor(predictor.bundle, "cuda")


NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
NO_CONTEXT = RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")
NO_HANDLE = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def full_gpu(monkeypatch, error, networks=0, batches=0):
    """A GPU with room for so many networks and batches."""
    monkeypatch.setattr(predicting, "pick_device", lambda name: torch.device("cpu" if name == "cpu" else "cuda"))
    room = {torch.nn.Module: networks, Batch: batches}
    for kind in room:

        def to(self, device, kind=kind, on_cpu=kind.to):
            if device.type == "cpu":
                return on_cpu(self, device)
            room[kind] -= 1
            if room[kind] < 0:
                raise error
            return self

        monkeypatch.setattr(kind, "to", to)


ASKED = {
    "predict": lambda predictor, dataset: predictor.predict(dataset.histories, query_time=JUNE, batch_size=1).embedding_BD,
    "rank_targets": lambda predictor, dataset: predictor.rank_targets(
        dataset.histories, np.array([0, 1]), np.full(3, 2, np.int8), prefix="test", batch_size=1
    ),
    "mean_alignment": lambda predictor, dataset: predictor.mean_alignment_GK(
        dataset.histories, query_time=JUNE, rows=np.array([0, 1]), batch_size=1
    ),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize(("networks", "batches"), [(0, 0), (1, 0)], ids=["none for the network", "none for a batch"])
@pytest.mark.parametrize("error", [NO_MEMORY, NO_CONTEXT, NO_HANDLE], ids=["memory", "context", "handle"])
def test_where_the_gpu_is_full_the_cpu_answers(predictor, dataset, monkeypatch, caplog, asked, networks, batches, error):
    expected = asked(predictor, dataset)
    full_gpu(monkeypatch, error, networks, batches)
    with caplog.at_level(logging.WARNING):
        rescued = Predictor(predictor.bundle)
        np.testing.assert_array_equal(asked(rescued, dataset), expected)
    assert rescued.device == torch.device("cpu")
    (message,) = [record.getMessage() for record in caplog.records]
    assert "the GPU is full" in message
    assert str(error).splitlines()[0] in message


def test_an_answer_from_under_which_another_thread_left_the_gpu_is_given_again(predictor, dataset, monkeypatch):
    expected = ASKED["predict"](predictor, dataset)
    full_gpu(monkeypatch, NO_MEMORY, networks=1, batches=9)
    shared, collated = Predictor(predictor.bundle), predicting.collate

    def left(*given, **options):
        if shared.device.type == "cuda":
            shared.leave_gpu("full")
            raise RuntimeError("Expected all tensors to be on the same device")
        return collated(*given, **options)

    monkeypatch.setattr(predicting, "collate", left)
    np.testing.assert_array_equal(ASKED["predict"](shared, dataset), expected)


def test_a_question_that_comes_while_another_thread_leaves_the_gpu_waits_until_it_has_left(predictor, dataset, monkeypatch):
    expected = ASKED["predict"](predictor, dataset)
    full_gpu(monkeypatch, NO_MEMORY, networks=1, batches=9)
    shared, settle = Predictor(predictor.bundle), Predictor._settled
    is_leaving, may_go_on = threading.Event(), threading.Event()

    def settle_when_told(self):
        is_leaving.set()
        assert may_go_on.wait(60)
        return settle(self)

    monkeypatch.setattr(Predictor, "_settled", settle_when_told)
    with ThreadPoolExecutor() as pool:
        leaving = pool.submit(shared.leave_gpu, "full")
        assert is_leaving.wait(60)
        answer = pool.submit(ASKED["predict"], shared, dataset)
        assert wait([answer], timeout=1).not_done
        may_go_on.set()
        leaving.result()
        np.testing.assert_array_equal(answer.result(), expected)


def test_a_gpu_that_is_asked_for_by_name_is_an_error_where_it_is_full(predictor, monkeypatch):
    full_gpu(monkeypatch, NO_MEMORY)
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 20\.00 MiB"):
        Predictor(predictor.bundle, "cuda")


def test_another_error_of_a_gpu_is_that_error(predictor, monkeypatch):
    full_gpu(monkeypatch, RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        Predictor(predictor.bundle)
