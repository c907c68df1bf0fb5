"""``make compare``: every model on a folder of logs or on a simulated world, the models side by side in processes of their own.

It runs the task bodies of the DAGs, in their order, in the installation that ``make demo`` of the same data has. The same command again
finds what is done and computes what is missing.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

from deploy.local.environment import HOME, composed
from deploy.local.installation import Installation, installation, refuse_shared, sole_user
from deploy.local.narrator import Narrator
from mfn_core.config import SimulationConfig
from mfn_core.errors import ConfigError, MFNError
from mfn_core.training.worker import die_with

RESULTS = HOME / "benchmarks" / "results"
WORLDS: tuple[str, ...] = get_args(SimulationConfig.model_fields["world"].annotation)
_NAMED = 5
# As the variables of make compare call the fields of the form.
_VARIABLES = {"seeds": "SEEDS", "trials": "TRIALS", "models": "MODELS", "cut": "CUT", "max_minutes": "MINUTES", "recbole_scores": "RECBOLE"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        meant, name = _meant(options)
        with sole_user(meant):
            compare(meant, name, options)
    except MFNError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on where it was.", file=sys.stderr)
        return 130
    return 0


def compare(meant: Installation, name: str, options: argparse.Namespace) -> None:
    """Compare the models on the data of an installation, and put rows, table and chart under ``benchmarks/results``.

    Raises:
        MFNError: a model could not be measured.
    """
    # One thread a model: more models at once are faster, and sums come in one order.
    os.environ.update({**composed(meant.var), **meant.variables, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    from tasks import compare as task
    from tasks import storage
    from tasks.build_dataset import build_dataset
    from tasks.settings import load_settings

    settings, config, say = load_settings(), _config(options), Narrator().say
    _ingest(settings, options.world, say)
    say("building the dataset")
    planned = task.plan(settings, config)
    dataset = build_dataset(settings, config, planned, mask_seen=config.mask_seen)
    say(f"dataset {dataset['uri']}")
    items = task.line_up(settings, config, dataset)
    measured = _measure(settings, config, dataset, items, options.jobs, say)
    say("resampling the test users")
    made = task.report(settings, config, dataset, measured, {}, f"{name}: comparison of models")
    folder = storage.local_folder(made["uri"], settings.scratch)
    options.results.mkdir(parents=True, exist_ok=True)
    for file in (task.JSON_FILE, task.MARKDOWN_FILE, task.CHART_FILE):
        shutil.copyfile(folder / file, options.results / f"compare-{name}{Path(file).suffix}")
    print(f"\n{(options.results / f'compare-{name}.md').read_text()}")
    say(f"written to {options.results / f'compare-{name}'}.json, .md and .png")


def _ingest(settings: Any, world: str | None, say: Callable[[str], None]) -> None:
    """Raw to curated and validated, as the DAGs do it."""
    from mfn_core.schema import LOGS
    from tasks.dag_configs import IngestConfig, ValidateConfig
    from tasks.ingest import ingest_chunk
    from tasks.ingest_plan import plan_ingest
    from tasks.ingest_users import ingest_users
    from tasks.simulate import simulate
    from tasks.validate import validate_range
    from tasks.validated import days_to_validate

    if world is not None:
        say(f"simulating the world {world}")
        simulate(settings, SimulationConfig(world=world))
    for view in settings.views:
        say(f"ingesting {LOGS[view].dataset}")
        for chunk in plan_ingest(settings, LOGS[view], None, None, IngestConfig().days_per_chunk):
            ingest_chunk(settings, LOGS[view], date.fromisoformat(chunk["first_day"]), date.fromisoformat(chunk["last_day"]))
    say("ingesting users, validating days")
    ingest_users(settings)
    validate_range(settings, days_to_validate(settings, ValidateConfig()), ValidateConfig())


def _measure(
    settings: Any, config: Any, dataset: dict[str, Any], items: list[dict[str, Any]], jobs: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Manifests in the order of ``items``.

    Raises:
        MFNError: some failed; the others are measured all the same.
    """
    from tasks.compare import measure

    say(f"measuring {len(items)} models and seeds, {jobs} at a time")
    done: dict[int, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    # Models train for hours: they must not outlive whoever asked for them, however that ends.
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=die_with, initargs=(os.getpid(),)) as pool:
        futures: dict[Future[dict[str, Any]], int] = {
            pool.submit(measure, settings, config, dataset, item): place for place, item in enumerate(items)
        }
        try:
            for future in as_completed(futures):
                place = futures[future]
                name = f"{items[place]['model']} of seed {items[place]['seed']}"
                try:
                    done[place] = future.result()
                    say(f"{len(done)}/{len(items)} {name}: {_figures(done[place]['facts'])}")
                except Exception as error:  # whatever it is: hours of the other models must not be lost with it
                    failed[name] = f"{type(error).__name__}: {error}"
                    say(f"failed: {name}: {failed[name]}")
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        named = "\n".join(f"{name}: {why}" for name, why in list(failed.items())[:_NAMED])
        raise MFNError(f"{len(failed)} of {len(items)} failed; the same command computes these alone.\n{named}")
    return [done[place] for place in range(len(items))]


