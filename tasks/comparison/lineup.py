"""Who is compared: the network, what is left of it without one of its parts, the classical rivals, and RecBole's.

Networks are written as what they change in the network of the form. A model that a dataset has no use for is left out with a reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mfn_core.config import NetworkConfig
from mfn_core.errors import ConfigError
from mfn_core.schema import DownstreamTask, View
from tasks import storage
from tasks.config_errors import unknown
from tasks.dag_configs import CompareConfig, TrainConfig
from tasks.rivals import RIVALS

REFERENCE = "mfn"
SHUFFLED = "shuffled_macro"

NETWORKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        REFERENCE: {},
        "paper": {"preset": "paper", "width": None},  # the width of the source, whatever the form says
        "macro_only": {"views": ("macro",)},
        "micro_only": {"views": ("micro",)},
        "concatenation": {"product": False, "alignment": False, "gate": False},
        "no_alignment": {"alignment": False},
        "no_mutual_information": {"mutual_information_weight": 0},
        "no_gate": {"gate": False},
        SHUFFLED: {},  # the same network, on app histories that belong to others
    }
)
RECBOLE: Mapping[str, str] = MappingProxyType({"sasrec": "SASRec", "gru4rec": "GRU4Rec", "bert4rec": "BERT4Rec"})
MODELS = (*NETWORKS, *RIVALS, *RECBOLE)

# What tells the networks from one another is not for the form to change.
_VARIED = sorted({name for changes in NETWORKS.values() for name in changes} & NetworkConfig.model_fields.keys() - {"width"})
_NEED_BOTH_VIEWS = {
    "concatenation": "there is nothing to concatenate",
    "no_alignment": "there is nothing to align",
    "no_mutual_information": "the views cannot inform of one another",
    SHUFFLED: "there is no other view that could gain from it",
}
_SHARED = TrainConfig.model_fields.keys() & CompareConfig.model_fields.keys()


@dataclass(frozen=True)
class Lineup:
    """What is measured, as one ``{"model", "seed"}`` each, all models of a seed together, and why the others are not."""

    items: tuple[dict[str, Any], ...]
    left_out: dict[str, str]


def check(config: CompareConfig) -> None:
    """Refuse a form that cannot be run, before any work is done.

    Raises:
        ConfigError: a model is unknown, a setting is changed that tells the networks from one another, or a network cannot be built.
    """
    if strange := [name for name in config.models or () if name not in MODELS]:
        raise ConfigError(unknown("model", strange, MODELS))
    default = NetworkConfig()
    if changed := [name for name in _VARIED if getattr(config, name) != getattr(default, name)]:
        said = ", ".join(f"{name}={getattr(config, name)!r}" for name in changed)
        raise ConfigError(f"{said}: the compared networks differ in {', '.join(changed)}; leave the default, and choose among models")
    for name in _chosen(config):
        if name in NETWORKS:
            _check_network(config, name)


def line_up(config: CompareConfig, views: Sequence[View], tasks: Sequence[DownstreamTask], skipped: Mapping[DownstreamTask, str]) -> Lineup:
    """The models and seeds that are measured on a dataset.

    Args:
        config: of the comparison.
        views: of the deployment, all of which have rows.
        tasks: the downstream tasks that the dataset can run.
        skipped: why it cannot run the others.
    """
    chosen = _chosen(config)
    seeds_of = {name: _seeds(config, name) for name in chosen}
    left_out = {name: reason for name in chosen if (reason := _why_left_out(config, name, seeds_of[name], views, tasks, skipped))}
    items = [
        {"model": name, "seed": seed} for seed in _all_seeds(config) for name in chosen if name not in left_out and seed in seeds_of[name]
    ]
    return Lineup(tuple(items), left_out)


def train_config(config: CompareConfig, model: str, seed: int) -> TrainConfig:
    """What a network of the comparison is trained with."""
    shared = config.model_dump(include=set(_SHARED))
    return TrainConfig.model_validate(shared | dict(NETWORKS[model]) | {"seed": seed})


def recbole_file(config: CompareConfig, model: str, seed: int, suffix: str) -> str:
    """Where RecBole's run of a model and a seed leaves a file."""
    return storage.join(config.recbole_scores, f"{RECBOLE[model]}-{seed}.{suffix}")


def _chosen(config: CompareConfig) -> list[str]:
    return [name for name in MODELS if config.models is None or name in config.models]


def _check_network(config: CompareConfig, name: str) -> None:
    try:
        train_config(config, name, config.seed).check()
    except ConfigError as error:
        own = f" The width of {name} is the source's, whatever the form says: change num_heads, or leave {name} out of models"
        raise ConfigError(f"{name}: {error}{own if 'width' in NETWORKS[name] else ''}") from error


def _all_seeds(config: CompareConfig) -> range:
    return range(config.seed, config.seed + config.seeds)


def _seeds(config: CompareConfig, model: str) -> list[int]:
    """Every seed of the form; of RecBole's, those that are finished."""
    if model not in RECBOLE:
        return list(_all_seeds(config))
    if not config.recbole_scores:
        return []
    there = storage.list_names(config.recbole_scores)
    return [seed for seed in _all_seeds(config) if {f"{RECBOLE[model]}-{seed}.{suffix}" for suffix in ("parquet", "json")} <= set(there)]


def _why_left_out(
    config: CompareConfig,
    model: str,
    seeds: Sequence[int],
    views: Sequence[View],
    tasks: Sequence[DownstreamTask],
    skipped: Mapping[DownstreamTask, str],
) -> str | None:
    if model in NETWORKS:
        return _why_network_is_left_out(config, model, views)
    if model in RIVALS:
        able = RIVALS[model].tasks
        return None if set(able) & set(tasks) else "; ".join(f"{task}: {skipped[task]}" for task in able)
    if "recommendation" not in tasks:
        return f"recommendation: {skipped['recommendation']}"
    if seeds:
        return None
    where = f"{config.recbole_scores} holds no {RECBOLE[model]}-<seed>.parquet and .json of its seeds"
    return f"{where if config.recbole_scores else 'recbole_scores names no folder'}; run RecBole on the dataset first"


def _why_network_is_left_out(config: CompareConfig, model: str, views: Sequence[View]) -> str | None:
    if model not in (REFERENCE, SHUFFLED) and train_config(config, model, 0) == train_config(config, REFERENCE, 0):
        return f"the same network as {REFERENCE}: the form sets what it changes"
    if len(views) > 1:
        return None
    (view,) = views
    (only,) = NETWORKS[model].get("views", (None,))
    if only == view:
        return f"the same network as {REFERENCE}: {view} is the only view"
    if only is not None:
        return f"there is no {only} view"
    return f"{view} is the only view: {_NEED_BOTH_VIEWS[model]}" if model in _NEED_BOTH_VIEWS else None
