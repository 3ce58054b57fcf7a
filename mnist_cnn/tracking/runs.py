"""Runs in MLflow: how one begins, what every verb logs alike, and how a failed one ends."""

import logging
import os
import platform
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from tempfile import gettempdir
from typing import Any, cast

import mlflow
import psutil
from filelock import FileLock
from mlflow import environment_variables as settings
from mlflow.utils.file_utils import local_file_uri_to_path

from mnist_cnn.learning.data import UNUSABLE, cache_folder
from mnist_cnn.recipes import as_text
from mnist_cnn.tracking.failures import no_retries, to_user_error

MACHINE = f"{platform.node()}-{uuid.getnode():x}"  # one host name may stand for several machines
PACKAGES = ("mlflow", "tensorflow", "keras", "numpy")
PROCESS = "mlflow.mnist_cnn.process"  # a tag; MLflow's UI hides those that begin so
# Metrics that a nested run hands on to its parent, so that the table of runs shows them.
HEADLINES = """val_accuracy train_seconds test_accuracy robust_accuracy
    tfjs_agreement tfjs_gzip_bytes drawn_accuracy""".split()

if "MLFLOW_LOGGING_LEVEL" not in os.environ:
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # what it informs of, we say ourselves
    # That an environment made by uv has no pip, and a user in a container no name.
    for name in ("mlflow.utils.environment", "mlflow.tracking.context.registry"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def tracked(verb: str, **parameters: Any) -> Iterator[mlflow.ActiveRun]:
    """A run of `verb` with its parameters; FAILED, with the reason as tag `failure`, on an error.

    Under `mlflow run` it is the run that MLflow has begun; inside another run it is nested, and its
    HEADLINES become metrics of that run too. Raises UserError where server, store or disk fail.
    """
    settings.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # control codes, in a pipe too
    settings.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)  # of every run; ours is below
    nested = mlflow.active_run() is not None
    try:
        if not nested:
            cache_folder().mkdir(parents=True, exist_ok=True)
            # An answer now, not in four minutes; one at a time, or two make a new store's tables.
            with no_retries(), FileLock(cache_folder() / "store.lock"):
                try:  # the registry first: at the end of a training it is too late
                    mlflow.MlflowClient().search_registered_models(max_results=1)
                except ModuleNotFoundError as error:  # the driver of that kind of database
                    raise mlflow.MlflowException(str(error)) from None
                close_orphaned_runs()
        tags = {"verb": verb, PROCESS: process_name()}  # at once, for a kill leaves them
        name = None if "MLFLOW_RUN_ID" in os.environ else verb
        with start_run(run_name=name, nested=nested, tags=tags) as run:
            log_params(parameters)
            yield run
            if nested:
                metrics = mlflow.get_run(run.info.run_id).data.metrics
                found = {name: metrics[name] for name in HEADLINES if name in metrics}
                mlflow.log_metrics(found, run_id=run.data.tags["mlflow.parentRunId"])
            told = "" if nested else f"See it all: {ui_address()}\n"
        print(told, end="", flush=True)
    except Exception as error:
        raise to_user_error(error) from error.__cause__


@contextmanager
def start_run(**how: Any) -> Iterator[mlflow.ActiveRun]:
    """`mlflow.start_run`, which on an error tags its reason, and waits for no lost server twice."""
    with mlflow.start_run(**how) as run:
        try:
            yield run
        except BaseException as error:
            # A failed write has no name: a full disk is the one with the least space.
            if isinstance(error, OSError) and error.errno in UNUSABLE and not error.filename:
                artifacts = local_file_uri_to_path(run.info.artifact_uri)
                folders = filter(os.path.isdir, (artifacts, gettempdir(), str(cache_folder())))
                error.filename = min(folders, key=lambda folder: psutil.disk_usage(folder).free)
            told = to_user_error(error)
            with no_retries(), suppress(mlflow.MlflowException):
                try:
                    mlflow.set_tag("failure", str(told) or type(told).__name__)
                except mlflow.MlflowException:  # a lost server: its run is given up at once
                    mlflow.end_run("FAILED")
            raise


def active_run() -> mlflow.ActiveRun:
    """The run that is being written."""
    return cast(mlflow.ActiveRun, mlflow.active_run())


def name_run(name: str) -> None:
    """Name the active run, if its user has not."""
    run = active_run()
    # `mlflow run` without --run-name gives a name such as bold-fish-123.
    if re.fullmatch(f"[a-z]+-[a-z]+-[0-9]+|{run.data.tags['verb']}", run.info.run_name):
        mlflow.set_tag("mlflow.runName", name)


def describe_run(first: str, second: str) -> None:
    """Put two lines on the active run (Markdown)."""
    mlflow.set_tag("mlflow.note.content", f"{first}\n\n{second}")


def ui_address() -> str:
    """Where MLflow's UI shows the active run's experiment, in its mode for trained models."""
    uri, experiment = mlflow.get_tracking_uri(), active_run().info.experiment_id
    place = uri if uri.startswith("http") else "mlflow ui, then http://127.0.0.1:5000"
    return f"{place.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning"


def process_name(pid: int | None = None) -> str:
    """Machine, number and start of a process, by default this one; "" if there is none."""
    try:
        return f"{MACHINE} {pid or os.getpid()} {psutil.Process(pid).create_time():.0f}"
    except psutil.NoSuchProcess:
        return ""


def close_orphaned_runs() -> None:
    """Mark as KILLED the runs that a process of this machine left RUNNING when it was killed."""
    for run in mlflow.search_runs(
        None, "attributes.status = 'RUNNING'", output_format="list", search_all_experiments=True
    ):
        process = run.data.tags.get(PROCESS) or run.data.tags.get("process", "")  # its old name
        if process.startswith(f"{MACHINE} ") and process_name(int(process.split()[-2])) != process:
            mlflow.MlflowClient().set_terminated(run.info.run_id, "KILLED")


def log_params(parameters: dict[str, Any]) -> None:
    """Log parameters that are not None as a user would type them."""
    # `mlflow run -P` has logged some as they were typed (1e-2), and MLflow changes none (to 0.01).
    logged = mlflow.get_run(active_run().info.run_id).data.params
    new = {k: as_text(v) for k, v in parameters.items() if v is not None and k not in logged}
    mlflow.log_params(new)


def environment() -> dict[str, str | int]:
    """Versions of Python and of the packages that decide the numbers, and the cores in use."""
    packages = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **packages, "cores": cores()}


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
