"""The topology of a Keras 3 or Keras 2 model as TensorFlow.js 4.22 reads it: as Keras 2 wrote it.

What TensorFlow.js would ignore or misread without a word is left to the proof; here only what it
has no name for is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mnist_cnn.learning.backend import keras
from mnist_cnn.parameters import UserError

# Layers that TensorFlow.js registers.
LAYERS = frozenset(
    """InputLayer Dense Flatten Reshape Permute RepeatVector Masking Embedding Dropout
    SpatialDropout1D GaussianNoise GaussianDropout AlphaDropout Activation ReLU LeakyReLU PReLU ELU
    ThresholdedReLU Softmax Conv1D Conv2D Conv3D Conv2DTranspose Conv3DTranspose SeparableConv2D
    DepthwiseConv2D Cropping2D UpSampling2D ZeroPadding2D MaxPooling1D MaxPooling2D MaxPooling3D
    AveragePooling1D AveragePooling2D AveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D
    GlobalAveragePooling1D GlobalAveragePooling2D Add Multiply Average Maximum Minimum Concatenate
    Dot BatchNormalization LayerNormalization RNN SimpleRNN GRU LSTM SimpleRNNCell GRUCell LSTMCell
    StackedRNNCells ConvLSTM2D ConvLSTM2DCell TimeDistributed Bidirectional Rescaling CenterCrop
    Resizing CategoryEncoding RandomWidth Sequential Functional Model""".split()
)
ACTIVATIONS = frozenset(
    """elu gelu hard_sigmoid linear mish relu relu6 selu sigmoid silu softmax softplus softsign
    swish tanh""".split()
)
# Options that TensorFlow.js refuses, or would misread, with a message that names no layer.
ONLY = {"groups": 1, "rms_scaling": False, "reset_after": False}
GRAPH = "try output_format=tfjs_graph_model, which is proven likewise"
Config = dict[str, Any]


def topology(model: keras.Model) -> Config:
    """The `model_config` of a model. Raises UserError that names what TensorFlow.js has not."""
    return _layer(json.loads(model.to_json()))


def _is_model(layer: Config) -> bool:
    return layer["class_name"] in ("Sequential", "Functional", "Model")


def _layer(layer: Config, siblings: frozenset[str] = frozenset()) -> Config:
    """One layer or model; `siblings`: the names of the models among the layers beside it."""
    kind, config = layer["class_name"], dict(layer["config"])
    name = config.get("name", "?")
    if kind not in LAYERS:
        raise UserError(
            f"layer {name!r} is a {kind}, which TensorFlow.js does not have as a layer; {GRAPH}, "
            "or put layers of the same effect in its place."
        )
    for option, value in ONLY.items():
        if config.get(option, value) != value:
            raise UserError(
                f"layer {name!r} ({kind}) has {option}={config[option]}, which TensorFlow.js can "
                f"do in no layer, only {option}={value}; {GRAPH}."
            )
    models = frozenset(
        inner["config"]["name"] for inner in config.get("layers", ()) if _is_model(inner)
    )
    shifted = frozenset() if _from_keras_2(config) else models
    for key in ("layers", "cells"):
        if key in config:
            config[key] = [_layer(inner, models) for inner in config[key]]
    for key in ("layer", "cell"):
        if key in config:
            config[key] = _layer(config[key])
    for end in ("input_layers", "output_layers"):
        if end in config:
            config[end] = [_tensor(tensor, shifted) for tensor in _ends(config[end])]
    if kind == "Bidirectional":  # TensorFlow.js puts the prefix on, and derives the other one
        inner = config["layer"]["config"]
        inner["name"] = inner["name"].removeprefix("forward_")
        config.pop("backward_layer", None)
    if kind == "SeparableConv2D":  # Keras 2 writes these too, TensorFlow.js refuses them
        config = {k: v for k, v in config.items() if k == "kernel_size" or k[:7] != "kernel_"}
    config = {_key(kind, key): _value(name, key, value) for key, value in config.items()}

    rewritten = {"class_name": "Model" if kind == "Functional" else kind, "config": config}
    if "inbound_nodes" in layer:
        rewritten["name"] = layer["name"]
        rewritten["inbound_nodes"] = [
            _inbound(name, kind, call, siblings) for call in layer["inbound_nodes"]
        ]
    return rewritten


def _from_keras_2(config: Config) -> bool:
    calls = [call for inner in config.get("layers", ()) for call in inner.get("inbound_nodes", ())]
    return any(isinstance(call, list) for call in calls)


def _tensor(history: list, models: frozenset[str]) -> list:
    """[layer, node, tensor]; in Keras 2 a nested model's own graph is its node 0, in 3 its call."""
    name, call, index = history
    return [name, call + (name in models), index]


def _ends(ends: Any) -> Iterator[list]:
    """Inputs or outputs of a functional model, [layer, node, tensor] each, out of any structure."""
    if isinstance(ends, dict):
        ends = [ends[name] for name in sorted(ends)]  # the order in which Keras flattens
    if ends and isinstance(ends[0], str):
        yield ends
        return
    for end in ends:
        yield from _ends(end)


def _inbound(name: str, kind: str, call: Any, models: frozenset[str]) -> list:
    """One call of a layer: the tensors that went in, as [layer, node, tensor, {}] each."""
    if isinstance(call, list):
        tensors = [tensor[:3] for tensor in call]
        keywords = {key: value for tensor in call for key, value in (*tensor[3:], {})[0].items()}
    else:
        keywords = dict(call["kwargs"])
        given = [call["args"], keywords.pop("initial_state", None)]
        tensors = [_tensor(history, models) for history in _histories(given)]
    for key, value in keywords.items():
        if key != "training" and value not in (None, False):  # it never trains
            raise UserError(
                f"layer {name!r} ({kind}) is called with {key}, which TensorFlow.js would ignore; "
                f"{GRAPH}."
            )
    return [[*tensor, {}] for tensor in tensors]


def _histories(value: Any) -> Iterator[list]:
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        yield value["config"]["keras_history"]
    elif isinstance(value, list):
        for item in value:
            yield from _histories(item)


def _key(kind: str, key: str) -> str:
    """The name of an option in Keras 2."""
    if (kind, key) == ("LeakyReLU", "negative_slope"):
        return "alpha"
    return {"batch_shape": "batch_input_shape"}.get(key, key)


def _value(layer: str, key: str, value: Any) -> Any:
    if key == "dtype" and isinstance(value, dict):
        return value["config"]["name"]
    if key.endswith("_initializer"):
        return {"class_name": "Zeros", "config": {}}  # the weights follow
    if key.endswith(("_regularizer", "_constraint")):
        return None  # of training only
    if key.endswith("activation"):
        if isinstance(value, dict) or value not in ACTIVATIONS:
            raise UserError(
                f"layer {layer!r} has activation {value!r}, which TensorFlow.js does not have; "
                f"allowed: {', '.join(sorted(ACTIVATIONS))}; or {GRAPH}."
            )
        return "swish" if value == "silu" else value
    return value
