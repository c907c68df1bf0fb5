"""Settings of the science: dataset, network, training, simulated world.

Frozen and flat; a misspelt key is an error. The field descriptions become the form in the Airflow UI.
"""

import hashlib
from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mfn_core.errors import ConfigError
from mfn_core.schema import MaskSeen, View


class Config(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON form."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class DatasetConfig(Config):
    """How curated logs become a point-in-time dataset."""

    cut: date | None = Field(
        None,
        description="Cut T, 00:00 UTC: histories end before it, activity labels start at it. Empty: end of the item log minus the horizon.",
    )
    horizon_days: int | None = Field(
        None,
        ge=1,
        le=3650,
        description="Days after the cut in which a micro event makes a user active. Empty: the first of 7, 14, 28, 56, 91, 182, 3 and 1 "
        "days in which at least 10 % of the users, but not all, are active; or, where more than 90 % are, 3 or 1 days in which fewer are. "
        "Where the cut is empty too, the item log before it is at least as long. None qualifies: activity is left out, and an empty cut "
        "is the end of the data.",
    )
    attributes: tuple[str, ...] | None = Field(
        None,
        description="Columns of the users table to predict, one name a line. Empty: every column of 2 to 50 values that train and test "
        "users have and that does not re-code another.",
    )
    min_count: int = Field(1, ge=1, le=1_000_000, description="An app or item seen in fewer training events becomes UNKNOWN.")
    min_users: int = Field(100, ge=10, description="Fewer users than this stop the run: the 8:1:1 split would leave too few to measure on.")
    split_seed: int = Field(0, ge=0, description="Seed of the hash that puts a user into train, validation or test.")
    num_shards: int = Field(4, ge=1, le=4096, description="Files that the dataset is spread over, by user hash.")


_WIDTHS = {"default": 128, "paper": 200}
_DEFAULT_ONLY = ("views", "product", "alignment", "gate")  # parts that the paper preset does not have


class NetworkConfig(Config):
    """The network; docs/model.md lists where the default departs from the source, and what each departure gives."""

    preset: Literal["default", "paper"] = Field(
        "default",
        description="default: the network that docs/model.md measures. paper: structure and width of the source, all tasks trained "
        "together; docs/model.md names where it departs.",
    )
    width: int | None = Field(
        None, ge=8, le=2048, description="Width D of embeddings and encoders. Empty: 128; 200, the source's, in the paper preset."
    )
    num_layers: int = Field(2, ge=1, le=24, description="Transformer layers of each view.")
    num_heads: int = Field(2, ge=1, le=64, description="Attention heads; must divide the width into heads of even width.")
    feed_forward_factor: int = Field(4, ge=1, le=16, description="Width of the feed-forward layers, in widths D.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout probability.")
    max_macro_length: int = Field(200, ge=1, le=4096, description="Latest app events read per user.")
    max_micro_length: int = Field(200, ge=1, le=4096, description="Latest item events read per user.")
    max_ids: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Latest events of either view whose ids the readers know: the small models that tell the labels (activity and the "
        "attributes), one set per label. More than the encoders read.",
    )
    max_categories: int = Field(
        100,
        ge=1,
        le=300,
        description="Most frequent categories of either view that labels and alignment tell apart; the others share one row. "
        "Every category has an embedding. Memory and time of the labels grow with the square.",
    )
    num_alignment_filters: int = Field(
        16, ge=1, le=512, description="Row filters, and as many column filters, of the alignment convolution."
    )
    num_successors: int = Field(32, ge=1, le=1024, description="Most frequent successors kept per item for the next-item score.")
    transition_window: int = Field(
        8, ge=1, le=100, description="Latest items whose successors add to the next-item score, and how far ahead a successor may be."
    )
    views: tuple[View, ...] = Field(("macro", "micro"), min_length=1, description="Views the network reads; one alone for comparison.")
    product: bool = Field(True, description="Let the readers (see max_ids) multiply the views. Off: for comparison.")
    alignment: bool = Field(
        True, description="Let the readers (see max_ids) see the alignment of app categories with item categories. Off: for comparison."
    )
    gate: bool = Field(
        True,
        description="Weigh the experts of each label by gates inside the network; the task gate of mfn_train is another thing. Off: for "
        "comparison.",
    )

    @property
    def encoder_width(self) -> int:
        """The width, or what the preset says where it is empty."""
        return self.width or _WIDTHS[self.preset]

    def check(self) -> None:
        """What no single field can tell, and what ``build_network`` would fail by.

        Raises:
            ConfigError: the heads do not divide the width into even parts, or a setting does not fit the preset.
        """
        if self.encoder_width % (2 * self.num_heads):
            raise ConfigError(
                f"num_heads={self.num_heads} does not divide width={self.encoder_width} into heads of an even width; change either."
            )
        changed = [name for name in _DEFAULT_ONLY if getattr(self, name) != type(self).model_fields[name].default]
        if self.preset == "paper" and changed:
            raise ConfigError(f"{', '.join(changed)} cannot be changed with preset=paper; leave the default, or set preset=default.")


_MOST_USERS = 65_535  # of a batch: attention in bfloat16 puts them on an axis of a CUDA grid that ends there


class TrainingConfig(Config):
    """Optimization and stopping."""

    seed: int = Field(0, ge=0, description="Fixes initial weights, batch order and dropout.")
    batch_size: int | None = Field(
        None,
        ge=2,
        le=_MOST_USERS,
        description="Users per training step. Empty: a 48th of the users as a power of two, from 32 to the source's 256; always 256 in the "
        "paper preset.",
    )
    evaluation_batch_size: int = Field(128, ge=1, le=_MOST_USERS, description="Users per evaluation step.")
    num_negatives: int | None = Field(
        None,
        ge=2,
        le=65_536,
        description="Items, and apps, that a training step scores beside the targets. Empty: all of them, and 1,024 of a catalogue of "
        "more than 262,144. A catalogue that is no larger than the number is scored as a whole.",
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam's learning rate.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Decoupled weight decay.")
    max_epochs: int = Field(30, ge=1, le=10_000, description="Upper limit of epochs.")
    patience: int = Field(8, ge=1, le=1000, description="Epochs without a better validation score before training stops.")
    max_minutes: float = Field(
        600,
        gt=0,
        description="Once this many minutes have passed, the epoch ends within 100 steps and is the last. Its validation and, in the "
        "default preset, the labels come after that. The task ends after 12 hours: more than 660 needs a longer execution_timeout in the "
        "file of the DAG.",
    )
    gradient_clip: float = Field(5.0, gt=0, description="Upper limit of the gradient norm.")
    activity_weight: float = Field(
        0.5, ge=0, le=100, description="Weight of the activity loss (paper preset); the next-item loss has weight 1."
    )
    attribute_weight: float = Field(0.5, ge=0, le=100, description="Weight of the mean attribute loss (paper preset).")
    next_app_weight: float = Field(0.5, ge=0, le=100, description="Weight of the next-app loss (default preset).")
    mutual_information_weight: float = Field(
        0.1,
        ge=0,
        le=100,
        description="Weight of the mutual-information (InfoNCE) loss in the paper preset. In the default preset 0 switches that loss off, "
        "and any other value is the same.",
    )
    temperature: float = Field(0.2, gt=0, le=10, description="Temperature of InfoNCE (paper preset).")
    averaging: float = Field(0.99, ge=0, lt=1, description="Decay of the moving average of weights that is kept (default preset).")
    head_epochs: int = Field(60, ge=1, le=10_000, description="Upper limit of passes that a label's reader learns from (default preset).")
    head_patience: int = Field(10, ge=1, le=1000, description="Passes without a better validation loss before a reader stops.")
    mask_seen: MaskSeen = Field(
        "auto",
        description="Whether rankings and recommendations leave out items the user has already met. auto: they do, but where users return "
        "to items, as to songs or groceries: where more than a fifth of the validation targets had been met before.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train. auto: cuda where there is one.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast where the GPU or CPU computes it in hardware, else float32."
    )


class SimulationConfig(Config):
    """A simulated world: raw logs of both views and a users table."""

    num_users: int = Field(2000, ge=20, le=10_000_000, description="Users of the world.")
    num_days: int = Field(56, ge=7, le=3650, description="Days of logs.")
    last_day: date = Field(date(2026, 6, 28), description="Last day of the logs (UTC).")
    num_apps: int = Field(120, ge=10, description="Apps.")
    num_app_categories: int = Field(10, ge=2, description="App categories.")
    num_items: int = Field(600, ge=20, description="Items.")
    num_item_categories: int = Field(12, ge=2, description="Item categories.")
    events_per_user: float = Field(60.0, gt=0, description="Mean events per user and view.")
    world: Literal["mixed", "agreement", "product", "foretelling", "additive", "one_view", "correspondence"] = Field(
        "mixed",
        description="What is planted. agreement: activity from agreement of the views; product: attributes from products of the views; "
        "foretelling: apps that foretell items; mixed: all three; one_view: mixed, but a third of the users have one view only; "
        "additive: nothing that takes both views at once; correspondence: app categories lead to item categories by degrees.",
    )
    seed: int = Field(0, ge=0, description="The same seed writes the same rows.")
