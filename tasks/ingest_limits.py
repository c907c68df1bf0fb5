"""What became of the rows of a source, held against the limits of the installation."""

from collections import Counter

from ibis.expr.types import Table

from mfn_core.errors import RejectionError, SchemaError, TransientError
from mfn_core.schema import EVENT_TIME, SEQ_NO, LogSchema
from tasks import quarantine, raw, receipt
from tasks.day_parts import Part
from tasks.log_rows import Count
from tasks.raw import Footer, Source
from tasks.settings import Settings

_DAYS_NAMED = 5


def check_rejected(
    settings: Settings, log: LogSchema, source: Source, counts: list[Count], footers: list[Footer], verdicts: list[Table]
) -> None:
    """Hold the rejected rows of a source against the limit, and the others against the day of their folder.

    Args:
        settings: of the installation.
        log: which log.
        source: whose rows they are.
        counts: of its rows, by day and verdict.
        footers: of all files that were read.
        verdicts: the rows themselves, for an example.

    Raises:
        TransientError: a file was replaced while it was read.
        RejectionError: too many rows are rejected.
        SchemaError: no row is of the folder's day.
    """
    read = sum(each.rows for each in counts)
    if source.day is not None:
        delivered = sum(footer.rows for footer in footers if footer.uri in source.signatures)
        if read != delivered:
            raise _changed_meanwhile(settings, log, source, delivered, read)
    rejected = sum(each.rows for each in counts if each.reason is not None)
    if read and rejected / read > settings.max_rejected_share:
        raise RejectionError(
            f"{_what(log, source)}: {rejected} of {read} rows ({rejected / read:.1%}) are rejected, more than "
            f"max_rejected_share={settings.max_rejected_share:g}: {_reasons(counts)}. First: {quarantine.example(verdicts, source.name)}. "
            f"Nothing is published; each row is under {quarantine.log_uri(settings, log)} with its file and row number: "
            "correct the source, or raise MFN_MAX_REJECTED_SHARE"
        )
    if source.day is not None and not any(each.reason is None and each.day == source.day for each in counts):
        others = ", ".join(sorted({str(each.day) for each in counts if each.day is not None})[:_DAYS_NAMED])
        raise SchemaError(
            f"{_what(log, source)}: none of {read} rows has an event_time on {source.day} (UTC), the day of its folder, but on {others}; "
            "put the rows into the folder of their day, or write event_time in UTC"
        )


def check_duplicates(
    settings: Settings, log: LogSchema, source: Source, parts: list[Part], counts: list[Count], footers: list[Footer]
) -> None:
    """Hold the exact duplicates of a source against the limit.

    Args:
        settings: of the installation.
        log: which log.
        source: whose rows they are.
        parts: its distinct rows.
        counts: of its rows, by day and verdict.
        footers: of all files that were read.

    Raises:
        RejectionError: there are too many.
    """
    read, duplicates = sum(each.rows for each in counts), num_duplicates(parts)
    if read and duplicates / read > settings.max_duplicate_share:
        raise RejectionError(
            f"{_what(log, source)}: {duplicates} of {read} rows ({duplicates / read:.1%}) are exact duplicates, more than "
            f"max_duplicate_share={settings.max_duplicate_share:g}. Nothing is published: remove the file that was delivered twice, "
            f"{_numbering(settings, log, source, footers)}or raise MFN_MAX_DUPLICATE_SHARE"
        )


def num_duplicates(parts: list[Part]) -> int:
    """How many rows were equal to another of their source and day."""
    return sum(part.arrived - part.measures.rows for part in parts)


def _changed_meanwhile(settings: Settings, log: LogSchema, source: Source, delivered: int, read: int) -> TransientError:
    assert source.day is not None, "of a daily folder"
    now = raw.daily(settings, log, source.day)
    changed = [uri for uri, signature in source.signatures.items() if now is None or now.signatures.get(uri) != signature]
    return TransientError(
        f"{log.dataset} {source.name}: {delivered} rows by the footers of its files, {read} when they were read: "
        f"{', '.join(sorted(changed)) or 'one of them'} was replaced meanwhile. Nothing is published, the run will be retried; "
        "deliver a file under a name that begins with _ and rename it, so that it changes at once"
    )


def _numbering(settings: Settings, log: LogSchema, source: Source, footers: list[Footer]) -> str:
    """What else makes rows equal: without a number, an event that is repeated within one instant cannot be told from a copy."""
    column = receipt.column_mapping(settings, log).get(SEQ_NO, SEQ_NO)
    if all(column in footer.schema.names for footer in footers if footer.uri in source.signatures):
        return ""
    return (
        f"or, where a user repeats an event within one {EVENT_TIME} (as where times are whole days), bring a {column} that numbers the "
        "events of a user, or times of a finer grain, "
    )


def _what(log: LogSchema, source: Source) -> str:
    return f"{log.dataset} {source.name} ({', '.join(source.uris)})"


def _reasons(counts: list[Count]) -> str:
    rows = Counter[str]()
    for each in counts:
        if each.reason is not None:
            rows[each.reason] += each.rows
    return ", ".join(f"{reason} ({number} rows)" for reason, number in rows.most_common())
