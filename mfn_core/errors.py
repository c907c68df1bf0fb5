"""Every error that the core and the tasks raise on purpose.

``deploy.local`` adds BootstrapError, DagFailedError and StartError below MFNError.

::

    MFNError
    |-- PermanentError            the same input fails again: never retried
    |   |-- ConfigError           a misspelt or out-of-range setting or Param
    |   |-- SchemaError           a file breaks the data contract: column, type, zone, corrupt Parquet
    |   |-- RejectionError        more rows rejected or duplicated than the setting allows
    |   |-- AuditError            Great Expectations found a critical failure
    |   |-- InsufficientDataError too few users, one class only, no history
    |   |-- LeakError             an input is not strictly older than its label
    |   `-- ArtifactError         a stored artifact is missing, foreign or fails its digest
    `-- TransientError            the same call may succeed later: retried
        |-- PartitionNotReadyError raw files are not there yet, or not finished
        `-- ProcessError          a child process was killed or died of a signal

A message names what, where, the value, the limit and the remedy.
"""


class MFNError(Exception):
    """Root of the tree."""


class PermanentError(MFNError):
    """The same input fails again: never retried."""


class ConfigError(PermanentError, ValueError):
    """A misspelt or out-of-range setting or Param."""


class SchemaError(PermanentError, ValueError):
    """A file breaks the data contract."""


class RejectionError(PermanentError, ValueError):
    """More rows rejected or duplicated than the setting allows."""


class AuditError(PermanentError, ValueError):
    """Great Expectations found a critical failure."""


class InsufficientDataError(PermanentError, ValueError):
    """Too few users, one class only, or no history at all."""


class LeakError(PermanentError, ValueError):
    """An input is not strictly older than its label."""


class ArtifactError(PermanentError, ValueError):
    """A stored artifact is missing, foreign, or fails its digest."""


class TransientError(MFNError):
    """The same call may succeed later: retried."""


class PartitionNotReadyError(TransientError):
    """Raw files are not there yet, or not finished."""


class ProcessError(TransientError, RuntimeError):
    """A child process was killed or died of a signal."""
