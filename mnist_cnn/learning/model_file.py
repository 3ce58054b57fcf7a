"""Keras models in files, of Keras 3 and of Keras 2; no code in them is run."""

import io
import json
import re
import zipfile
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from mnist_cnn.learning.backend import keras, legacy_keras
from mnist_cnn.learning.untrusted import LARGEST, check_zip
from mnist_cnn.parameters import UserError, reason

# Keras 2 wrote a * b between tensors as a layer that calls a function of TensorFlow by name.
CALLS = ("TFOpLambda", "SlicingOpLambda")
HARMLESS = re.compile(r"(math|nn|__operators__)\.\w+|concat|reshape|cast|expand_dims|squeeze|stack")
OTHERS = frozenset("Functional Model Sequential Policy DTypePolicy __tuple__ TensorShape".split())


def load(path: Path) -> Any:
    """The uncompiled model of a .h5 or .keras file: a keras.Model, or of tf_keras if Keras 2's.

    Keras 3's loader has a safe mode; that of Keras 2 ignores it for .h5 (keras-team/tf-keras#910),
    so the names of all classes are checked first. Raises UserError and what the loaders raise.
    """
    if path.suffix == ".keras":
        check_zip(path)
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".h5"):
                    _check_hdf5(io.BytesIO(archive.read(name)))
            version = json.loads(archive.read("metadata.json"))["keras_version"]
            config = archive.read("config.json").decode()
    else:
        _check_hdf5(path)
        with h5py.File(path) as file:
            texts = [file.attrs.get(name, "") for name in ("keras_version", "model_config")]
        version, config = (t.decode() if isinstance(t, bytes) else str(t) for t in texts)
    if not config:
        raise UserError(f"it holds weights only (Keras {version}); save the whole model.")
    if str(version).startswith("3"):
        return keras.models.load_model(path, compile=False, safe_mode=True)
    legacy = legacy_keras()
    parts = (legacy.layers, legacy.initializers, legacy.regularizers, legacy.constraints)
    known = OTHERS.union(CALLS, *map(dir, parts)) - {"Lambda"}
    content = json.loads(config)
    content.pop("compile_config", None)  # an optimizer, which is not loaded
    json.loads(json.dumps(content), object_hook=partial(_check_class, known))
    try:
        return legacy.models.load_model(path, compile=False)
    except Exception as error:  # of any kind, for a file of any age
        told = reason(error)[:150]
        raise UserError(f"Keras {version or 1} wrote it, and Keras 2 says: {told}.") from None


def _check_class(known: frozenset[str], found: dict[str, Any]) -> dict[str, Any]:
    """An object of a configuration as it is. Raises UserError for a class that is not known."""
    if "class_name" not in found:
        return found
    kind, inner = found["class_name"], found.get("config") or {}
    ours = kind in known and re.match(r"(tf_)?keras(\.|$)", str(found.get("module") or "keras"))
    call = str(inner.get("function", "")) if kind in CALLS else "math.add"
    if not ours or not HARMLESS.fullmatch(call):
        name = inner.get("name", found.get("name"))
        what = f"layer {name!r}" if name else "the model"
        what += f" calls {call}" if kind in CALLS else f" is a {kind}"
        raise UserError(f"{what}, which may run code or is not Keras's own.")
    return found


def _check_hdf5(file: Path | BinaryIO) -> None:
    """Refuse a file that unpacks to too much or takes data from elsewhere."""
    links: list[tuple[str, object]] = []
    size = 0
    with h5py.File(file, "r") as content:
        content.visititems_links(lambda *found: links.append(found))
        for name, link in links:
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(f"{name!r} is a link to another file")
            item = content[name] if isinstance(link, h5py.HardLink) else None
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise ValueError(f"{name!r} keeps its data in another file")
                size += item.nbytes
    if size > LARGEST:
        raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")
