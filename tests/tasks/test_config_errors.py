"""What was refused is told by the name that its giver knows, with the reason and what was meant."""

import pytest
from pydantic import ValidationError

from mfn_core.errors import ConfigError
from tasks import config_errors
from tasks.dag_configs import TrainConfig

MODELS = ("mfn", "paper")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["papre"], "unknown model 'papre', did you mean 'paper'? Known are mfn, paper"),
        (["x"], "unknown model 'x'. Known are mfn, paper"),
        (["papre", "x"], "unknown model 'papre', did you mean 'paper'?; unknown model 'x'. Known are mfn, paper"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_and_with_all(names: list[str], said: str) -> None:
    assert config_errors.unknown("model", names, MODELS) == said


def test_values_are_told_in_the_spelling_of_their_giver_without_what_pydantic_adds() -> None:
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate({"width": 4, "views": ["nano", "micro"]})
    assert config_errors.invalid(caught.value, str.upper) == (
        "WIDTH=4: Input should be greater than or equal to 8; VIEWS[0]='nano': Input should be 'macro' or 'micro'"
    )


def test_what_was_given_becomes_a_config_or_an_error_with_its_remedy() -> None:
    assert config_errors.config_of(TrainConfig, {"width": "16"}, "Say another").width == 16
    with pytest.raises(ConfigError, match=r"^width=4: Input should be greater than or equal to 8\. Say another$"):
        config_errors.config_of(TrainConfig, {"width": 4}, "Say another")
    with pytest.raises(ConfigError, match=r"^unknown setting 'widht', did you mean 'width'\? Known are .*, width, "):
        config_errors.config_of(TrainConfig, {"widht": 4}, "Say another")
