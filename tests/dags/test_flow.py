"""The picture in the README is the one that the DAGs draw."""

import re
import subprocess
import sys

from deploy.local.environment import HOME


def test_the_readme_shows_the_flow_of_the_dags():
    drawn = subprocess.run([sys.executable, "-m", "deploy.local.flow"], cwd=HOME, capture_output=True, text=True, check=True).stdout
    shown = re.search(r"```mermaid\n(.*?)```", (HOME / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1] == drawn, "run `make picture` and paste what it prints into README.md"
