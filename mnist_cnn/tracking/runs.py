"""Runs in MLflow: how one begins, what every verb logs alike, and how a failure is told."""

from __future__ import annotations

import errno
import logging
import os
import platform
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any

import mlflow
import psutil
from filelock import FileLock
from mlflow import environment_variables as settings
from mlflow.exceptions import MlflowException

from mnist_cnn.learning.data import cache_folder
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import as_text

MACHINE = f"{platform.node()}-{uuid.getnode():x}"  # one host name may stand for several machines
PACKAGES = ("mlflow", "tensorflow", "keras", "numpy")

# What the owner of the machine can set right: a full disk, no right, a file for a folder.
UNUSABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS),
    *(errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EEXIST),
)


class ServerLost(UserError):
    """The tracking server is away, and was waited for as long as MLflow's settings allow."""


@contextmanager
def tracked(verb: str, **parameters: Any) -> Iterator[mlflow.ActiveRun]:
    """A run of `verb` with its parameters; FAILED, with the reason as tag `failure`, on an error.

    Under `mlflow run` it is the run that MLflow has begun; inside another run it is nested.
    Raises ServerLost, and UserError where the store or the disk fails.
    """
    nested = mlflow.active_run() is not None
    try:
        if not nested:
            cache_folder().mkdir(parents=True, exist_ok=True)
            # Nothing is to be lost yet: an answer now, not in four minutes. One at a time, for two
            # at once would both make the tables of a new store.
            with no_retries(), FileLock(cache_folder() / "store.lock"):
                mlflow.MlflowClient().search_experiments(max_results=1)
            close_orphaned_runs()
        with start_run(
            run_name=None if "MLFLOW_RUN_ID" in os.environ else verb,
            nested=nested,
            # From the first moment: a kill must not leave a run that nobody can name.
            tags={"verb": verb, "process": process_name()},
        ) as run:
            log_params(parameters)
            yield run
    except (MlflowException, OSError) as error:
        told = to_user_error(error)
        if told is error:
            raise
        raise told from None


@contextmanager
def start_run(**how: Any) -> Iterator[mlflow.ActiveRun]:
    """`mlflow.start_run`, which on an error tags its reason, and waits for no lost server twice."""
    with mlflow.start_run(**how) as run:
        try:
            yield run
        except BaseException as error:
            told = to_user_error(error)
            if isinstance(told, ServerLost):
                with no_retries(), suppress(MlflowException):
                    mlflow.end_run("FAILED")
            else:
                with suppress(MlflowException):
                    mlflow.set_tag("failure", str(told) or type(told).__name__)
            raise


def to_user_error(error: BaseException) -> BaseException:
    """`error` as a UserError, if a server, a store or a disk is its cause; else as it is."""
    if isinstance(error, MlflowException):
        uri, reason = mlflow.get_tracking_uri(), str(error).strip().splitlines()[0].rstrip(".")
        kind, text = UserError, f"the tracking store {uri} cannot be used: {reason}."
        if is_lost(error):
            kind, text = ServerLost, f"the tracking server {uri} cannot be reached."
    elif isinstance(error, OSError) and error.errno in UNUSABLE:
        kind, text = UserError, f"{error.filename or 'a file'} cannot be used: {error.strerror}."
    else:
        return error
    return kind(" ".join([text, *getattr(error, "__notes__", [])]))


def is_lost(error: MlflowException) -> bool:
    """Whether no answer came at all; an answer, if a refusal, is of a class of its own."""
    return type(error) is MlflowException and error.message.startswith("API request to ")


@contextmanager
def no_retries() -> Iterator[None]:
    """No retries inside, and 10 seconds for an answer, where MLflow would wait for minutes."""
    ours = {settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES: 0, settings.MLFLOW_HTTP_REQUEST_TIMEOUT: 10}
    before = {variable: variable.get_raw() for variable in ours}
    try:
        for variable, value in ours.items():
            variable.set(value)
        yield
    finally:
        for variable, value in before.items():
            variable.unset() if value is None else variable.set(value)


class _SayThatWeWait(logging.Handler):
    """One sentence at the first of MLflow's retries, where urllib3 would warn at each."""

    def emit(self, record: logging.LogRecord) -> None:
        if "Retrying" not in record.msg or len(record.args[0].history) != 1:
            return
        factor = settings.MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get()
        pauses = range(1, settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get())
        seconds = sum(min(120, factor * 2**n) for n in pauses)
        print(
            f"The tracking server {mlflow.get_tracking_uri()} does not answer: waiting for it, "
            f"up to {seconds / 60:.1f} minutes.",
            file=sys.stderr,
            flush=True,
        )


logging.getLogger("urllib3.connectionpool").addHandler(_SayThatWeWait())
logging.getLogger("urllib3.connectionpool").propagate = False
# A traceback of a full disk; the error itself comes to us, who say it in a sentence.
logging.getLogger("mlflow.store.db.utils").addFilter(lambda record: not record.exc_info)


def process_name(pid: int | None = None) -> str:
    """Machine, number and start of a process (by default this one): never given again.

    Empty if there is no such process.
    """
    try:
        return f"{MACHINE} {pid or os.getpid()} {psutil.Process(pid).create_time():.0f}"
    except psutil.NoSuchProcess:
        return ""


def close_orphaned_runs() -> None:
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


def retry_on_conflict(write: Callable[..., None], *what: Any, **how: Any) -> None:
    """`write` to MLflow, again if another wrote the same row for the first time just then.

    MLflow looks for a row and then inserts it; of two at once PostgreSQL refuses the second.
    """
    try:
        write(*what, **how)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":  # what a constraint of the database becomes
            raise
        write(*what, **how)


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
