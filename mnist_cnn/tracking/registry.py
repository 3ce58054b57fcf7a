"""The model registry: which version a URI means, its network, and the two aliases."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow.utils.logging_utils import disable_logging, enable_logging

from mnist_cnn.learning import model_file
from mnist_cnn.learning.backend import keras
from mnist_cnn.parameters import UserError, reason
from mnist_cnn.tracking.failures import http_status, retry_on_conflict

NAME = "mnist-cnn"
CANDIDATE, CHAMPION = "candidate", "champion"  # the newest trained; what convert and users take
NO_SUCH = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # answers of MLflow


@dataclass(frozen=True)
class ModelRef:
    """A model: its URI or file, its version if it is registered, its logged model if MLflow's."""

    uri: str
    name: str = ""
    version: str = ""
    model_id: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """`v3`, or the name of a file or model: for the names of runs."""
        return f"v{self.version}" if self.version else Path(self.uri).name

    def __str__(self) -> str:
        return f"version {self.version} of {self.name}" if self.version else self.uri


def register(model_uri: str, tags: dict[str, Any]) -> str:
    """Number of a new version of the registered model from a logged model; no tag for None.

    The alias `candidate` moves last: a kill before that leaves a version which nobody serves.
    """
    texts = {name: str(value) for name, value in tags.items() if value is not None}
    disable_logging()  # two lines about what train says itself
    try:
        version = mlflow.register_model(model_uri, NAME, tags=texts).version
    finally:
        enable_logging()
    retry_on_conflict(mlflow.MlflowClient().set_registered_model_alias, NAME, CANDIDATE, version)
    return str(version)


def find(uri: str) -> ModelRef:
    """What `uri` means: an MLflow model URI, or a local .h5 or .keras file. Raises UserError."""
    named = re.fullmatch("models:/([^/@]+)(?:/(.+)|@(.+))", uri)
    if not named:
        return ModelRef(uri, model_id=uri.partition("models:/")[2])
    name, number, alias = named.groups()
    client = mlflow.MlflowClient()
    try:
        if number == "latest":
            versions = client.search_model_versions(f"name='{name}'")
            number = str(max((int(version.version) for version in versions), default=0))
        if alias:
            number = str(client.get_model_version_by_alias(name, alias).version)
        found = client.get_model_version(name, number)
    except mlflow.MlflowException as error:
        # A web server that is no MLflow server says 404 too, in a message of another form.
        if error.error_code not in NO_SUCH or http_status(error) is not None:
            raise
        raise UserError(f"model={uri} is not in the registry: {error.message}") from None
    logged = re.fullmatch("models:/(m-[0-9a-f]+)", found.source or "")  # in MLflow's own store
    model_id = found.model_id or (logged[1] if logged else "")
    return ModelRef(f"models:/{name}/{number}", name, number, model_id, found.tags)


def champion() -> ModelRef | None:
    """The version that users take, or None while there is none."""
    try:
        return find(f"models:/{NAME}@{CHAMPION}")
    except UserError:  # not a lost server: the next candidate would win without proof
        return None


def load(model: ModelRef) -> keras.Model:
    """The uncompiled Keras model of `model`. Raises UserError if there is none.

    The file is opened by Keras in safe mode, not by MLflow's loader, which would unpickle custom
    objects: a model from elsewhere must not run code.
    """
    try:
        files = [Path(model.uri)]
        if not files[0].is_file():
            folder = Path(mlflow.artifacts.download_artifacts(model.uri))  # no link leads out
            files = [*folder.glob("data/model.h5"), *folder.glob("data/model.keras")]
            if not files:
                raise UserError("it holds no Keras .h5 or .keras file.")
        return model_file.load(files[0])
    except Exception as error:  # whatever is raised at a file from elsewhere
        if http_status(error) not in (None, 404):  # 404: an artefact that is not there
            raise
        raise UserError(f"model={model.uri} cannot be loaded: {reason(error)}.") from None


def log_metrics(model: ModelRef, metrics: dict, dataset: mlflow.data.Dataset | None = None) -> None:
    """Log metrics of `model` to the active run and to the logged model, an input of the run."""
    metrics = dict(sorted(metrics.items(), key=lambda metric: "/" in metric[0]))  # headlines first
    if model.model_id:
        mlflow.log_input(model=mlflow.entities.LoggedModelInput(model.model_id))
    mlflow.log_metrics(metrics, model_id=model.model_id or None, dataset=dataset)


def tag(model: ModelRef, **tags: str) -> None:
    """Put tags on the model version, if `model` is one; with those of `register` at most eight."""
    client = mlflow.MlflowClient()
    for key, value in tags.items() if model.version else ():
        retry_on_conflict(client.set_model_version_tag, model.name, model.version, key, value)
