"""What the tests of the comparison measure with."""

from tasks.dag_configs import CompareConfig
from tests.models import TINY

SMALL = CompareConfig(
    **TINY.model_dump(exclude={"preset"}),
    seeds=2,
    trials=1,
    max_epochs=1,
    head_epochs=1,
    bootstrap_samples=100,
    device="cpu",
    batch_size=32,
)
