"""A step as a CUDA graph: recorded once per shape, then replayed, so that the host launches one thing in place of a thousand."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mfn_core.data.batch import Batch
from mfn_core.training.resident import ResidentHistories, Rows, Shape

Step = Callable[[Shape, Tensor], Tensor]
Replay = Callable[[Tensor], Tensor]
_STEPS_BEFORE_RECORDING = 8  # of a shape: libraries choose their kernels, and recording takes as long as some dozen steps
_log = logging.getLogger(__name__)


class ResidentSteps:
    """Steps on histories that the device holds: recorded on CUDA, plain elsewhere.

    Args:
        histories: on the device.
        step: takes a step on a batch with at least so many targets; returns its losses.
        device: where.
    """

    def __init__(self, histories: ResidentHistories, step: Callable[[Batch, int], Tensor], device: torch.device) -> None:
        self._histories, self._device = histories, device
        self._take: Step = lambda shape, rows_B: step(histories.batch(rows_B, shape), shape.num_targets)
        self._graphed: GraphedStep | None = None
        if device.type == "cuda":
            recorder = CudaRecorder(device)
            self._graphed = GraphedStep(self._take, recorder)
            self._take = recorder.on_stream(self._graphed)

    @property
    def num_graphs(self) -> int:
        """Shapes whose steps are replayed."""
        return self._graphed.num_graphs if self._graphed else 0

    @property
    def num_replays(self) -> int:
        """Steps that were replayed, not launched kernel by kernel."""
        return self._graphed.num_replays if self._graphed else 0

    def __call__(self, batches_of_rows: Sequence[Rows]) -> Iterator[Tensor]:
        """A step per batch of users; the losses of each, valid until the next."""
        on_device = torch.from_numpy(np.concatenate(batches_of_rows)).to(self._device)
        sizes = [len(rows) for rows in batches_of_rows]
        for rows, rows_B in zip(batches_of_rows, on_device.split(sizes), strict=True):
            yield self._take(self._histories.shape(rows), rows_B)


class GraphedStep:
    """Takes steps, from the ninth of a shape on as a graph. Every call is one step, and only one.

    Graphs hold memory that other steps cannot have: where one of them finds no room, the graphs go.

    Args:
        step: users' rows [B] of a shape to losses; all of its tensors stay where they are from call to call, none of their shapes
            depends on a value, and nothing waits for the device. Where it runs out of memory it has changed nothing that counts.
        record: takes what a step does into a graph, without doing it.
    """

    def __init__(self, step: Step, record: Callable[[Replay, Tensor], Replay]) -> None:
        self._step, self._record = step, record
        self._graphs: dict[Shape, Replay] = {}
        self._taken: Counter[Shape] = Counter()
        self._is_recording = True
        self.num_replays = 0

    def __call__(self, shape: Shape, rows_B: Tensor) -> Tensor:
        """One step; the losses are valid until the next.

        Raises:
            torch.OutOfMemoryError: there is no room for it, and no graph holds any.
        """
        self._taken[shape] += 1
        if self._is_recording and self._taken[shape] > _STEPS_BEFORE_RECORDING and shape not in self._graphs:
            self._try_to_record(shape, rows_B)
        if (replay := self._graphs.get(shape)) is not None:
            self.num_replays += 1
            return replay(rows_B)
        try:
            return self._step(shape, rows_B)
        except torch.OutOfMemoryError as error:
            if not self._graphs:
                raise
            said = str(error)
        self._make_room(shape, said)  # not in the handler: there the error keeps the tensors of the step
        return self._step(shape, rows_B)

    @property
    def num_graphs(self) -> int:
        """Shapes whose steps are replayed."""
        return len(self._graphs)

    def _make_room(self, shape: Shape, said: str) -> None:
        _log.warning("no room beside %d recorded steps, which are given up; steps take longer: at %s: %s", self.num_graphs, shape, said)
        self._is_recording = False
        self._graphs.clear()
        torch.cuda.empty_cache()

    def _try_to_record(self, shape: Shape, rows_B: Tensor) -> None:
        try:
            self._graphs[shape] = self._record(lambda static_B: self._step(shape, static_B), rows_B)
        except RuntimeError as error:  # training goes on without: slower, to the same end
            self._is_recording = False
            _log.warning("steps are not recorded as CUDA graphs, and take longer: %s at %s: %s", type(error).__name__, shape, error)


class CudaRecorder:
    """Records on a stream of its own into one pool of memory; steps without a graph run on that stream too."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Replay, rows_B: Tensor) -> Replay:
        """The graph of a step, as a function of the users' rows."""
        static_B = rows_B.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            losses = step(static_B)

        def replay(rows_B: Tensor) -> Tensor:
            static_B.copy_(rows_B)
            graph.replay()
            return losses

        return replay

    def on_stream(self, step: Step) -> Step:
        """The step on the recorder's stream, after what was asked for before it and before what is asked for after it."""

        def taken(shape: Shape, rows_B: Tensor) -> Tensor:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                losses = step(shape, rows_B)
            torch.cuda.current_stream().wait_stream(self._stream)
            return losses

        return taken
