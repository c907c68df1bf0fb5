"""Pictures of what the smallest data give."""

from pathlib import Path

import matplotlib.image
import numpy as np

from tasks import plots


def test_classes_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    curve = (np.array([0, 1]), np.array([0.1, 0.9]))
    drawn = {}
    for name in ("$50%_$", "50%_"):
        plots.discrimination({name: curve, "other": curve}, "Income", tmp_path / "income.png")
        drawn[name] = matplotlib.image.imread(tmp_path / "income.png")
    assert not np.array_equal(*drawn.values()), "the dollars are drawn"


def test_categories_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    plots.alignment_atlas(np.array([[0.1, 0.2], [0.3, 0.4]]), ["under $5_$", "books"], ["$3_$", "film"], tmp_path / "atlas.png")
    assert matplotlib.image.imread(tmp_path / "atlas.png").std() > 0


def test_one_user_alone_is_drawn(tmp_path: Path) -> None:
    plots.embedding_map(np.ones((1, 4)), {"active": np.array([True])}, tmp_path / "map.png")
    assert matplotlib.image.imread(tmp_path / "map.png").std() > 0
