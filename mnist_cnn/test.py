"""`mlflow run . -e test`: the default test suite, in an environment free of this run's own."""

import os
import subprocess
import sys


def test() -> int:
    """Exit code of pytest. The tests make stores of their own, so MLflow's settings go away."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    # The tests start many processes: without kept bytecode each compiles TensorFlow anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # A file of tests is one process's: its tests share a store.
    side_by_side = ["--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *side_by_side], env=environment
    ).returncode
