"""How well the alignment atlas recovers a planted correspondence of categories: run after ``make compare WORLD=correspondence``.

The world is simulated again for what was planted; the atlases are those that the comparison drew, one a seed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks import record
from benchmarks.rounds import of_atlas, typical
from mfn_core.config import SimulationConfig
from mfn_core.data.dataset import Dataset
from mfn_core.data.vocabulary import Vocabulary
from mfn_core.schema import FIRST_KNOWN
from mfn_core.simulation import simulate
from tasks.comparison.atlas import PARTS


def main() -> None:
    arguments = _parser().parse_args()
    results = sorted(arguments.world.glob("store/comparisons/*/mfn/*/result.json"))
    if not results:
        raise SystemExit(f"{arguments.world}: no atlas of the network; run make compare WORLD=correspondence MODELS=mfn first")
    rounds = [_correlations(arguments.world, result) for result in results]
    figures = {"atlas_seeds": len(rounds), **typical(of_atlas(rounds))}
    for part in PARTS:
        figures[f"atlas_{part}_planted_spearman_lowest"] = min(each[part] for each in rounds)
    record.write("atlas", figures, rounds, ["torch", "numpy", "scipy"], ["one round is one seed of the default network; rank correlation"])


def _correlations(world: Path, result: Path) -> dict[str, float]:
    measured = json.loads(result.with_name("manifest.json").read_text(encoding="utf-8"))
    (digest,) = measured["inputs"].values()
    vocabularies = Dataset.open(world / "store" / "datasets" / digest[:16]).vocabularies
    planted = _planted(world, vocabularies.macro_category, vocabularies.micro_category)
    drawn: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))["atlas"]
    found: dict[str, float] = {"seed": measured["facts"]["seed"]}
    for part in PARTS:
        values = np.array(drawn[part], float)  # None, of categories that meet in no user, becomes NaN
        is_drawn = ~np.isnan(values)
        found[part] = float(stats.spearmanr(values[is_drawn], planted[is_drawn]).statistic)
    return found


def _planted(world: Path, macro: Vocabulary, micro: Vocabulary) -> NDArray[np.float64]:
    """Strength of every pair of categories, app categories first, in the order of the atlas."""
    config = json.loads((world / "raw" / "simulation.json").read_text(encoding="utf-8"))["config"]
    rows = simulate(SimulationConfig(**config)).correspondence.to_pylist()
    strengths = {(row["app_category"], row["item_category"]): row["strength"] for row in rows}
    return np.array([strengths[app, item] for app in _names(macro) for item in _names(micro)])


def _names(vocabulary: Vocabulary) -> list[str]:
    return [str(name) for name in vocabulary.decode(np.arange(FIRST_KNOWN, len(vocabulary)))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, default=Path("var/worlds/correspondence"), help="the installation of the comparison")
    return parser


if __name__ == "__main__":
    main()
