"""The model registry: which version a URI means, its network, and the two aliases."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.untrusted import check_model
from mnist_cnn.parameters import UserError
from mnist_cnn.tracking.runs import is_lost, retry_on_conflict

NAME = "mnist-cnn"
CANDIDATE, CHAMPION = "candidate", "champion"  # the newest trained; what convert and users take


@dataclass(frozen=True)
class Source:
    """Where a network comes from: a URI or file, and its version if it is a registered one."""

    uri: str
    name: str = ""
    version: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"version {self.version} of {self.name}" if self.version else self.uri


def register(model_uri: str, tags: dict[str, str]) -> ModelVersion:
    """A new version of the registered model from a logged model.

    The alias `candidate` moves last: a kill before that leaves a version which nobody serves.
    """
    version = mlflow.register_model(model_uri, NAME, tags=tags)
    retry_on_conflict(
        mlflow.MlflowClient().set_registered_model_alias, NAME, CANDIDATE, version.version
    )
    return version


def find(uri: str) -> Source:
    """What `uri` means: an MLflow model URI, or a local .h5 or .keras file. Raises UserError."""
    if not uri.startswith("models:/"):
        return Source(uri)
    name, _, alias = uri.removeprefix("models:/").partition("@")
    client = mlflow.MlflowClient()
    try:
        if alias:
            found = client.get_model_version_by_alias(name, alias)
        elif "/" in name:
            name, _, number = name.partition("/")
            if number == "latest":
                number = _newest(name)
            found = client.get_model_version(name, number)
        else:
            return Source(uri)  # models:/m-…, a logged model that is in no registry
    except MlflowException as error:
        if not _answered_no(error):
            raise
        raise UserError(f"model={uri} is not in the registry: {error.message}") from None
    return Source(f"models:/{name}/{found.version}", name, str(found.version), found.tags)


def champion() -> Source | None:
    """The version that users take, or None while there is none."""
    client = mlflow.MlflowClient()
    try:
        client.get_model_version_by_alias(NAME, CHAMPION)
    except MlflowException as error:
        # A lost server is no empty throne: the next candidate would be crowned unproven.
        if not _answered_no(error):
            raise
        return None
    return find(f"models:/{NAME}@{CHAMPION}")


def _answered_no(error: MlflowException) -> bool:
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def _newest(name: str) -> str:
    versions = mlflow.MlflowClient().search_model_versions(f"name='{name}'")
    if not versions:
        raise UserError(f"model={name}: no version is registered; train one first.")
    return str(max(int(version.version) for version in versions))


def load(source: Source) -> keras.Model:
    """The uncompiled Keras model of `source`. Raises UserError if there is none.

    The file is opened by Keras in safe mode, not by MLflow's loader, which would unpickle custom
    objects: a model from elsewhere must not run code.
    """
    path = Path(source.uri)
    try:
        if not path.is_file():
            # A link that leads out of the model's folder MLflow refuses itself.
            folder = Path(mlflow.artifacts.download_artifacts(source.uri)) / "data"
            files = [folder / name for name in ("model.h5", "model.keras")]
            path = next((file for file in files if file.is_file()), None)
            if path is None:
                raise UserError(f"model={source.uri} holds no Keras .h5 or .keras file.")
        check_model(path)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except UserError:
        raise
    except Exception as error:  # whatever is raised at a file from elsewhere
        if isinstance(error, MlflowException) and is_lost(error):
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"model={source.uri} cannot be loaded: {reason[0]}") from None


def tag(source: Source, tags: dict[str, object]) -> None:
    """Put figures on the model version, if `source` is one."""
    client = mlflow.MlflowClient()
    for key, value in tags.items() if source.version else ():
        retry_on_conflict(
            client.set_model_version_tag, source.name, source.version, key, str(value)
        )


def describe(source: Source, text: str) -> None:
    """Put a description on the model version, if `source` is one."""
    if source.version:
        # 5,000 characters are what MLflow's table holds; PostgreSQL refuses more.
        mlflow.MlflowClient().update_model_version(source.name, source.version, text[:5000])
