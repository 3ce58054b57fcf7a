"""A Keras model as TensorFlow.js 4.22 reads it: float32, its names, the topology of Keras 2.

What TensorFlow.js has but fails at or does otherwise (Resizing, CenterCrop, CategoryEncoding,
interpolated UpSampling2D, keepdims) is written as other layers; what it lacks the proof names.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from mnist_cnn.learning.backend import keras, library, tf
from mnist_cnn.parameters import UserError

REDUCED = re.compile(r'"(mixed_float16|mixed_bfloat16|float16|bfloat16|float64)"')
TRAINING = ("_initializer", "_regularizer", "_constraint")  # ends of keys that an answer needs not
RENAMED = {"batch_shape": "batch_input_shape", "LeakyReLU.negative_slope": "alpha"}  # in Keras 2
L = keras.layers
Stack = tuple[list[Any], list[np.ndarray]]  # layers and all their weights


def ready(model: Any) -> tuple[Any, bool]:
    """The model in float32 with names that TensorFlow.js accepts, and whether it was in another.

    `model` is of Keras 3 or of tf_keras, and changes. Raises UserError if its input is not known.
    """
    if not getattr(model, "inputs", None):
        raise UserError("the model has no known input: give it an Input, then save it again.")
    names: set[str] = set()
    before = model.to_json()
    for layer in (model, *every(model)):
        name = re.sub(r"[^A-Za-z0-9_.\-/]", "_", layer.name)  # what TensorFlow allows
        name = name if re.match(r"[A-Za-z0-9.]", name) else f"layer{name}"
        while name in names:
            name += "_"
        names.add(name)
        setattr(layer, "name" if isinstance(layer, keras.Layer) else "_name", name)
    text, reduced = REDUCED.subn('"float32"', model.to_json())
    if text != before:  # variables keep precision and name for life
        weights = model.get_weights()
        model = library(model).models.model_from_json(text)
        model.set_weights(weights)
    return model, bool(reduced)


def is_model(layer: Any) -> bool:
    """Whether a layer is itself a model of layers."""
    return isinstance(getattr(layer, "layers", None), list)


def every(model: Any) -> Iterator[Any]:
    """The layers of a model, each nested model with its own after it."""
    for layer in model.layers:
        yield layer
        if is_model(layer):
            yield from every(layer)


def first_input(layer: Any) -> Any:
    """The first tensor that goes into the last call of a layer."""
    return tf.nest.flatten(layer._inbound_nodes[-1].input_tensors)[0]


def lowered(layer: Any) -> Any:
    """A layer, or for one of those above that has an equal, that: a Sequential of Keras 3."""
    found = LOWERED.get(type(layer).__name__, lambda layer: None)(layer)
    if found is None:
        return layer
    stack, weights = found
    for number, part in enumerate(stack):
        part.name = f"{layer.name}_{number}"
    first = keras.Input(first_input(layer).shape[1:], dtype="float32")
    built = keras.Sequential([first, *stack], name=layer.name)
    built.set_weights(weights)
    return built


def _resizing(layer: Any) -> Stack | None:
    """One matrix for the rows and one for the columns, found by what the layer does to images."""
    _, height, width, channels = first_input(layer).shape
    nearest = type(layer).__name__ == "UpSampling2D" and layer.interpolation == "nearest"
    if nearest or layer.data_format != "channels_last" or None in (height, width):
        return None
    lines = np.repeat(np.eye(height, dtype=np.float32)[..., None, None], width, axis=2)
    rows = np.asarray(layer(np.repeat(lines, channels, axis=3)))[:, :, 0, 0]
    lines = np.repeat(np.eye(width, dtype=np.float32)[:, None, :, None], height, axis=1)
    columns = np.asarray(layer(np.repeat(lines, channels, axis=3)))[:, 0, :, 0]
    dense = [L.Dense(matrix.shape[1], use_bias=False) for matrix in (rows, columns)]
    turns = [L.Permute(order) for order in ((3, 2, 1), (1, 3, 2), (2, 3, 1))]
    return [turns[0], dense[0], turns[1], dense[1], turns[2]], [rows, columns]


def _category_encoding(layer: Any) -> Stack | None:
    """An embedding that gives each index a one of its own, and how those of an example join."""
    count, (_, *rest) = layer.num_tokens, first_input(layer).shape
    if len(rest) != 1 or (layer.output_mode == "count" and rest[0] is None):
        return None
    joined = {
        "count": [L.GlobalAveragePooling1D(), L.Rescaling(rest[0] or 1)],
        "multi_hot": [L.GlobalMaxPooling1D()],
        "one_hot": [L.Reshape((count,))] if rest[0] == 1 else [],
    }[layer.output_mode]
    return [L.Embedding(count, count), *joined], [np.eye(count, dtype=np.float32)]


def _pooling(layer: Any) -> Stack | None:
    pooled = getattr(L, type(layer).__name__)(data_format=layer.data_format)
    shape = tuple(layer.compute_output_shape(first_input(layer).shape))[1:]
    return ([pooled, L.Reshape(shape)], []) if layer.keepdims else None


LOWERED: dict[str, Callable[[Any], Stack | None]] = {
    **dict.fromkeys(("Resizing", "CenterCrop", "UpSampling2D"), _resizing),
    "CategoryEncoding": _category_encoding,
    **dict.fromkeys(("GlobalAveragePooling2D", "GlobalMaxPooling2D"), _pooling),
}


def topology(model: Any) -> dict[str, Any]:
    """The `model_config` of a model, as model.json holds it."""
    pairs = [(layer, lowered(layer)) for layer in every(model)]
    # The own graph of a nested model is its call 0 in Keras 2; Keras 3 does not count it.
    keras_3 = isinstance(model, keras.Model)
    shifted = {one.name for one, two in pairs if one is not two or (keras_3 and is_model(one))}
    lower: dict[str, dict] = {}

    def rewritten(layer: dict[str, Any]) -> dict[str, Any]:
        """An object of the JSON, the objects in it being rewritten already."""
        if not isinstance(layer.get("config"), dict):
            return layer
        layer |= lower.get(layer["config"].get("name"), {})
        kind, config = layer["class_name"], layer["config"]
        for end in {"input_layers", "output_layers"} & config.keys():
            config[end] = list(_tensors(config[end], shifted))
        if kind == "Bidirectional":  # TensorFlow.js puts the prefix on, and derives the other one
            inner = config["layer"]["config"]
            inner["name"] = inner["name"].removeprefix("forward_")
            config.pop("backward_layer", None)
        config = {
            RENAMED.get(k, RENAMED.get(f"{kind}.{k}", k)): "swish" if v == "silu" else v
            for k, v in config.items()
            if not k.endswith(TRAINING) and not (k == "dtype" and isinstance(v, dict))
        }
        found = {"class_name": "Model" if kind == "Functional" else kind, "config": config}
        if "inbound_nodes" in layer:
            calls = [[[*t, {}] for t in _tensors(call, shifted)] for call in layer["inbound_nodes"]]
            found |= {"name": layer["name"], "inbound_nodes": calls}
        return found

    lower |= {
        a.name: json.loads(b.to_json(), object_hook=rewritten) for a, b in pairs if a is not b
    }
    return json.loads(model.to_json(), object_hook=rewritten)


def _tensors(value: Any, shifted: Collection[str]) -> Iterator[list]:
    """The tensors [layer, call, index] in any structure, in the order in which Keras flattens."""
    value = [value[name] for name in sorted(value)] if isinstance(value, dict) else value
    if not isinstance(value, list):
        return
    if len(value) > 2 and isinstance(value[0], str) and isinstance(value[1], int):
        yield [value[0], value[1] + (value[0] in shifted), value[2]]
    else:
        for item in value:
            yield from _tensors(item, shifted)
