"""The page of benchmarks says what the records say, and what has none."""

import re

from benchmarks.report import PAGE, TARGETS, page, records
from benchmarks.rounds import EXPONENTS, ONE_MORE_DAY

RECORD = {
    "name": "etl",
    "date": "2026-11-25T04:05:06+00:00",
    "command": "python -m benchmarks.etl --rows 1000",
    "machine": {"processor": "Abacus", "cores": 2, "memory_gib": 23.5},
    "versions": {"python": "3.11.7", "duckdb": "1.5.6"},
    "figures": {
        "etl_rows_per_s": 6_000_000.0,
        "audit_time_vs_duckdb": 2.5,
        "etl_peak_rss_gb": 1.2345678,
        "eval_users_per_s_vs_replay": None,
    },
    "rounds": {},
    "notes": ["two daily folders"],
}


def lines(*found) -> list[str]:
    return page(list(found)).splitlines()


def test_a_figure_stands_beside_its_target():
    said = lines(RECORD)
    assert "| `etl_rows_per_s` | 6,000,000 | one round | ≥ 5,000,000 | met |" in said
    assert "| `audit_time_vs_duckdb` | 2.5 | one round | ≤ 2 | **not met** |" in said


def test_a_figure_without_a_target_is_told_all_the_same():
    assert "| `etl_peak_rss_gb` | 1.235 | one round | | |" in lines(RECORD)


def test_what_could_not_be_measured_is_said():
    assert "| `eval_users_per_s_vs_replay` | not measured | | ≥ 2 | |" in lines(RECORD)


AUDIT = RECORD | {
    "name": "audit",
    "command": "python -m benchmarks.audit --rounds 3",
    "figures": {"audit_time_vs_duckdb": 3.0},
    "rounds": [{"mfn": 1.0, "duckdb": 1.0}, {"mfn": 6.0, "duckdb": 4.0}, {"mfn": 9.0, "duckdb": 2.0}],
}


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds_whatever_the_record_holds():
    assert "| `audit_time_vs_duckdb` | 1.5 | 1 to 4.5, 3 rounds | ≤ 2 | met |" in lines(AUDIT)


def test_on_top_too_the_rounds_are_told():
    words = TARGETS["audit_time_vs_duckdb"].words
    assert f"| {words} | 1.5 | 1 to 4.5, 3 rounds | ≤ 2 | met | [audit](#audit) |" in answers(AUDIT)


def test_what_older_records_do_not_say_is_said():
    assert lines(RECORD)[-2:] == ["- two daily folders", f"- {ONE_MORE_DAY}"]
    scale = RECORD | {"command": "python -m benchmarks.scale", "rounds": {}}
    assert lines(scale)[-2:] == ["- two daily folders", f"- {EXPONENTS}"]
    assert lines(scale | {"notes": [EXPONENTS]})[-2:] == ["", f"- {EXPONENTS}"]


def test_what_is_given_or_of_all_rounds_has_no_range():
    said = lines(AUDIT | {"figures": {"audit_rows": 7.0, "audit_peak_rss_gb": 1.5}})
    assert "| `audit_rows` | 7 | given | | |" in said
    assert "| `audit_peak_rss_gb` | 1.5 | highest of the rounds | | |" in said


def answers(*found):
    """The rows of the table on top."""
    table = page(list(found)).split("## In short\n\n")[1].split("\n\n")[0]
    return table.splitlines()[2:]


def test_every_target_stands_on_top_in_words_with_its_verdict_and_a_link_to_the_record():
    rows = answers(RECORD, RECORD | {"name": "etl-100m", "figures": {"etl_rows_per_s": 4_000_000.0}})
    assert "| raw Parquet to histories: rows a second | 6,000,000 | one round | ≥ 5,000,000 | met | [etl](#etl) |" in rows
    assert "| raw Parquet to histories: rows a second | 4,000,000 | one round | ≥ 5,000,000 | **not met** | [etl-100m](#etl-100m) |" in rows
    assert "| audit of a day: time, as a multiple of plain DuckDB's | 2.5 | one round | ≤ 2 | **not met** | [etl](#etl) |" in rows
    assert "| full ranking: users a second, as a multiple of RePlay's | | | ≥ 2 | not measured | [etl](#etl) |" in rows
    assert len(rows) == len(TARGETS) + 1


def test_a_target_without_a_record_is_not_measured():
    assert answers() == [f"| {target.words} | | | {target.said()} | not measured | |" for target in TARGETS.values()]


def test_a_link_leads_to_a_section():
    text = page(records())
    assert {f"## {name}" for name in re.findall(r"\]\(#(.*?)\)", text)} <= set(text.splitlines())


def test_machine_versions_command_and_notes_are_told():
    text = page([RECORD])
    for part in (
        "Abacus (instruction sets not recorded), 2 cores, 23.5 GiB",
        "duckdb 1.5.6",
        "`python -m benchmarks.etl --rows 1000`",
        "2026-11-25",
        "- two daily folders",
    ):
        assert part in text


def test_instruction_sets_are_told_where_the_record_has_them():
    machine = RECORD["machine"] | {"cpu_family": "6", "cpu_model": "143", "instructions": ["avx2", "avx512f"]}
    assert "Abacus (family 6, model 143: avx2, avx512f), 2 cores" in page([RECORD | {"machine": machine}])


def test_the_page_in_the_repository_is_that_of_its_records():
    assert PAGE.read_text(encoding="utf-8") == page(records()), "run make bench-report"
