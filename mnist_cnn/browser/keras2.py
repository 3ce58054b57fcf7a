"""A Keras model as TensorFlow.js 4.22 reads it: float32, its names, the topology of Keras 2.

TensorFlow.js 4.22 registers Resizing, CenterCrop and CategoryEncoding, but in a model the first
fails on every input, and the others overwrite the shape of what goes in; UpSampling2D it does in
another way than Keras, unless it is by the nearest. They are put as other layers of the same
effect; so are Normalization, which it does not have, and global pooling with keepdims. What else it
lacks, ignores or does in another way is left to the proof, which names it.
"""

import json
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from mnist_cnn.learning.backend import keras, legacy_keras
from mnist_cnn.parameters import UserError

REDUCED = re.compile(r'"(mixed_float16|mixed_bfloat16|float16|bfloat16|float64)"')
Config = dict[str, Any]
Stack = tuple[list[Any], list[np.ndarray]]  # layers and all their weights


def library(model: Any) -> ModuleType:
    """The Keras that a model is of: Keras 3, or Keras 2 for a file that it wrote."""
    return keras if isinstance(model, keras.Model) else legacy_keras()


def ready(model: Any) -> tuple[Any, bool]:
    """The model in float32 with names that TensorFlow.js accepts, and whether it was in another.

    `model` is of Keras 3 or of tf_keras, and changes. Raises UserError if its input is not known.
    """
    if not getattr(model, "inputs", None):
        raise UserError("the model has no known input: give it an Input, then save it again.")
    names: set[str] = set()
    renamed = False
    for layer in (model, *leaves(model)):
        name = re.sub(r"[^A-Za-z0-9_.\-/]", "_", layer.name)  # what TensorFlow allows
        name = name if re.match(r"[A-Za-z0-9.]", name) else f"layer{name}"
        while name in names:
            name += "_"
        names.add(name)
        if name != layer.name:
            _set_name(layer, name)
            renamed = True
    text, reduced = REDUCED.subn('"float32"', model.to_json())
    if reduced or renamed:  # variables keep precision and name for life
        weights = model.get_weights()
        model = library(model).models.model_from_json(text)
        model.set_weights(weights)
    return model, bool(reduced)


def lowered(model: Any) -> Any:
    """The model without the layers above, but for those that have no equal."""
    if not any(type(layer).__name__ in LOWERED for layer in leaves(model)):
        return model

    def replaced(layer: Any) -> Any:
        if is_model(layer):
            return lowered(layer)
        lower = LOWERED.get(type(layer).__name__)
        found = lower(own.layers, layer) if lower and layer in once(model) else None
        if found is None:
            return layer
        stack, weights = found
        for number, part in enumerate(stack):
            _set_name(part, f"{layer.name}_{number}")
        shape = input_shape(layer)[1:]
        built = own.Sequential([own.Input(shape, dtype="float32"), *stack], name=layer.name)
        built.set_weights(weights)
        return built

    own = library(model)
    names = [tensor._keras_history[0].name for tensor in model.inputs]
    clone = own.models.clone_model(model, clone_function=replaced)
    for tensor, name in zip(clone.inputs, names, strict=True):
        _set_name(tensor._keras_history[0], name)
    return clone


def is_model(layer: Any) -> bool:
    """Whether a layer is itself a model of layers."""
    return isinstance(getattr(layer, "layers", None), list)


def leaves(model: Any) -> Iterator[Any]:
    """The layers of a model, those of nested models in their place."""
    for layer in model.layers:
        yield from leaves(layer) if is_model(layer) else (layer,)


def once(model: Any) -> list[Any]:
    """The layers that a model calls once; a Sequential that was loaded has older calls too."""
    every = type(model).__name__ == "Sequential"
    return [layer for layer in model.layers if every or len(layer._inbound_nodes) == 1]


def input_shape(layer: Any) -> tuple[Any, ...]:
    """Shape of the first input of the last call of a layer."""
    tensor = layer._inbound_nodes[-1].input_tensors
    return tuple((tensor[0] if isinstance(tensor, list | tuple) else tensor).shape)


def _set_name(layer: Any, name: str) -> None:
    setattr(layer, "name" if isinstance(layer, keras.Layer) else "_name", name)


def _resizing(layers: Any, layer: Any) -> Stack | None:
    """One matrix for the rows and one for the columns, found by what the layer does to images."""
    _, height, width, channels = input_shape(layer)
    nearest = type(layer).__name__ == "UpSampling2D" and layer.interpolation == "nearest"
    if nearest or layer.data_format != "channels_last" or None in (height, width):
        return None
    lines = np.repeat(np.eye(height, dtype=np.float32)[..., None, None], width, axis=2)
    rows = np.asarray(layer(np.repeat(lines, channels, axis=3)))[:, :, 0, 0]
    lines = np.repeat(np.eye(width, dtype=np.float32)[:, None, :, None], height, axis=1)
    columns = np.asarray(layer(np.repeat(lines, channels, axis=3)))[:, 0, :, 0]
    dense = [layers.Dense(matrix.shape[1], use_bias=False) for matrix in (rows, columns)]
    turns = [layers.Permute(order) for order in ((3, 2, 1), (1, 3, 2), (2, 3, 1))]
    return [turns[0], dense[0], turns[1], dense[1], turns[2]], [rows, columns]


