"""`mlflow run . -e test`: the default test suite, in an environment free of this run's own."""

import os
import subprocess
import sys


def test() -> int:
    """Exit code of pytest. The tests make stores of their own, so MLflow's settings go away."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    command = [sys.executable, "-m", "pytest", "--numprocesses=auto", "--maxprocesses=4"]
    # A file of tests is one process's: its tests share a store.
    return subprocess.run([*command, "--dist=loadfile"], env=environment).returncode
