"""The import contracts speak of every package that there is; ``lint-imports`` holds the packages to them."""

import tomllib
from pathlib import Path

HOME = Path(__file__).parents[1]
IMPORT_LINTER = tomllib.loads((HOME / "pyproject.toml").read_text())["tool"]["importlinter"]
OUTSIDE = {"tests", "benchmarks"}


def test_every_package_has_its_layer() -> None:
    packages = {file.parent.name for file in HOME.glob("*/*.py")} - OUTSIDE
    layers = next(
        contract["layers"] for contract in IMPORT_LINTER["contracts"] if "containers" not in contract and contract["type"] == "layers"
    )

    assert packages == set(layers) == set(IMPORT_LINTER["root_packages"])
