"""The network of the paper, one concept a file.

Reading order, which is the order of ``network.py``: ``embedding`` events to vectors -> ``rotary`` their positions ->
``encoder`` causal Transformer of one view -> ``alignment`` pooling per category, co-attention, convolution -> ``fusion``
softmax gate -> ``heads`` downstream tasks. ``losses`` trains it, ``ranking`` orders the catalogue, ``builder`` unpacks the
settings, ``bundle`` stores it with its vocabularies.
"""
