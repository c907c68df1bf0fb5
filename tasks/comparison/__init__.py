"""Models on one dataset: ``lineup`` (who) -> ``measuring`` (one model, one seed) -> ``statistics`` -> ``presentation``."""
