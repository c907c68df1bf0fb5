"""What a task need not wait for."""

import subprocess
import sys

WITHOUT_NETWORK = ("simulate", "ingest_plan", "ingest", "ingest_users", "validated", "validate", "plan", "build_dataset")


def test_tasks_without_a_network_import_no_torch() -> None:
    lines = ["import sys", *(f"import tasks.{name}; print('{name}', 'torch' in sys.modules)" for name in WITHOUT_NETWORK)]

    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [f"{name} False" for name in WITHOUT_NETWORK]
