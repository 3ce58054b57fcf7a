"""How a failure of the store, the server or the disk is told, and what is tried again."""

from __future__ import annotations

import errno
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import mlflow
from alembic.util import CommandError
from mlflow import environment_variables as settings
from mlflow.exceptions import MlflowException, RestException
from mlflow.store.db import utils as database
from sqlalchemy.exc import SQLAlchemyError

from mnist_cnn.parameters import UserError

# What the owner of the machine can set right: a full disk, no right, a file for a folder.
UNUSABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS),
    *(errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EEXIST),
)

# What to do about an answer of the server that is a refusal.
REFUSED = {
    401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    403: "its administrator can allow it to the user named in MLFLOW_TRACKING_USERNAME",
    404: "set MLFLOW_TRACKING_URI to the address of an MLflow server",
}


class ServerLost(UserError):
    """The tracking server is away, and was waited for as long as MLflow's settings allow."""


@contextmanager
def user_errors() -> Iterator[None]:
    """What the block raises as a UserError, where a server, a store or a disk is its cause."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError, OSError) as error:
        told = to_user_error(error)
        if told is error:
            raise
        raise told from None


def to_user_error(error: BaseException) -> BaseException:
    """`error` as a UserError, if a server, a store or a disk is its cause; else as it is."""
    # A password in the address is nobody's to read.
    uri = re.sub(r"(://[^:/@]*):[^/@]*@", r"\1:***@", mlflow.get_tracking_uri())
    kind: type[UserError] = UserError
    if isinstance(error, MlflowException) and is_lost(error):
        kind, text = ServerLost, f"the tracking server {uri} cannot be reached."
    elif isinstance(error, MlflowException) and (status := _refusal(error)):
        text = (
            f"the tracking server {uri} answered {status} ({HTTPStatus(status).phrase}): "
            f"{REFUSED[status]}."
        )
    elif isinstance(error, MlflowException | SQLAlchemyError | CommandError):
        # SQLAlchemy's own first line may be its class only; that of the database says more.
        reason = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        text = f"the tracking store {uri} cannot be used: {reason.splitlines()[0].rstrip('.')}."
    elif isinstance(error, OSError) and error.errno in UNUSABLE:
        text = f"{error.filename or 'a file'} cannot be used: {error.strerror}."
    else:
        return error
    return kind(" ".join([text, *getattr(error, "__notes__", [])]))


def is_lost(error: MlflowException) -> bool:
    """Whether no answer came at all; an answer, if a refusal, has a status or a class of its own.

    A gateway in front of the server that says 502, 503 or 504 means that the server is away.
    """
    lost = re.match(r"API request to .* failed with (error code 50[234]|exc|timeout)", str(error))
    return type(error) is MlflowException and bool(lost)


def _refusal(error: MlflowException) -> int:
    """The status 401, 403 or 404 that the server answered as a web server does, else 0."""
    answered = re.match(r"API request to .* failed with error code (\d+)", str(error))
    if answered:
        status = int(answered[1])
    elif isinstance(error, RestException) and error.error_code != "RESOURCE_DOES_NOT_EXIST":
        status = error.get_http_status_code()
    else:
        status = 0
    return status if status in REFUSED else 0


@contextmanager
def no_retries() -> Iterator[None]:
    """No retries inside, and 10 seconds for an answer, where MLflow would wait for minutes."""
    ours = {settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES: 0, settings.MLFLOW_HTTP_REQUEST_TIMEOUT: 10}
    before = {variable: variable.get_raw() for variable in ours}
    attempts = database.MAX_RETRY_COUNT  # at a database, where no variable sets it
    try:
        database.MAX_RETRY_COUNT = 1
        for variable, value in ours.items():
            variable.set(value)
        yield
    finally:
        database.MAX_RETRY_COUNT = attempts
        for variable, raw in before.items():
            variable.unset() if raw is None else variable.set(raw)


def retry_on_conflict(write: Callable[..., Any], *what: Any, **how: Any) -> None:
    """`write` to MLflow, again if another wrote the same row for the first time just then.

    MLflow looks for a row and then inserts it; of two at once PostgreSQL refuses the second.
    """
    try:
        write(*what, **how)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":  # what a constraint of the database becomes
            raise
        write(*what, **how)


class _SayThatWeWait(logging.Handler):
    """One sentence at the first of MLflow's retries, where urllib3 would warn at each."""

    def emit(self, record: logging.LogRecord) -> None:
        retry: Any = record.args[0] if isinstance(record.args, tuple) and record.args else None
        if "Retrying" not in str(record.msg) or len(retry.history) != 1:
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
# Tracebacks of a database's errors, which come to us too, and are told in a sentence.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
