"""``make demo``: the whole job through the real DAGs, in this one process, on a simulated world or on a folder of logs."""

import argparse
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from deploy.local.environment import AIRFLOW_PORT, HOME, MLFLOW_PORT, bootstrapped
from deploy.local.installation import Installation, installation, sole_user
from deploy.local.narrator import Narrator
from deploy.local.processes import Processes
from mfn_core.errors import ConfigError, MFNError
from mfn_core.schema import LOGS, View

# What the training of a demo may take: somebody waits for it. All other settings are the defaults.
_SIMULATED_MINUTES = 1.5
_LEAST_MINUTES, _MOST_MINUTES = 4, 12
_ROWS_PER_MINUTE = 100_000

_STAGES = {
    "simulate": ("mfn_simulate", "simulate"),
    "ingest_app_logs": ("mfn_ingest_app_logs", "ingest"),
    "ingest_item_logs": ("mfn_ingest_item_logs", "ingest"),
    "ingest_users": ("mfn_ingest_users", "ingest"),
    "validate": ("mfn_validate", "validate"),
    "build_dataset": ("mfn_train", "build_dataset"),
    "train": ("mfn_train", "train"),
    "evaluate": ("mfn_train", "evaluate"),
    "register": ("mfn_train", "register"),
    "promote": ("mfn_promote", "promote"),
    "score": ("mfn_score", "score"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder that follows the data contract; without it a world is simulated")
    options = parser.parse_args(arguments)
    try:
        meant = installation(options.data)
        with sole_user(meant):
            demo(meant)
    except MFNError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on where it was.", file=sys.stderr)
        return 130
    return 0


def demo(meant: Installation) -> None:
    """Run every DAG of an installation once, in order, and print what came out.

    Raises:
        ConfigError: the services of the installation are running.
        DagFailedError: a task failed.
    """
    if Processes(meant.var / "run").members():
        raise ConfigError(f"the services of {meant.var} are running: their scheduler would run the same tasks. First: make down")
    started = time.monotonic()
    _introduce(meant)
    log = meant.var / "demo.log"
    with _frameworks_to(log) as terminal:
        try:
            ending = _run(meant, Narrator(terminal, started))
        except Exception as error:
            traceback.print_exc()
            name = "" if isinstance(error, MFNError) else f"{type(error).__name__}: "
            raise MFNError(f"{name}{error}\nThe whole story: {log}") from error
    print(f"\n{ending}\n\nDone in {time.monotonic() - started:.0f} s. The same command again does only what is new.")


def _run(meant: Installation, narrator: Narrator) -> str:
    narrator.say("preparing the metadata database")
    os.environ.update({**bootstrapped(meant.var), **meant.variables})
    narrator.say("starting Airflow")
    # Not before the environment stands: Airflow reads it when it is imported.
    from deploy.local.in_process import InProcessDags

    logging.getLogger("tasks.train").addHandler(narrator)
    dags = InProcessDags(HOME / "dags", narrator.say)
    for dag_id, conf in _plan(meant):
        dags.run(dag_id, conf)
    return _ending(meant, dags)


def _plan(meant: Installation) -> Iterator[tuple[str, dict[str, Any]]]:
    if meant.data is None:
        yield "mfn_simulate", {}
    for view in meant.views:
        yield f"mfn_ingest_{LOGS[view].dataset}", {}
    yield "mfn_ingest_users", {}
    yield "mfn_validate", {}
    yield "mfn_train", {"max_minutes": _SIMULATED_MINUTES if meant.data is None else _minutes(meant)}
    yield "mfn_promote", {}
    yield "mfn_score", {}


def _minutes(meant: Installation) -> float:
    """More rows, more minutes; the same folder always the same: the limit is part of what makes two runs equal."""
    from pyarrow import dataset

    logs = [LOGS[view].dataset for view in meant.views]
    paths = [path for log in logs for path in (meant.data / log, meant.data / f"{log}.parquet") if path.exists()]
    rows = sum(dataset.dataset(path, format="parquet").count_rows() for path in paths)
    return min(_MOST_MINUTES, _LEAST_MINUTES + rows // _ROWS_PER_MINUTE)


def _ending(meant: Installation, dags: Any) -> str:
    from deploy.local.summary import measurements, summary, table
    from tasks.settings import load_settings
    from tasks.tracking import registry

    registration = dags.output("mfn_train", "register")
    if registration is None:
        raise ConfigError(f"a model is registered, but its Airflow run is gone; delete {meant.var} to begin again")
    outputs: dict[str, Any] = {}
    for stage, (dag_id, task_id) in _STAGES.items():
        output = dags.output(dag_id, task_id, registration.run_id if dag_id == registration.dag_id else None)
        if output is not None:
            outputs[stage] = output
    evaluations, (dataset,), (registered,) = (outputs[stage].values for stage in ("evaluate", "build_dataset", "register"))
    version = registry.require_version(load_settings(), registered["version"])
    measured = measurements(evaluations)
    content = summary(measured, dataset, registered, version.aliases, outputs)
    file = meant.root / "summary.json"
    file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    aliases = f", alias {' and '.join(version.aliases)}" if version.aliases else ", no alias: the gate kept the champion"
    return "\n".join(
        [
            table(measured),
            *(f"left out: {task}, because {why}" for task, why in content["skipped"].items()),
            "",
            f"Registered model   {registered['name']} version {registered['version']}{aliases}",
            f"Summary            {file}",
            f"Airflow UI         make up{meant.argument}, then http://127.0.0.1:{AIRFLOW_PORT}",
            f"MLflow UI          make up{meant.argument}, then http://127.0.0.1:{MLFLOW_PORT}",
        ]
    )


def _introduce(meant: Installation) -> None:
    if meant.data is None:
        print("Demo on a simulated world: raw logs to a registered model, through the DAGs of dags/", flush=True)
        return
    print(f"Demo on {meant.data}: raw logs to a registered model, through the DAGs of dags/", flush=True)
    absent: list[View] = [view for view in LOGS if view not in meant.views]
    for view in absent:
        print(f"The {view} view is left out: there are no {LOGS[view].dataset} in the folder", flush=True)


@contextmanager
def _frameworks_to(log: Path) -> Iterator[TextIO]:
    """Send all that this process and its children print to a file; yields the terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("ab") as file, os.fdopen(os.dup(1), "w") as terminal:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in enumerate(kept, start=1):
                os.dup2(original, descriptor)
                os.close(original)


if __name__ == "__main__":
    sys.exit(main())
