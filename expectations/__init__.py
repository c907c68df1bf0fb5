"""The Great Expectations suites, and nothing else: no context, no input or output."""
