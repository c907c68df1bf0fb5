"""The training run of the product, by a meter's clock. Imports torch: after the rules of the memory are set, see ``mfn_sasrec``."""

import contextlib
import itertools
import time

from benchmarks.peers.program import Meter
from mfn_core.data.batch import Batch
from mfn_core.inference.predictor import Predictor
from mfn_core.model.bundle import Bundle
from mfn_core.model.losses import Losses
from mfn_core.schema import UNKNOWN
from mfn_core.training import loop
from mfn_core.training.blending import fit_blend


class TimeIsUpError(Exception):
    """The seconds are over."""


class MeteredRun(loop._Run):
    """The run of the product, which tells a meter of each step and stops when its seconds are over."""

    meter: Meter

    def _losses(self, batch: Batch, num_targets: int | None = None) -> Losses:
        if self.meter.step(len(batch.rows_B), int((batch.targets_BL > UNKNOWN).sum())):
            raise TimeIsUpError
        return super()._losses(batch, num_targets)

    def train(self) -> None:
        """Epochs without validation until the seconds are over."""
        with loop._deterministic(self.device), contextlib.suppress(TimeIsUpError):
            for epoch in itertools.count(1):
                self._learn(epoch, time.monotonic())

    def finished(self) -> Predictor:
        """The predictor of the averaged and blended network."""
        with loop._deterministic(self.device), self._autocast(), self._average.applied():
            fit_blend(self._network.blend, self._validation.answers(self._network))
            weights = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
        self._network.load_state_dict(weights)
        bundle = Bundle(self._network, self._network_config, self._dataset.vocabularies, dict(self._dataset.attribute_classes), {})
        return Predictor(bundle, "cpu")