def _figures(facts: Mapping[str, Any]) -> str:
    from tasks.comparison.statistics import MAIN_METRICS

    shown = [
        f"{label} {metric} {'undefined' if figures[metric] is None else f'{figures[metric]:.4f}'}"
        for task, labels in facts["figures"].items()
        for label, figures in labels.items()
        for metric in MAIN_METRICS[task]
    ]
    return f"{', '.join(shown)} ({facts['seconds']:.0f} s)"


def _config(options: argparse.Namespace) -> Any:
    from tasks.config_errors import config_of
    from tasks.dag_configs import CompareConfig

    given = {
        "seeds": options.seeds,
        "trials": options.trials,
        "models": options.models.split(",") if options.models else None,
        "cut": options.cut,
        "max_minutes": options.minutes,
        "recbole_scores": None if options.recbole is None else str(options.recbole.resolve()),
    }
    named = {name: value for name, value in given.items() if value is not None}
    return config_of(
        CompareConfig, named | dict(options.set), "Run the command again with other values", lambda field: _VARIABLES.get(field, field)
    )


def _meant(options: argparse.Namespace) -> tuple[Installation, str]:
    """The installation, and the name of its data in the results; a cut that was asked for is part of the name."""
    if (options.data is None) == (options.world is None):
        raise ConfigError(f"give either DATA=<folder of logs> or WORLD=<{'|'.join(WORLDS)}>")
    suffix = f"-{options.cut}" if options.cut else ""
    if options.world is None:
        meant = installation(options.data)
        return meant, options.data.resolve().name + suffix
    refuse_shared(f"WORLD={options.world}")
    of_settings = installation(None)
    meant = Installation(of_settings.root, of_settings.root / "worlds" / options.world, None, of_settings.views)
    return meant, f"sim-{options.world}{suffix}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder that follows the data contract")
    parser.add_argument("--world", choices=WORLDS, help="a simulated world instead")
    parser.add_argument("--seeds", type=int, help="runs of every model")
    parser.add_argument("--models", help="names, separated by commas; all by default")
    parser.add_argument("--trials", type=int, help="settings that each classical rival tries")
    parser.add_argument("--cut", help="day of the cut")
    parser.add_argument("--minutes", type=float, help="limit of each network's training")
    parser.add_argument("--recbole", type=Path, help="folder of what RecBole's runs on this dataset wrote")
    parser.add_argument("--jobs", type=int, default=2, help="models at a time, one thread each")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows, table and chart go")
    parser.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="NAME=VALUE", help="any other field of the form of mfn_compare"
    )
    return parser


def _setting(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
