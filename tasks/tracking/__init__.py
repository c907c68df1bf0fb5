"""The sole MLflow client: one run per training run, one registered version per fingerprint.

Runs, logged models and versions carry the tag ``mfn.fingerprint`` and are searched by it before anything is made, so a retry or a
re-run goes on with what is there. Everything here may be called twice with the same arguments and changes nothing the second time.
"""

FINGERPRINT = "mfn.fingerprint"
