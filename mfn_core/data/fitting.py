"""Vocabularies from training events: events are counted in a draft coding of every token, then coded again.

The draft knows held-out tokens too, the final vocabularies do not: a token without a training event is UNKNOWN.
"""

from collections.abc import Iterable
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from mfn_core.data.held_out import held_out_events
from mfn_core.data.histories import Histories, ViewHistories
from mfn_core.data.vocabulary import Vocabularies, Vocabulary
from mfn_core.schema import FIRST_KNOWN, PAD, UNKNOWN

Counts = dict[str, NDArray[np.int64]]  # by field of Vocabularies, per internal id


def training_events(histories: Histories) -> NDArray[np.bool_]:
    """Per micro event: whether it is no held-out event."""
    return histories.micro.is_training(held_out_events(histories.micro.lengths))


def count_training_events(shards: Iterable[Histories], vocabularies: Vocabularies) -> Counts:
    """Training events of every internal id, over whole shards of users."""
    totals = {field.name: np.zeros(len(getattr(vocabularies, field.name)), np.int64) for field in fields(vocabularies)}
    for histories in shards:
        is_training = training_events(histories)
        coded = {
            "macro_id": histories.macro.ids,
            "macro_category": histories.macro.categories,
            "micro_id": histories.micro.ids[is_training],
            "micro_category": histories.micro.categories[is_training],
        }
        for name, ids in coded.items():
            totals[name] += np.bincount(ids, minlength=len(totals[name]))
    return totals


def fit_vocabularies(draft: Vocabularies, counts: Counts, min_count: int) -> Vocabularies:
    """Vocabularies of the draft's tokens by their training counts."""
    return Vocabularies(
        **{
            field.name: Vocabulary.fit(getattr(draft, field.name).tokens, counts[field.name][FIRST_KNOWN:], min_count)
            for field in fields(draft)
        }
    )


def encode_again(histories: Histories, draft: Vocabularies, final: Vocabularies) -> Histories:
    """The histories in the ids of ``final``."""
    return Histories(
        user_ids=histories.user_ids,
        macro=_encode_view(
            histories.macro, _translation(draft.macro_id, final.macro_id), _translation(draft.macro_category, final.macro_category)
        ),
        micro=_encode_view(
            histories.micro, _translation(draft.micro_id, final.micro_id), _translation(draft.micro_category, final.micro_category)
        ),
        macro_before=histories.macro_before,
    )


def _encode_view(view: ViewHistories, ids: NDArray[np.int32], categories: NDArray[np.int32]) -> ViewHistories:
    return ViewHistories(view.offsets, ids[view.ids], categories[view.categories], view.times)


def _translation(draft: Vocabulary, final: Vocabulary) -> NDArray[np.int32]:
    return np.concatenate([np.array([PAD, UNKNOWN], np.int32), final.encode(draft.tokens)])
