"""The Great Expectations suites, and nothing else: no context, no input or output."""

# Of what the ingest itself guards: rows that would break it are in quarantine before a suite sees anything.
FAULT_OF_INGEST = {"remedy": "the ingest was to see to that, whatever the source delivers: report the fault, with where it shows"}
