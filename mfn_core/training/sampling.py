"""Which catalogues of a run are sampled, and which tables are updated by the row."""

import numpy as np
import torch
from torch import Tensor

from mfn_core.config import TrainingConfig
from mfn_core.data.dataset import Dataset
from mfn_core.data.histories import ViewHistories
from mfn_core.model.builder import Network
from mfn_core.model.encoder import ViewEncoder
from mfn_core.model.sampled import NegativeSampler, Sampling, num_sampled
from mfn_core.model.transitions import item_counts
from mfn_core.training.ranks import ALONE, Ranks


def sampling_of(
    network: Network, dataset: Dataset, config: TrainingConfig, device: torch.device, ranks: Ranks = ALONE
) -> tuple[Sampling, list[Tensor]]:
    """The samplers of a run, by the popularity in the events that are not held out, and the tables whose gradients are sparse.

    Sparse on a CPU without weight decay: passing over whole tables would take most of its time. A GPU passes over a million rows in a
    millisecond or two, and does so without waiting to hear how many rows there are. Several processes sum their gradients densely.
    """
    is_sparse = device.type == "cpu" and config.weight_decay == 0 and ranks.is_alone

    def sampler(view: ViewHistories, held_out_B: np.ndarray, encoder: ViewEncoder) -> NegativeSampler | None:
        num_entries = encoder.embedding.ids.num_embeddings
        number = num_sampled(config.num_negatives, num_entries)
        counts_N = item_counts(view, held_out_B, num_entries)
        if number is None or not counts_N.any():
            return None
        encoder.embedding.ids.sparse = is_sparse
        return NegativeSampler(counts_N, number, device, is_sparse=is_sparse)

    items = sampler(dataset.histories.micro, dataset.held_out_B, network.micro)
    # The source's network does not learn what app comes next.
    apps = None if network.preset == "paper" else sampler(dataset.histories.macro, np.zeros_like(dataset.held_out_B), network.macro)
    drawn = ((network.micro, items), (network.macro, apps))
    return Sampling(items, apps), [view.embedding.ids.weight for view, negatives in drawn if negatives and negatives.is_sparse]
