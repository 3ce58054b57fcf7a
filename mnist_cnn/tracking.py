"""Runs in MLflow: how one begins, what every verb logs alike, and how a failure is told."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import mlflow

from mnist_cnn.recipes import as_text

PACKAGES = ("mlflow", "tensorflow", "keras", "numpy")


@contextmanager
def tracked(verb: str, **parameters: Any) -> Iterator[mlflow.ActiveRun]:
    """A run of `verb` with its parameters; FAILED, with the reason as tag `failure`, on an error.

    Under `mlflow run` it is the run that MLflow has begun; inside another run it is nested.
    """
    nested = mlflow.active_run() is not None
    with mlflow.start_run(
        run_name=None if "MLFLOW_RUN_ID" in os.environ else verb, nested=nested
    ) as run:
        mlflow.set_tag("verb", verb)
        log_params(parameters)
        try:
            yield run
        except BaseException as error:
            mlflow.set_tag("failure", str(error) or type(error).__name__)
            raise


def log_params(parameters: dict[str, Any]) -> None:
    """Log parameters as a user would type them.

    `mlflow run -P` has logged some already as they were typed (1e-2), and a logged parameter
    cannot change (to 0.01): those stay.
    """
    run = mlflow.active_run()
    logged = mlflow.get_run(run.info.run_id).data.params
    mlflow.log_params({k: as_text(v) for k, v in parameters.items() if k not in logged})


def environment() -> dict[str, str | int]:
    """Versions of Python and of the packages that decide the numbers, and the cores in use."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
    }


def pinned(*packages: str) -> list[str]:
    """Requirements `name==version` of installed packages."""
    return [f"{name}=={version(name)}" for name in packages]