def _category_encoding(layers: Any, layer: Any) -> Stack | None:
    """An embedding that gives each index a one of its own, and how those of an example join."""
    count, (_, *rest) = layer.num_tokens, input_shape(layer)
    if len(rest) != 1 or (layer.output_mode == "count" and rest[0] is None):
        return None
    stack = [layers.Embedding(count, count)]
    if layer.output_mode == "count":
        stack += [layers.GlobalAveragePooling1D(), layers.Rescaling(float(rest[0]))]
    elif layer.output_mode == "multi_hot":
        stack += [layers.GlobalMaxPooling1D()]
    elif rest[0] == 1:
        stack += [layers.Reshape((count,))]
    return stack, [np.eye(count, dtype=np.float32)]


def _normalization(layers: Any, layer: Any) -> Stack | None:
    """With the mean and variance of its last axis, from adapt() or given."""
    size = input_shape(layer)[-1]
    flat = [np.asarray(value).squeeze() for value in (layer.mean, layer.variance)]
    if layer.invert or size is None or any(value.shape not in ((), (size,)) for value in flat):
        return None
    # Keras bounds the standard deviation from below by 1e-7, its square here.
    stack = [layers.BatchNormalization(epsilon=1e-14, center=False, scale=False)]
    return stack, [np.broadcast_to(value, (size,)) for value in flat]


def _pooling(layers: Any, layer: Any) -> Stack | None:
    """TensorFlow.js takes no notice of keepdims."""
    if not layer.keepdims:
        return None
    pooled = type(layer)(data_format=layer.data_format)
    return [pooled, layers.Reshape(layer.output.shape[1:])], []


LOWERED: dict[str, Callable[[Any, Any], Stack | None]] = {
    "Resizing": _resizing,
    "CenterCrop": _resizing,
    "UpSampling2D": _resizing,
    "CategoryEncoding": _category_encoding,
    "Normalization": _normalization,
    "GlobalAveragePooling2D": _pooling,
    "GlobalMaxPooling2D": _pooling,
}


def topology(model: keras.Model) -> Config:
    """The `model_config` of a model, as model.json holds it."""
    return _layer(json.loads(model.to_json()), isinstance(model, keras.Model))


def _layer(layer: Config, keras_3: bool, siblings: frozenset[str] = frozenset()) -> Config:
    """One layer or model; `siblings`: the names of the models of Keras 3 beside it."""
    kind, config = layer["class_name"], dict(layer["config"])
    models = frozenset(
        inner["config"]["name"]
        for inner in config.get("layers", ())
        if keras_3 and inner["class_name"] in ("Sequential", "Functional")
    )
    for key in {"layers", "cells", "layer", "cell"} & config.keys():
        value = config[key]
        many = isinstance(value, list)
        found = [_layer(inner, keras_3, models) for inner in (value if many else [value])]
        config[key] = found if many else found[0]
    for end in {"input_layers", "output_layers"} & config.keys():
        config[end] = list(_tensors(config[end], models))
    if kind == "Bidirectional":  # TensorFlow.js puts the prefix on, and derives the other one
        inner = config["layer"]["config"]
        inner["name"] = inner["name"].removeprefix("forward_")
        config.pop("backward_layer", None)
    if kind == "SeparableConv2D":  # Keras 2 writes these too, TensorFlow.js refuses them
        config = {k: v for k, v in config.items() if k == "kernel_size" or k[:7] != "kernel_"}
    names = {"batch_shape": "batch_input_shape"}  # of Keras 3 in Keras 2
    if kind == "LeakyReLU":
        names["negative_slope"] = "alpha"
    config = {names.get(key, key): _value(key, value) for key, value in config.items()}
    rewritten = {"class_name": "Model" if kind == "Functional" else kind, "config": config}
    if "inbound_nodes" in layer:
        rewritten["name"] = layer["name"]
        rewritten["inbound_nodes"] = [
            [[*tensor, {}] for tensor in _tensors(call, siblings)]
            for call in layer["inbound_nodes"]
        ]
    return rewritten


def _tensors(value: Any, models: frozenset[str]) -> Iterator[list]:
    """The tensors [layer, call, index] in any structure, in the order in which Keras flattens it.

    The own graph of a nested model is its call 0 in Keras 2; Keras 3 does not count it.
    """
    value = [value[name] for name in sorted(value)] if isinstance(value, dict) else value
    if not isinstance(value, list):
        return
    if len(value) > 2 and isinstance(value[0], str) and isinstance(value[1], int):
        yield [value[0], value[1] + (value[0] in models), value[2]]
    else:
        for item in value:
            yield from _tensors(item, models)


def _value(key: str, value: Any) -> Any:
    if key == "dtype" and isinstance(value, dict):
        return value["config"]["name"]
    if key.endswith("_initializer"):
        return {"class_name": "Zeros", "config": {}}  # the weights follow
    if key.endswith(("_regularizer", "_constraint")):
        return None  # of training only
    return "swish" if value == "silu" else value
