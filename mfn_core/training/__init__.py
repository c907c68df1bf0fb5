"""From a dataset to the best weights: ``worker`` (the process) -> ``loop`` (epochs) -> ``labels``.

An epoch goes through ``feed``, ``validation``, ``blending`` and ``checkpoint``; ``encoders`` takes over those of another run.

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
