"""The Macro-Micro Fusion Network: data, model, training, evaluation, inference.

Runs with torch, numpy, pandas, pyarrow and pydantic alone. Importing this package imports none of
them: a DAG file may read ``mfn_core.config`` in milliseconds.

Layers, upper may import lower, never the other way::

    evaluation -> inference -> training -> model -> data -> simulation, metrics, config, schema, errors

Shape legend, a suffix of the names of tensors and arrays:

    B  users in a batch          A  user attributes
    U  users of a dataset        C  categories of one view, or classes of a label
    L  events of one history     G  macro (app) categories
    D  width of the network      K  micro (item) categories; sources of gains; items of an answer
    N  items in the vocabulary   F  filters of the alignment convolution; width of a member
    P  positions, flat           M  distinct ids of a user's view; items that gain; successors of an item
    H  attention heads           W  width of a head; latest items that speak
    R  members of a reader       Q, S, E, V, X, Y  told where they occur

A name goes without where a letter would tell nothing or is told already: of a scalar, as a loss; of what takes any shape; of rows,
positions and events end to end, as ``rows`` and the arrays of ``ViewHistories``; of a step on the way between two names that have theirs;
of a field whose shape stands beside it, as in ``Vocabulary`` and all over the simulation.

In the losses over a catalogue C is the positions of a chunk, and K the width with the columns that ride along.

``macro_ids_BL`` is a [users x events] matrix of macro ids, right-padded with ``PAD`` (0). Histories are
ordered oldest first. Times are int64 seconds since 1970-01-01 UTC. A ``*_mask`` is True where valid.
"""
