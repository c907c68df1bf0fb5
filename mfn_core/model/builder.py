"""From settings and vocabularies to a network: the one place that unpacks them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mfn_core.config import NetworkConfig
from mfn_core.data.vocabulary import Vocabularies, Vocabulary
from mfn_core.model.encoder import ViewEncoder
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.paper import PaperNetwork
from mfn_core.model.reader import ReaderParts
from mfn_core.schema import FIRST_KNOWN

Network = MacroMicroFusionNetwork | PaperNetwork  # told apart by ``preset``, by type checkers too


def build_network(config: NetworkConfig, vocabularies: Vocabularies, attribute_classes: Mapping[str, Sequence[str]]) -> Network:
    """A network with fresh weights, drawn from torch's global generator.

    Args:
        config: Settings.
        vocabularies: Give the sizes of the embedding tables and of the alignment matrix.
        attribute_classes: Classes of each attribute; one head per attribute, in this order.

    Raises:
        ConfigError: The heads do not divide the width into even parts, or a setting does not fit the preset.
    """
    config.check()
    macro, micro = _encoders(config, vocabularies)
    shared: dict[str, Any] = {
        "macro": macro,
        "micro": micro,
        "num_macro_rows": num_category_rows(vocabularies.macro_category, config.max_categories),
        "num_micro_rows": num_category_rows(vocabularies.micro_category, config.max_categories),
        "attribute_sizes": [len(classes) for classes in attribute_classes.values()],
    }
    if config.preset == "paper":
        return PaperNetwork(**shared, dropout=config.dropout, num_alignment_filters=config.num_alignment_filters)
    return MacroMicroFusionNetwork(
        **shared,
        num_successors=config.num_successors,
        transition_window=config.transition_window,
        views=config.views,
        reader_parts=ReaderParts(config.product, config.alignment, config.gate, config.num_alignment_filters),
    )


def _encoders(config: NetworkConfig, vocabularies: Vocabularies) -> tuple[ViewEncoder, ViewEncoder]:
    """Of the macro and of the micro view; their weights are drawn in this order, before those of the rest."""
    macro, micro = (
        ViewEncoder(
            num_ids=len(ids),
            num_categories=len(categories),
            width=config.encoder_width,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            feed_forward_factor=config.feed_forward_factor,
            dropout=config.dropout,
            max_length=max_length,
        )
        for ids, categories, max_length in (
            (vocabularies.macro_id, vocabularies.macro_category, config.max_macro_length),
            (vocabularies.micro_id, vocabularies.micro_category, config.max_micro_length),
        )
    )
    return macro, micro


def num_category_rows(categories: Vocabulary, max_categories: int) -> int:
    """PAD, UNKNOWN and the categories with a row of their own: the most frequent, which a vocabulary has first."""
    return min(len(categories), FIRST_KNOWN + max_categories)
