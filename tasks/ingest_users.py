"""Raw users table into the curated one: write, audit, publish. A snapshot: what is read replaces what was there."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ibis
import pandas as pd
import pyarrow as pa
from ibis.expr.types import Table

from mfn_core.errors import RejectionError, SchemaError
from mfn_core.schema import USER_ID, USERS
from tasks import audit, curated, engine, log_rows, manifest, parts, quarantine, raw, storage
from tasks.manifest import Manifest
from tasks.raw import Footer, Source
from tasks.settings import Settings

_SETTING = "MFN_USER_COLUMNS"
# Another sentence where the rules of reading change: an unchanged table is read once more.
_RULES = "whole floats are integers, empty strings are null"
_NAME = re.compile(r"[\w.\- ]+")  # what can name figures in MLflow, and files
_COPIES, _ROWS, _PART = "/copies", "/rows", "/part"  # by their first letter no attributes: see _NAME
_NAMED = 5
_FIRST_INEXACT = 2.0**53  # from here on not every integer is a float

_log = logging.getLogger(__name__)


def ingest_users(settings: Settings) -> dict[str, Any]:
    """Read the users table and publish it.

    Columns other than ``user_id`` are attributes, kept as strings. Null and the empty string, which a gap of a text file becomes, mean
    unlabelled, as is every user of a file that lacks the column. Whole numbers are integers, whatever their type: tables written by
    pandas hold integers with gaps as floats. Columns that are neither string, integer nor boolean, or whose names MLflow refuses, are
    left out with a warning.

    Returns:
        The manifest, or ``{"skipped": why}`` where there is no users table or it is unchanged. A table that is no longer delivered
        goes on being used: whoever replaces a file may have removed it first.

    Raises:
        PartitionNotReadyError: a file is not finished.
        SchemaError: a file breaks the contract, or two rows of a user disagree.
        RejectionError: too many rows are rejected or duplicated; rejected ones are in quarantine, nothing is published.
        AuditError: the table fails the suite; nothing is published.
    """
    source, old = raw.users(settings), curated.users(settings)
    if source is None and old is not None:
        return _skipped(
            f"there is no users table under {settings.raw} any longer: the one published at {old.created_at} goes on being used; "
            f"deliver {USERS}.parquet again, or delete {old.uri} to leave out attribute prediction"
        )
    if source is None:
        return _skipped(f"there is no users table under {settings.raw}; attribute prediction is left out")
    inputs = dict(source.signatures) | {"columns": manifest.digest_of(settings.user_columns, _RULES)}
    if old is not None and old.inputs == inputs:
        return _skipped(f"nothing to do: the users table is ingested and {', '.join(source.uris)} unchanged")
    footers = raw.footers(source.uris)
    columns = _columns(settings, source, footers)
    with engine.connect(settings) as connection, raw.corrupt_files_named(source.uris):
        groups = [[each.uri for each in group] for group in raw.group_by_schema(footers)]
        tables = [engine.read_parquet(connection, uris, with_origin=True).join(engine.paths(uris), engine.FILE) for uris in groups]
        columns = _without_fractions(tables, columns)
        typed = [_typed(table, columns) for table in tables]
        _quarantine(settings, [table.filter(~_has_id(table[columns[USER_ID]].cast("string"))) for table in tables])
        kept = ibis.union(*(rows.filter(_has_id(rows[USER_ID])) for rows in typed))
        users = connection.create_table("users", kept.group_by(list(columns)).agg(**{_COPIES: kept.count()}), temp=True)
        read = sum(each.rows for each in footers)
        rows = _checked_rows(settings, source, users, read, list(columns))
        published = _publish(settings, users, list(columns), rows, inputs)
    return published.model_dump(mode="json")


def _skipped(why: str) -> dict[str, Any]:
    _log.info("users: %s", why)
    return {"skipped": why}


def _columns(settings: Settings, source: Source, footers: Sequence[Footer]) -> dict[str, str]:
    """Source column of ``user_id`` and of every attribute, the id first."""
    raw.check_mapping(settings.user_columns, None, _SETTING)
    if not sum(each.rows for each in footers):
        raise SchemaError(f"{', '.join(source.uris)}: 0 rows, expected at least 1; deliver the users table again with its rows")
    mapping = settings.user_columns
    contract_name = {column: name for name, column in mapping.items()}
    first_file: dict[str, str] = {}
    for footer in footers:
        raw.check_names([(name, footer.uri) for name in footer.schema.names], quarantine.MARKS)
        for column in footer.schema.names:
            first_file.setdefault(column, footer.uri)
    names = dict.fromkeys([USER_ID, *(contract_name.get(column, column) for column in first_file), *mapping])
    columns = {name: mapping.get(name, name) for name in names}
    attributes = {column for footer in footers for column in raw.attribute_columns(footer.schema)}
    left_out = {
        name: first_file[column]
        for name, column in columns.items()
        if name != USER_ID and column in first_file and not (_NAME.fullmatch(name) and column in attributes)
    }
    if left_out:
        _log.warning(
            "users: left out %s: an attribute is a string, integer, boolean or whole-number column, named by letters, digits, '_', '-', "
            "'.' and spaces; %s can give a column another name",
            ", ".join(f"{name} ({file})" for name, file in sorted(left_out.items())),
            _SETTING,
        )
    usable = {name: column for name, column in columns.items() if name not in left_out}
    raw.check_names([(name, first_file.get(column, _SETTING)) for name, column in usable.items()])
    rules = raw.user_rules(list(usable))
    for footer in footers:
        # An attribute may be missing in some files, a mapped one not in all of them.
        expected = {name: rules[name] for name, column in usable.items() if column in footer.schema.names or column not in first_file}
        raw.check_columns(footer, mapping, {USER_ID: rules[USER_ID]} | expected, [USER_ID], _SETTING)
    return usable


def _without_fractions(tables: Sequence[Table], columns: Mapping[str, str]) -> dict[str, str]:
    """Leave out the columns of numbers that are not whole: they have no classes."""
    measured = {
        name
        for table in tables
        for name, column in columns.items()
        if column in table.columns and table[column].type().is_floating() and (~_is_whole(table[column])).any().to_pyarrow().as_py()
    }
    if measured:
        named = ", ".join(sorted(measured))
        _log.warning("users: left out %s: not all of its numbers are whole; deliver classes of them, as strings, to predict it", named)
    return {name: column for name, column in columns.items() if name not in measured}


def _is_whole(numbers: ibis.expr.types.FloatingValue) -> ibis.expr.types.BooleanValue:
    """True for a gap too, be it null or not a number."""
    exact = (numbers.abs() < _FIRST_INEXACT) & (numbers % 1 == 0)  # a cast to integers stops at the first that is none
    return (numbers.isnan() | exact).fill_null(True)


def _typed(table: Table, columns: Mapping[str, str]) -> Table:
    """The id and every attribute as strings; null where empty, and where the files lack the attribute."""

    def text(column: str) -> ibis.expr.types.StringValue:
        if column not in table.columns:
            return ibis.null("string")
        value = table[column]
        return (value.isnan().ifelse(None, value).cast("int64") if value.type().is_floating() else value).cast("string").nullif("")

    return table.select(**{name: text(column) for name, column in columns.items()})


def _has_id(user_id: ibis.expr.types.StringColumn) -> ibis.expr.types.BooleanColumn:
    return (user_id != "").fill_null(False)


def _quarantine(settings: Settings, rejected: Sequence[Table]) -> None:
    folder = quarantine.users_uri(settings)
    written: set[str] = set()
    for number, rows in enumerate(rejected):
        marked = rows.mutate(**{log_rows.REASON: ibis.literal(f"{USER_ID} is null or empty"), _PART: ibis.literal(number)})
        marked = marked.drop(engine.FILE).rename({quarantine.ROW_NUMBER: engine.ROW_NUMBER}).order_by([engine.PATH, quarantine.ROW_NUMBER])
        for _, path in parts.write_by_keys(marked, [_PART], None, settings.scratch):
            storage.upload(path, storage.join(folder, f"part-{number}.parquet"))
            written.add(f"part-{number}.parquet")
    for name in storage.list_names(folder):
        if name not in written:
            storage.remove(storage.join(folder, name))


def _checked_rows(settings: Settings, source: Source, users: Table, read: int, columns: Sequence[str]) -> dict[str, int]:
    """Counts by name, held against the limits."""
    counted = users.agg(accepted=users.count(), kept=users[_COPIES].sum().fill_null(0)).to_pyarrow().to_pylist()[0]
    accepted, kept = int(counted["accepted"]), int(counted["kept"])
    rows = {"read": read, "accepted": accepted, "quarantined": read - kept, "duplicates": kept - accepted}
    where = ", ".join(source.uris)
    for name, limit in (("quarantined", settings.max_rejected_share), ("duplicates", settings.max_duplicate_share)):
        if rows[name] / read > limit:
            setting = "max_rejected_share" if name == "quarantined" else "max_duplicate_share"
            what = f"have no {USER_ID}" if name == "quarantined" else "are exact duplicates"
            raise RejectionError(
                f"{where}: {rows[name]} of {read} rows ({rows[name] / read:.1%}) {what}, more than {setting}={limit:g}. "
                f"Nothing is published; rejected rows are under {quarantine.users_uri(settings)} with file and row number: "
                f"correct the source, or raise MFN_{setting.upper()}"
            )
    _check_conflicts(users, columns, where)
    return rows


def _check_conflicts(users: Table, columns: Sequence[str], where: str) -> None:
    attributes = [name for name in columns if name != USER_ID]
    values = {name: users[name].nunique() + users[name].isnull().any().cast("int64") for name in attributes}
    counted = users.group_by(USER_ID).agg(**{_ROWS: users.count()}, **values)
    conflicts = counted.filter(counted[_ROWS] > 1).order_by(USER_ID)
    named = conflicts.limit(_NAMED).to_pyarrow().to_pylist()
    if not named:
        return
    total = conflicts.count().to_pyarrow().as_py()
    said = [f"{row[USER_ID]} ({', '.join(name for name in attributes if row[name] > 1)})" for row in named]
    raise SchemaError(
        f"{where}: {total} users have rows with different attributes, expected one value per user and column: {', '.join(said)}"
        f"{' and more' if total > len(named) else ''}; keep one row per user"
    )


def _publish(settings: Settings, users: Table, columns: list[str], rows: dict[str, int], inputs: dict[str, str]) -> Manifest:
    hash_sum = engine.row_hash(users, columns).cast(log_rows.HASH_SUM).sum().to_pyarrow().as_py()
    digest = manifest.digest_of(USERS, columns, rows["accepted"], str(hash_sum))
    verdict = _audit(settings, users, columns, rows["accepted"])
    uri, name = curated.users_uri(settings), f"part-{digest[:12]}.parquet"
    schema = pa.schema([(column, pa.string()) for column in columns])
    ordered = users.mutate(**{_PART: ibis.literal(0)}).order_by(USER_ID)
    for _, path in parts.write_by_keys(ordered, [_PART], schema, settings.scratch):
        storage.upload(path, storage.join(uri, name))
    facts = {"dataset": USERS, "attributes": columns[1:], "engine": engine.NAME, "verdict": verdict.as_fact(), curated.FILES: [name]}
    published = Manifest(
        kind="curated",
        uri=uri,
        digest=digest,
        rows=rows,
        inputs=inputs,
        config={"columns": settings.user_columns},
        created_at=manifest.now(),
        facts=facts,
    )
    manifest.write(published)
    for stale in set(storage.list_names(uri)) - {name, manifest.MANIFEST}:
        storage.remove(storage.join(uri, stale))
    _log.info("users: %s", ", ".join(f"{count} {what}" for what, count in rows.items()))
    return published


def _audit(settings: Settings, users: Table, columns: Sequence[str], accepted: int) -> audit.Verdict:
    """One row of metrics per column."""
    from expectations import users as users_suite

    values = {f"{name}/classes": users[name].nunique() for name in columns} | {
        f"{name}/nulls": users[name].isnull().sum() for name in columns
    }
    counted = users.agg(**values).to_pyarrow().to_pylist()[0]
    frame = pd.DataFrame(
        {
            "column": name,
            "rows": accepted,
            "null_ids": counted[f"{name}/nulls"] if name == USER_ID else 0,
            "repeated_ids": accepted - counted[f"{name}/classes"] if name == USER_ID else 0,
            "classes": None if name == USER_ID else counted[f"{name}/classes"],
            "labelled_share": 1 - counted[f"{name}/nulls"] / accepted,
        }
        for name in columns
    )
    return audit.judge(frame, users_suite.suite(), USERS, settings)
