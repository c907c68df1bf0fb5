"""The judge: a Great Expectations suite judges a frame of metrics, and the verdict goes to Data Docs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mfn_core.errors import AuditError
from tasks import locks, storage
from tasks.settings import Settings

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.data_context import EphemeralDataContext

_SITE = "mfn"
_RESULTS_KEPT = 100
_ROWS_NAMED = 3

_log = logging.getLogger(__name__)
# Great Expectations logs hundreds of lines at INFO while it is imported, which would bury ours in a task log.
logging.getLogger("great_expectations").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Verdict:
    """What a suite said of a frame of metrics."""

    suite: str
    success: bool
    expectations: int
    critical: tuple[str, ...]
    warnings: tuple[str, ...]
    docs: str

    def as_fact(self) -> dict[str, Any]:
        """The JSON form for a manifest."""
        return {**asdict(self), "critical": list(self.critical), "warnings": list(self.warnings)}


def judge(frame: pd.DataFrame, suite: "ExpectationSuite", name: str, settings: Settings) -> Verdict:
    """Judge a frame of metrics, keep the result under ``<var>/data_docs``, and stop on a critical failure.

    Args:
        frame: one row per thing judged; its first column names the row.
        suite: of ``expectations.<module>.suite(...)``.
        name: of the run in Data Docs.
        settings: of the installation.

    Returns:
        The verdict; its warnings are logged.

    Raises:
        AuditError: an expectation of severity critical failed; says which, the values found, and where to read on.
    """
    with _context(settings) as context:
        result, docs = _validate(context, frame, suite, name, settings)
    failed = [each for each in result.results if not each.success]
    said = [(str(each.expectation_config.severity.value), _sentence(each, frame)) for each in failed]
    verdict = Verdict(
        suite=str(result.suite_name),
        success=not any(severity == "critical" for severity, _ in said),
        expectations=len(result.results),
        critical=tuple(sentence for severity, sentence in said if severity == "critical"),
        warnings=tuple(sentence for severity, sentence in said if severity != "critical"),
        docs=docs,
    )
    for warning in verdict.warnings:
        _log.warning("%s: %s", name, warning)
    if not verdict.success:
        raise AuditError(
            f"{name}: {len(verdict.critical)} of {verdict.expectations} expectations of suite {verdict.suite} failed critically: "
            f"{'; '.join(verdict.critical)}. Nothing is published. Report: {docs}"
        )
    return verdict


@contextmanager
def _context(settings: Settings) -> Iterator["EphemeralDataContext"]:
    """A context that keeps results and Data Docs in files, for one process of this machine at a time."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, ProgressBarsConfig

    with locks.taken(settings, "audit"):
        in_memory = {"class_name": "InMemoryStoreBackend"}
        results = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(_results(settings))}
        docs = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(settings.var / "data_docs")}
        stores = {
            "expectations_store": {"class_name": "ExpectationsStore", "store_backend": in_memory},
            "validation_results_store": {"class_name": "ValidationResultsStore", "store_backend": results},
            "checkpoint_store": {"class_name": "CheckpointStore", "store_backend": in_memory},
            "validation_definition_store": {"class_name": "ValidationDefinitionStore", "store_backend": in_memory},
        }
        config = DataContextConfig(
            stores=stores,
            **{f"{name}_name": name for name in ("expectations_store", "validation_results_store", "checkpoint_store")},
            data_docs_sites={
                _SITE: {
                    "class_name": "SiteBuilder",
                    "show_how_to_buttons": False,
                    "store_backend": docs,
                    "site_section_builders": {key: {"view": _view(settings, "PageView")} for key in ("expectations", "validations")},
                    "site_index_builder": {
                        "module_name": "tasks.data_docs",
                        "class_name": "IndexBuilder",
                        "validation_results_limit": _RESULTS_KEPT,
                        "view": _view(settings, "IndexPageView"),
                    },
                }
            },
            progress_bars=ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        )
        yield gx.get_context(mode="ephemeral", project_config=config)
        _forget_old_results(settings)


def _view(settings: Settings, name: str) -> dict[str, str]:
    """A class of ``tasks.data_docs``, by name."""
    compiled = settings.var / "data_docs_templates"
    compiled.mkdir(exist_ok=True)
    return {"module_name": "tasks.data_docs", "class_name": name, "compiled": str(compiled)}


def _validate(
    context: "EphemeralDataContext", frame: pd.DataFrame, suite: "ExpectationSuite", name: str, settings: Settings
) -> "tuple[ExpectationSuiteValidationResult, str]":
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction

    batch = context.data_sources.add_pandas("metrics").add_dataframe_asset("frame").add_batch_definition_whole_dataframe("whole")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite)))
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[definition],
        actions=[UpdateDataDocsAction(name="data docs", site_names=[_SITE])],
        result_format={"result_format": "SUMMARY", "unexpected_index_column_names": [str(frame.columns[0])]},
    )
    run = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame}, run_id=gx.RunIdentifier(run_name=name))
    ((identifier, result),) = run.run_results.items()
    for each in result.results:
        said = each.exception_info
        raised = [said] if "raised_exception" in said else list(said.values())
        assert not any(one["raised_exception"] for one in raised), f"suite {suite.name} does not fit its frame: {raised}"
    page = "/".join(("validations", *identifier.to_tuple()))
    return result, storage.join(str(settings.var / "data_docs"), f"{page}.html")


def _sentence(failed: "ExpectationValidationResult", frame: pd.DataFrame) -> str:
    """What was found where, what was expected, and what to do about it.

    Every expectation gives the last by ``meta={"remedy": text}``; ``meta={"detail": column}`` names the column that explains the row.
    """
    configuration = failed.expectation_config
    kwargs, found = configuration.kwargs, failed.result
    column, key = kwargs["column"], frame.columns[0]
    rows = [str(row[key]) for row in found.get("partial_unexpected_index_list") or ()][:_ROWS_NAMED]
    values = ", ".join(str(value) for value in found.get("partial_unexpected_list", ())[:_ROWS_NAMED]) or found.get("observed_value")
    count = found.get("unexpected_count", 1)
    where = f" at {key} {', '.join(rows)}" if rows and column != key else ""
    more = f" and {count - len(rows)} more" if count > len(rows) > 0 else ""
    meta = configuration.meta or {}
    assert "remedy" in meta, f"{configuration.type} of {column} has no remedy"
    details = frame.loc[frame[key].astype(str).isin(rows), meta["detail"]] if "detail" in meta else ()
    detail = "".join(f" ({text})" for text in details)
    return f"{column} = {values}{where}{detail}{more}, expected {_limit(configuration.type, kwargs)} ({meta['remedy']})"


def _limit(kind: str, kwargs: dict[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and low == high:
        return f"{low:g}"
    bounds = [f"{word} {value:g}" for word, value in (("at least", low), ("at most", high)) if value is not None]
    return " and ".join(bounds) or kind.removeprefix("expect_column_values_to_").replace("_", " ")


def _results(settings: Settings) -> Path:
    return settings.var / "validation_results"


def _forget_old_results(settings: Settings) -> None:
    """The index of Data Docs reads every stored result: keep it short. The pages themselves stay."""
    stored = sorted(_results(settings).rglob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in stored[_RESULTS_KEPT:]:
        path.unlink()
