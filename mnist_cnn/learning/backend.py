"""TensorFlow and Keras, imported once: quietly, and with the settings this project needs.

Every module that computes imports them from here, so the settings cannot come too late.
"""

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off on AMD; fit is a quarter faster


@contextmanager
def suppress_stderr() -> Iterator[None]:
    """Hide what an import writes to stderr, native code too, before it reads a log level."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


# What Keras and TensorFlow import for parts that nobody here uses, if it is there: seconds
# on a slow machine. None stands for a package that is not installed.
_UNUSED = {n: None for n in ("jax", "matplotlib.pyplot", "sklearn") if n not in sys.modules}
sys.modules.update(_UNUSED)  # type: ignore[arg-type]
with suppress_stderr():
    import keras
    import tensorflow as tf
for _name in _UNUSED:
    del sys.modules[_name]

# "You are saving your model as an HDF5 file": we know, MLflow and the web ask for it.
logging.getLogger("absl").setLevel(logging.ERROR)
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # advice on retracing
warnings.filterwarnings("ignore", message=".*HDF5 file.*")


def legacy_keras() -> ModuleType:
    """Keras 2, for files that it wrote; imported when there is one, for it takes seconds."""
    with suppress_stderr():
        return importlib.import_module("tf_keras")


def library(model: Any) -> ModuleType:
    """The Keras that a model is of: Keras 3, or Keras 2 for a file that it wrote."""
    return keras if isinstance(model, keras.Model) else legacy_keras()


def without_autotune(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Without tf.data's tuner, which held up the end of every pass: by seconds after a fit."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)
