"""Runs in MLflow: how one begins, what every verb logs alike, and how a failure is told."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import mlflow
import psutil

from mnist_cnn.recipes import as_text

MACHINE = f"{platform.node()}-{uuid.getnode():x}"  # one host name may stand for several machines
PACKAGES = ("mlflow", "tensorflow", "keras", "numpy")


@contextmanager
def tracked(verb: str, **parameters: Any) -> Iterator[mlflow.ActiveRun]:
    """A run of `verb` with its parameters; FAILED, with the reason as tag `failure`, on an error.

    Under `mlflow run` it is the run that MLflow has begun; inside another run it is nested.
    """
    nested = mlflow.active_run() is not None
    if not nested:
        _bury_the_dead()
    with mlflow.start_run(
        run_name=None if "MLFLOW_RUN_ID" in os.environ else verb,
        nested=nested,
        # From the first moment: a kill must not leave a run that nobody can name.
        tags={"verb": verb, "process": process_name()},
    ) as run:
        log_params(parameters)
        try:
            yield run
        except BaseException as error:
            mlflow.set_tag("failure", str(error) or type(error).__name__)
            raise


def process_name(pid: int | None = None) -> str:
    """Machine, number and start of a process (by default this one): never given again.

    Empty if there is no such process.
    """
    try:
        return f"{MACHINE} {pid or os.getpid()} {psutil.Process(pid).create_time():.0f}"
    except psutil.NoSuchProcess:
        return ""


def _bury_the_dead() -> None:
    """Mark as KILLED the runs that a process of this machine left RUNNING when it was killed."""
    running = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"attributes.status = 'RUNNING' and tags.process LIKE '{MACHINE} %'",
        output_format="list",
    )
    for run in running:
        process = run.data.tags["process"]
        if process_name(int(process.split()[-2])) != process:
            mlflow.MlflowClient().set_terminated(run.info.run_id, "KILLED")


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
        "cores": cores(),
    }


def cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pinned(*packages: str) -> list[str]:
    """Requirements `name==version` of installed packages."""
    return [f"{name}=={version(name)}" for name in packages]
