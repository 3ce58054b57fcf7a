"""A Keras model made ready for TensorFlow.js: float32, names it accepts, no layer it has broken.

TensorFlow.js 4.22 registers Resizing, CenterCrop and CategoryEncoding, but in a model the first
fails on every input, and the others overwrite the shape of what goes in; UpSampling2D it does in
another way than Keras, unless it is by the nearest. They are put as other layers of the same
effect; so is Normalization, which it does not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mnist_cnn.learning.backend import keras, legacy_keras
from mnist_cnn.parameters import UserError

REDUCED = re.compile(r'"(mixed_float16|mixed_bfloat16|float16|bfloat16|float64)"')


def ready(model: Any) -> tuple[Any, bool]:
    """The model in float32 with names that TensorFlow.js accepts, and whether it was in another.

    `model` is of Keras 3 or of tf_keras, and changes. Raises UserError for a model whose input is
    not known, and for a weight that is NaN or infinite.
    """
    if not getattr(model, "inputs", None):
        raise UserError(
            "the model does not say what goes into it: give it an Input, or call it once, before "
            "it is saved."
        )
    library = keras if isinstance(model, keras.Model) else legacy_keras()
    taken: set[str] = set()
    refused = [_rename(layer, taken) for layer in (model, *leaves(model))]
    text, reduced = REDUCED.subn('"float32"', model.to_json())
    if reduced or any(refused):  # variables keep precision and name for life
        weights = model.get_weights()
        model = library.models.model_from_json(text)
        model.set_weights(weights)
    for layer in leaves(model):
        if not all(np.isfinite(weight).all() for weight in layer.get_weights()):
            raise UserError(f"layer {layer.name!r} has weights that are NaN or infinite.")
    return model, bool(reduced)


def lowered(model: Any) -> Any:
    """The model without the layers above. Raises UserError for one that has no equal."""
    library = keras if isinstance(model, keras.Model) else legacy_keras()
    names = [tensor._keras_history[0].name for tensor in model.inputs]
    clone = _lowered(library, model)
    for tensor, name in zip(clone.inputs, names, strict=True):
        _set_name(tensor._keras_history[0], name)
    return clone


def leaves(model: Any) -> Iterator[Any]:
    """The layers of a model, those of nested models in their place."""
    for layer in model.layers:
        nested = isinstance(getattr(layer, "layers", None), list)
        yield from leaves(layer) if nested else (layer,)


def _rename(layer: Any, taken: set[str]) -> bool:
    """Give a name of its own, without characters that TensorFlow refuses; whether it had some."""
    name = re.sub(r"[^A-Za-z0-9_.\-/]", "_", layer.name)
    name = name if re.match(r"[A-Za-z0-9.]", name) else f"layer{name}"
    refused = name != layer.name
    while name in taken:
        name += "_"
    taken.add(name)
    if name != layer.name:
        _set_name(layer, name)
    return refused


def _set_name(layer: Any, name: str) -> None:
    setattr(layer, "name" if isinstance(layer, keras.Layer) else "_name", name)


def _lowered(library: Any, model: Any) -> Any:
    """The model with the layers of LOWERED replaced; all others are the same objects."""

    def replaced(layer: Any) -> Any:
        if isinstance(getattr(layer, "layers", None), list):
            return _lowered(library, layer)
        if not _to_lower(layer) or len(layer._inbound_nodes) != 1:
            return layer
        stack, weights = LOWERED[type(layer).__name__](library.layers, layer)
        for number, part in enumerate(stack):
            _set_name(part, f"{layer.name}_{number}")
        shape = layer.input.shape[1:]
        built = library.Sequential([library.Input(shape, dtype="float32"), *stack], name=layer.name)
        built.set_weights(weights)
        return built

    if not any(map(_to_lower, leaves(model))):
        return model
    recursive = {"recursive": False} if library is keras else {}
    return library.models.clone_model(model, clone_function=replaced, **recursive)


def _to_lower(layer: Any) -> bool:
    return type(layer).__name__ in LOWERED and not (
        type(layer).__name__ == "UpSampling2D" and layer.interpolation == "nearest"
    )


def _resizing(layers: Any, layer: Any) -> tuple[list, list[np.ndarray]]:
    """One matrix for the rows and one for the columns, found by what the layer does to images."""
    _, height, width, channels = layer.input.shape
    if layer.data_format != "channels_last" or None in (height, width):
        raise UserError(
            f"layer {layer.name!r} ({type(layer).__name__}) can be converted only for images of "
            "one size, (height, width, channels)."
        )
    lines = np.repeat(np.eye(height, dtype=np.float32)[..., None, None], width, axis=2)
    rows = np.asarray(layer(np.repeat(lines, channels, axis=3)))[:, :, 0, 0]
    lines = np.repeat(np.eye(width, dtype=np.float32)[:, None, :, None], height, axis=1)
    columns = np.asarray(layer(np.repeat(lines, channels, axis=3)))[:, 0, :, 0]
    stack = [
        layers.Permute((3, 2, 1)),
        layers.Dense(rows.shape[1], use_bias=False),
        layers.Permute((1, 3, 2)),
        layers.Dense(columns.shape[1], use_bias=False),
        layers.Permute((2, 3, 1)),
    ]
    return stack, [rows, columns]


def _category_encoding(layers: Any, layer: Any) -> tuple[list, list[np.ndarray]]:
    """An embedding that gives each index a one of its own, and how those of an example join."""
    count, (_, *rest) = layer.num_tokens, layer.input.shape
    if len(rest) != 1 or (layer.output_mode == "count" and rest[0] is None):
        raise UserError(
            f"layer {layer.name!r} (CategoryEncoding) can be converted only for one row of indices "
            "an example, of known length where they are counted."
        )
    stack = [layers.Embedding(count, count)]
    if layer.output_mode == "count":
        stack += [layers.GlobalAveragePooling1D(), layers.Rescaling(float(rest[0]))]
    elif layer.output_mode == "multi_hot":
        stack += [layers.GlobalMaxPooling1D()]
    elif rest[0] == 1:
        stack += [layers.Reshape((count,))]
    return stack, [np.eye(count, dtype=np.float32)]


def _normalization(layers: Any, layer: Any) -> tuple[list, list[np.ndarray]]:
    """With the mean and variance of its last axis, from adapt() or given."""
    size = layer.input.shape[-1]
    flat = [np.asarray(value).squeeze() for value in (layer.mean, layer.variance)]
    if layer.invert or size is None or any(value.shape not in ((), (size,)) for value in flat):
        raise UserError(
            f"layer {layer.name!r} (Normalization) can be converted only along the last axis and "
            "without invert."
        )
    # Keras bounds the standard deviation from below by 1e-7, its square here.
    stack = [layers.BatchNormalization(epsilon=1e-14, center=False, scale=False)]
    return stack, [np.broadcast_to(value, (size,)) for value in flat]


LOWERED: dict[str, Callable[[Any, Any], tuple[list, list[np.ndarray]]]] = {
    "Resizing": _resizing,
    "CenterCrop": _resizing,
    "UpSampling2D": _resizing,
    "CategoryEncoding": _category_encoding,
    "Normalization": _normalization,
}
