"""One module per verb: URIs in, a small JSON manifest out; plus the few adapters to the outside."""
