"""From settings and vocabularies to a network: the one place that unpacks them."""

from collections.abc import Mapping, Sequence

from mfn_core.config import NetworkConfig
from mfn_core.data.vocabulary import Vocabularies
from mfn_core.errors import ConfigError
from mfn_core.model.network import MacroMicroFusionNetwork


def build_network(
    config: NetworkConfig, vocabularies: Vocabularies, attribute_classes: Mapping[str, Sequence[str]]
) -> MacroMicroFusionNetwork:
    """A network with fresh weights, drawn from torch's global generator.

    Args:
        config: Settings.
        vocabularies: Give the sizes of the embedding tables and of the alignment matrix.
        attribute_classes: Classes of each attribute; one head per attribute, in this order.

    Raises:
        ConfigError: The heads do not divide the width into even parts.
    """
    if config.width % (2 * config.num_heads):
        raise ConfigError(f"num_heads={config.num_heads} does not divide width={config.width} into heads of an even width; change either.")
    return MacroMicroFusionNetwork(
        num_macro_ids=len(vocabularies.macro_id),
        num_macro_categories=len(vocabularies.macro_category),
        num_micro_ids=len(vocabularies.micro_id),
        num_micro_categories=len(vocabularies.micro_category),
        attribute_sizes=[len(classes) for classes in attribute_classes.values()],
        width=config.width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        dropout=config.dropout,
        max_macro_length=config.max_macro_length,
        max_micro_length=config.max_micro_length,
        num_alignment_filters=config.num_alignment_filters,
    )
