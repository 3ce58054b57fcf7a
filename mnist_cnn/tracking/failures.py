"""How a failure of the store, the server or the disk is told, and what is tried again."""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import responses
from typing import Any

import mlflow
from alembic.util import CommandError
from mlflow import environment_variables as settings
from mlflow.exceptions import MlflowException, RestException
from mlflow.store.db import utils as database
from requests import HTTPError
from sqlalchemy.exc import SQLAlchemyError

from mnist_cnn.learning.data import UNUSABLE
from mnist_cnn.parameters import UserError, without_password

ANSWERED = {  # what to do about an answer of the server: a refusal, or a failure of its own
    401: ": set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    403: ": its administrator can allow it to the user named in MLFLOW_TRACKING_USERNAME",
    404: ": set MLFLOW_TRACKING_URI to the address of an MLflow server",
    **dict.fromkeys((500, 502, 503, 504), ": its own log may say why"),
}


def _tracking_uri() -> str:
    """The address of the store or server, and of another registry, without their passwords."""
    both = dict.fromkeys([mlflow.get_tracking_uri(), mlflow.get_registry_uri()])
    return without_password(" or the registry ".join(both))


def to_user_error(error: BaseException) -> BaseException:
    """`error` as a UserError, if a server, a store or a disk is its cause; else as it is."""
    uri, status = _tracking_uri(), http_status(error)
    if status == 0:
        text = f"the tracking server {uri} cannot be reached."
    elif status:
        what = f"{status} ({responses.get(status, 'unknown')}){ANSWERED.get(status, '')}"
        text = f"the tracking server {uri} answered {what}."
    elif isinstance(error, MlflowException | SQLAlchemyError | CommandError):
        # SQLAlchemy's own first line may be its class or a hint; that of the driver says more.
        reason = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        driver = re.search(r"^\([\w.]+\.\w+\) (.+)", reason, re.MULTILINE)
        reason = driver[1] if driver else reason.splitlines()[0][:300]
        text = f"the tracking store {uri} cannot be used: {reason.rstrip('.')}."
    elif isinstance(error, OSError) and error.errno in UNUSABLE:
        file = error.filename2 or error.filename or "a file"  # of a copy the second is written
        text = f"{file} cannot be used: {error.strerror}."
    else:
        return error
    return UserError(without_password(" ".join([text, *getattr(error, "__notes__", [])])))


def http_status(error: BaseException) -> int | None:
    """What a server answered as a web server, 0 if nothing; None if it is MLflow that answered."""
    if isinstance(error, HTTPError):  # of artefacts
        return error.response.status_code
    failed = re.match(r"API request to .* failed with (error code|exc|timeout)", str(error))
    if isinstance(error, MlflowException) and failed:
        code = re.search(r"with error code (\d+)|too many (\d+) error responses", str(error))
        return int(code[1] or code[2]) if code else 0
    if isinstance(error, RestException) and error.error_code != "RESOURCE_DOES_NOT_EXIST":
        return status if (status := error.get_http_status_code()) in (401, 403, 404) else None
    return None


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
        for variable, raw in before.items():
            variable.unset() if raw is None else variable.set(raw)


def retry_on_conflict(write: Callable[..., Any], *what: Any, **how: Any) -> None:
    """`write` to MLflow, again if another inserted the same row at once: PostgreSQL refuses one."""
    try:
        write(*what, **how)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":  # what a constraint of the database becomes
            raise
        write(*what, **how)


def _say_that_we_wait(record: logging.LogRecord) -> bool:
    """One sentence at the first of MLflow's retries, where urllib3 would warn at each."""
    retry: Any = record.args[0] if isinstance(record.args, tuple) and record.args else None
    if "Retrying" in str(record.msg) and len(retry.history) == 1:
        most = settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES
        waiting = f"waiting for it ({most.name}={most.get()})."
        print(f"The tracking server {_tracking_uri()} does not answer: {waiting}", file=sys.stderr)
    return False


logging.getLogger("urllib3.connectionpool").addFilter(_say_that_we_wait)
database.MAX_RETRY_COUNT = 1  # a database that is down: an answer at once
# Tracebacks of a database's errors, which come to us too, and are told in a sentence.
for _name in ("mlflow.store.db.utils", "psycopg"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
