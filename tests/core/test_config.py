"""Settings: what an empty field means."""

import json

import pytest
from pydantic import ValidationError

from mfn_core.config import NetworkConfig, TrainingConfig


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({}, 128),
        ({"preset": "paper"}, 200),
        ({"width": None, "preset": "paper"}, 200),
        ({"width": 64}, 64),
        ({"width": 64, "preset": "paper"}, 64),
    ],
)
def test_an_empty_width_is_that_of_the_preset(settings, width):
    assert NetworkConfig(**settings).encoder_width == width
    assert NetworkConfig.model_validate_json(json.dumps(settings)).encoder_width == width


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(ValidationError, match="'default' or 'paper'"):
        NetworkConfig(preset="papr")


def test_a_network_reads_a_view_at_least():
    with pytest.raises(ValidationError, match="views"):
        NetworkConfig(views=())


@pytest.mark.parametrize("field", ["batch_size", "evaluation_batch_size"])
def test_a_batch_is_no_larger_than_attention_on_a_gpu_can_be_asked_for(field):
    assert getattr(TrainingConfig(**{field: 65_535}), field) == 65_535
    with pytest.raises(ValidationError, match="less than or equal to 65535"):
        TrainingConfig(**{field: 65_536})
