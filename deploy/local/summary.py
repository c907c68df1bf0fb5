"""What a demo ends with: ``summary.json`` and the table. Every figure is one that a task returned."""

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.local.in_process import Output

Measured = Mapping[str, Mapping[str, Any]]


def measurements(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Figures of each label by its printed name: ``activity``, ``attribute gender``, ``recommendation``."""
    from tasks.evaluate import labelled_facts

    return {
        evaluation["facts"]["task"] if label == evaluation["facts"]["task"] else f"{evaluation['facts']['task']} {label}": facts
        for evaluation in evaluations
        for label, facts in labelled_facts(evaluation["facts"]).items()
    }


def summary(
    measured: Measured, dataset: Mapping[str, Any], registered: Mapping[str, Any], aliases: Sequence[str], outputs: Mapping[str, Output]
) -> dict[str, Any]:
    """The content of ``summary.json``.

    Args:
        measured: see ``measurements``.
        dataset: the manifest of the dataset.
        registered: what ``register`` returned.
        aliases: of the registered version, now.
        outputs: of every stage, by its name.
    """
    downstream: dict[str, Any] = {}
    for name, facts in measured.items():
        task, _, label = name.partition(" ")
        figures = {**facts["metrics"], "n": facts["n"], "baseline": facts["baseline"]}
        if label:
            downstream.setdefault(task, {})[label] = figures
        else:
            downstream[task] = figures
    return {
        "downstream": downstream,
        "skipped": dataset["facts"]["skipped"],
        "model": {"name": registered["name"], "version": registered["version"], "aliases": list(aliases)},
        "dataset": {**dataset["rows"], "cut": dataset["facts"]["cut_time"], "horizon": dataset["facts"]["horizon_days"]},
        "runs": {"mlflow": registered["run_id"], "airflow": {output.dag_id: output.run_id for output in outputs.values()}},
        "seconds": {stage: round(output.seconds, 1) for stage, output in outputs.items()},
    }


def table(measured: Measured) -> str:
    """The downstream tasks, their figures with 95 % intervals, and the trivial baseline's beside them."""
    rows = [("downstream task", "n", "figure", "model", "95 % interval", "baseline")]
    for name, facts in measured.items():
        for number, figure in enumerate(facts["metrics"]):
            head = (name, f"{facts['n']:,}") if number == 0 else ("", "")
            interval = facts["intervals"].get(figure)
            span = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
            rows.append((*head, figure, _shown(facts["metrics"][figure]), span, _shown(facts["baseline"].get(figure))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<><><>", widths, strict=True))
    head, *body = [line.format(*row).rstrip() for row in rows]
    return "\n".join([head, "-" * sum(widths, 2 * len(widths) - 2), *body])


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
