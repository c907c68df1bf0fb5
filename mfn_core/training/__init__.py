"""From a dataset to the best weights: ``worker`` (the process) -> ``loop`` (epochs) -> ``labels``.

An epoch goes through ``feed`` or, on a GPU, ``resident`` and ``graphs``, then ``validation``, ``blending`` and ``checkpoint``; a step
through ``step`` and ``averaging``, with ``sampling`` and ``rows`` where a catalogue is large. ``encoders`` takes over those of another run.

The folder of a run::

    job.json        what to train: paths and settings, written by whoever starts the worker
    checkpoint.pt   the state after the last epoch
    bundle/         the best weights with their settings and vocabularies, written at the end
    result.json     how it went, epoch by epoch, written last
"""

JOB = "job.json"
CHECKPOINT = "checkpoint.pt"
BUNDLE = "bundle"
RESULT = "result.json"
