"""How good a model is, how sure of it one can be, and whether it beats another."""
