"""The networks, one concept a file.

Reading order of the default network, which is the order of ``network.py``: ``embedding`` events to vectors -> ``rotary`` their positions
-> ``encoder`` causal Transformer of one view -> ``heads`` what comes next -> ``transitions`` what followed what -> ``blend`` both in one
``scoring``; ``evidence`` of the encoders, ``alignment`` and ``affinity`` of the categories -> ``experts`` -> ``reader`` of each label.
``paper`` has the structure of the source, with ``fusion``, its softmax gate. ``losses`` trains them, by ``sampled`` where
a catalogue is large and by ``masked`` on a GPU, ``ranking`` orders the catalogue,
``builder`` unpacks the settings, ``bundle`` stores a network with its vocabularies.
"""
