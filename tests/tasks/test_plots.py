"""Pictures of what the smallest data give."""

from pathlib import Path

import matplotlib.image
import numpy as np

from tasks import plots


def test_one_user_alone_is_drawn(tmp_path: Path) -> None:
    plots.embedding_map(np.ones((1, 4)), {"active": np.array([True])}, tmp_path / "map.png")
    assert matplotlib.image.imread(tmp_path / "map.png").std() > 0
