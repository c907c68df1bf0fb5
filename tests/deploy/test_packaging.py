"""What an installation is made of: constraints that hold on every machine, and a make that anybody can read."""

import os
import re
import subprocess
import tomllib

import pytest

from deploy.local.environment import HOME

CONSTRAINTS = (HOME / "constraints.txt").read_text().splitlines()
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]


def make(*arguments: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "-C", str(HOME), *arguments], env=environment | variables, capture_output=True, text=True, check=True
    ).stdout


def test_every_constraint_is_one_exact_public_version() -> None:
    assert [line for line in CONSTRAINTS if not re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line)] == []


def test_no_constraint_names_a_cuda_package() -> None:
    assert [line for line in CONSTRAINTS if line.startswith(("nvidia-", "cuda-", "triton"))] == []


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_every_dependency_has_its_exact_version(dependency: str) -> None:
    name = re.match(r"[A-Za-z0-9-]+", dependency).group()

    assert [line for line in CONSTRAINTS if line.startswith(f"{name}==")] != []


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_every_dependency_has_a_lower_bound(dependency: str) -> None:
    assert ">=" in dependency


def test_make_alone_lists_the_targets() -> None:
    listed = re.findall(r"^  make ([\w-]+)", make(), flags=re.MULTILINE)

    measures = ["train", "peers", "whole", "etl", "audit", "eval", "serve", "step", "scale", "gpu"]
    benchmarks = ["bench-peers-env", *(f"bench-{name}" for name in measures), "bench-report"]
    assert listed == ["help", "install", "demo", "compare", "test", "check", *benchmarks, "up", "down", "constraints", "picture", "clean"]


def test_wheels_offered_to_pip_are_offered_to_uv() -> None:
    planned = make("--dry-run", "--always-make", "install", PIP_FIND_LINKS="/wheels /more")

    assert 'UV_FIND_LINKS="/wheels,/more" .venv/bin/uv pip install' in planned


def test_without_such_wheels_uv_is_told_nothing() -> None:
    assert "UV_FIND_LINKS" not in make("--dry-run", "--always-make", "install")
