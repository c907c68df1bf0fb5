"""The learner of the product, by a meter's clock. Imports torch: after the rules of the memory are set, see ``mfn_sasrec``."""

import contextlib
import itertools

from benchmarks.peers.program import Meter
from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.data.dataset import Dataset
from mfn_core.inference.predictor import Predictor
from mfn_core.model.bundle import Bundle
from mfn_core.model.losses import Losses
from mfn_core.schema import UNKNOWN
from mfn_core.training.blending import fit_blend
from mfn_core.training.determinism import deterministic
from mfn_core.training.journal import Journal
from mfn_core.training.learner import Learner
from mfn_core.training.validation import Validation


class TimeIsUpError(Exception):
    """The seconds are over."""


class MeteredLearner(Learner):
    """The learner of the product, which tells a meter of each step and stops when its seconds are over."""

    def __init__(self, dataset: Dataset, network_config: NetworkConfig, config: TrainingConfig, meter: Meter) -> None:
        super().__init__(dataset, network_config, config)
        self._meter = meter

    def losses(self, batch: Batch, num_targets: int | None = None) -> Losses:
        """Those of the product, unless the time is up."""
        if self._meter.step(len(batch.rows_B), int((batch.targets_BL > UNKNOWN).sum())):
            raise TimeIsUpError
        return super().losses(batch, num_targets)

    def train(self) -> None:
        """Epochs without validation until the seconds are over."""
        journal = Journal(self._config, lambda _: None)
        with deterministic(self.device), contextlib.suppress(TimeIsUpError):
            for epoch in itertools.count(1):
                self.learn(epoch, journal)

    def finished(self) -> Predictor:
        """The predictor of the averaged and blended network."""
        validation = Validation(self._dataset, self._network_config, self._config)
        with deterministic(self.device), self.autocast(), self.average.applied():
            fit_blend(self.network.blend, validation.answers(self.network))
            weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(weights)
        bundle = Bundle(self.network, self._network_config, self._dataset.vocabularies, dict(self._dataset.attribute_classes), {})
        return Predictor(bundle, "cpu")
