"""From raw histories to batches: vocabularies, the sequence builder, splits, the memory-mapped dataset."""
