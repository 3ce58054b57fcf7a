"""Keras models in files, of Keras 3 and of Keras 2; no code in them is run."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from mnist_cnn.learning.backend import keras, legacy_keras
from mnist_cnn.learning.untrusted import check_model
from mnist_cnn.parameters import UserError

# Keras 2 wrote a * b between tensors as a layer that calls a function of TensorFlow by name.
CALLS = ("TFOpLambda", "SlicingOpLambda")
HARMLESS = re.compile(r"(math|nn|__operators__)\.\w+|concat|reshape|cast|expand_dims|squeeze|stack")
OTHERS = frozenset("Functional Model Sequential Policy DTypePolicy __tuple__ TensorShape".split())


def load(path: Path) -> Any:
    """The uncompiled model of a .h5 or .keras file: a keras.Model, or of tf_keras if Keras 2's.

    Keras 3's loader has a safe mode; that of Keras 2 ignores it for .h5 (keras-team/tf-keras#910),
    so the names of all classes are checked first. Raises UserError and what the loaders raise.
    """
    check_model(path)
    version, config = _described(path)
    if not config:
        raise UserError(f"it holds weights only (Keras {version}); save the whole model.")
    if version.startswith("3"):
        return keras.models.load_model(path, compile=False, safe_mode=True)
    legacy = legacy_keras()
    _check_classes(legacy, json.loads(config))
    try:
        return legacy.models.load_model(path, compile=False)
    except Exception as error:  # of any kind, for a file of any age
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"Keras {version} wrote it, and Keras 2 says: {lines[0][:150]}") from None


def _described(path: Path) -> tuple[str, str]:
    """The version of Keras that wrote a file, and the model's configuration as JSON."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read("metadata.json"))
            return str(metadata["keras_version"]), archive.read("config.json").decode()
    with h5py.File(path) as file:
        texts = [file.attrs.get(name, "") for name in ("keras_version", "model_config")]
        version, config = (t.decode() if isinstance(t, bytes) else str(t) for t in texts)
        return version or "1", config


def _check_classes(legacy: Any, config: Any) -> None:
    known = OTHERS.union(CALLS, dir(legacy.layers), dir(legacy.initializers))
    known = known.union(dir(legacy.regularizers), dir(legacy.constraints)) - {"Lambda"}
    for found in _objects(config):
        kind, module = found["class_name"], str(found.get("module") or "keras")
        call = (found.get("config") or {}).get("function", "") if kind in CALLS else "math.add"
        if kind not in known or not module.startswith("keras") or not HARMLESS.fullmatch(str(call)):
            name = (found.get("config") or {}).get("name", found.get("name", "?"))
            what = f"calls {call}" if kind in CALLS else f"is a {kind}"
            raise UserError(f"layer {name!r} {what}, which may run code or is not Keras's own.")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _objects(item)
