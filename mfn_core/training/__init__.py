"""From a dataset to the best weights: ``worker`` (the process) -> ``loop`` (epochs) -> ``labels``.

An epoch is a pass of ``learner`` over what ``lessons`` leaves, through ``feed`` or, on a GPU, ``resident`` and ``graphs``, summed by
``tally`` and watched by ``divergence``; then come ``validation``, ``blending`` and ``checkpoint``, and an entry in the ``journal``. A step
goes through ``step`` and ``averaging``, with ``sampling`` and ``rows`` where a catalogue is large, and ``ranks`` where processes share it.
``encoders`` takes over those of another run; ``determinism`` is what a seed rests on.

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
