"""Pictures of what the smallest data give."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.text import Text

from tasks import plots


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    saved: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: (saved.append(figure), save(figure, path))[1])
    return saved


def as_drawn(labels: list[Text]) -> list[str]:
    """What a reader sees: a formula is told as one."""
    return ["formula" if is_math_text(label.get_text()) else label.get_text().replace(r"\$", "$") for label in labels]


def test_classes_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    curve = (np.array([0, 1]), np.array([0.1, 0.9]))
    drawn = {}
    for name in ("$50%_$", "50%_"):
        plots.discrimination({name: curve, "other": curve}, "Income", tmp_path / "income.png")
        drawn[name] = matplotlib.image.imread(tmp_path / "income.png")
    assert not np.array_equal(*drawn.values()), "the dollars are drawn"


def test_categories_with_dollars_are_no_formulas(figures: list[Figure], tmp_path: Path) -> None:
    plots.alignment_atlas(np.array([[0.1, 0.2], [0.3, 0.4]]), ["under $5_$", "books"], ["$3_$", "film"], tmp_path / "atlas.png")
    axes = figures[0].axes[0]
    assert as_drawn(axes.get_yticklabels()) == ["under $5_$", "books"]
    assert as_drawn(axes.get_xticklabels()) == ["$3_$", "film"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("app category", "item category")
    assert np.array_equal(axes.images[0].get_array(), [[0.1, 0.2], [0.3, 0.4]])


def test_one_user_alone_is_drawn(figures: list[Figure], tmp_path: Path) -> None:
    plots.embedding_map(np.ones((1, 4)), {"active": np.array([True])}, tmp_path / "map.png")
    axes = figures[0].axes[0]
    assert figures[0].get_suptitle() == "User embeddings (n = 1)"
    assert as_drawn(axes.get_legend().get_texts()) == ["active (1)"]
    assert axes.collections[0].get_offsets().tolist() == [[0, 0]]
    assert (tmp_path / "map.png").stat().st_size > 0
