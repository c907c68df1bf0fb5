"""Batches on their way to the device, collated ahead of the step that needs them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from mfn_core.data.batch import Batch

Rows = NDArray[np.int64]
_DEPTH = 2


def feed(collate: Callable[[Rows], Batch], rows_of_batches: Iterable[Rows], device: torch.device) -> Iterator[Batch]:
    """Batches on the device, in order, while a thread collates the next two.

    On CUDA the thread also pins them, so that the copy does not make the host wait.
    """

    def make(rows: Rows) -> Batch:
        batch = collate(rows)
        return _pinned(batch) if device.type == "cuda" else batch

    rest = iter(rows_of_batches)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed") as thread:
        ahead: deque[Future[Batch]] = deque(thread.submit(make, rows) for rows in islice(rest, _DEPTH))
        while ahead:
            batch = ahead.popleft().result()
            ahead.extend(thread.submit(make, rows) for rows in islice(rest, 1))
            yield batch.to(device, non_blocking=True)


def _pinned(batch: Batch) -> Batch:
    return Batch(**{field.name: getattr(batch, field.name).pin_memory() for field in fields(batch)})
