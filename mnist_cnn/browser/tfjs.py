"""A Keras model as files that TensorFlow.js 4.22 reads, and what it answers from them."""

import json
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from mnist_cnn.browser import keras2, node
from mnist_cnn.browser.output_folder import digest
from mnist_cnn.learning.backend import keras, tf

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tensorflow_hub imports pkg_resources
    from tensorflowjs.converters import tf_saved_model_conversion_v2 as converter
    from tensorflowjs.write_weights import write_weights

FUSED = {b"BiasAdd", b"Relu", b"Relu6", b"Elu", b"LeakyRelu", b"Sigmoid"}  # by TensorFlow.js
LARGE = 2**16  # numbers in a weight
run_grappler, tensor_array = converter._run_grappler, tf.TensorArray
FORMATS = ("tfjs_layers_model", "tfjs_graph_model")
QUANTIZE = ("none", "float16", "uint16", "uint8")


def write(model: keras.Model, folder: Path, quantize: str = "none", **options: Any) -> None:
    """Write model.json and its shards, named by digest; `options`: as on the command line."""
    if options.get("output_format") == FORMATS[1]:
        content, groups = _graph(model)
    else:
        split = options.get("split_weights_by_layer")
        parts = [[layer] for layer in model.layers] if split else [model.layers]
        named = [dict(pair for one in part for pair in _weights(one, one.name)) for part in parts]
        groups = [[{"name": k, "data": np.asarray(v, "f4")} for k, v in w.items()] for w in named]
        config = {"keras_version": keras.__version__, "model_config": keras2.topology(model)}
        content = {"format": "layers-model", "modelTopology": config}
    folder.mkdir(parents=True, exist_ok=True)
    widths = {} if quantize == "none" else {quantize: "*"}
    most = options.get("weight_shard_size_bytes", 4 * 2**20)
    manifest = write_weights(list(filter(None, groups)) or [[]], str(folder), most, False, widths)
    for group in manifest:
        for place, name in enumerate(group["paths"]):
            shard = folder / name  # what a reader of an older model.json asks for stays its own
            group["paths"][place] = name = f"{shard.stem}-{digest(shard.read_bytes())}.bin"
            shard.rename(folder / name)
    content |= {"convertedBy": "mnist_cnn", "weightsManifest": manifest}
    content["userDefinedMetadata"] = {"metadata": options.get("metadata", "")}
    (folder / "model.json").write_text(json.dumps(content))


def _weights(layer: Any, scope: str) -> Iterator[tuple[str, Any]]:
    """The weights of a layer, or of the layers in it, under the names TensorFlow.js gives them."""
    layer = keras2.lowered(layer.layer if type(layer).__name__ == "TimeDistributed" else layer)
    cells = getattr(getattr(layer, "cell", None), "cells", ())
    inner = [(one, f"{scope}/RNNCell_{index}") for index, one in enumerate(cells)]
    if hasattr(layer, "layers"):
        inner = [(one, one.name) for one in layer.layers]
    elif type(layer).__name__ == "Bidirectional":
        inner = [(x, f"{scope}/{x.name}") for x in (layer.forward_layer, layer.backward_layer)]
    for part in inner:
        yield from _weights(*part)
    for weight in () if inner else layer.weights:
        name = weight.name.rsplit("/", 1)[-1].split(":")[0]
        if (type(layer).__name__, name) == ("DepthwiseConv2D", "kernel"):
            name = "depthwise_kernel"  # as in Keras 2
        yield f"{scope}/{name}", weight


def packed(model: keras.Model, inputs: Sequence) -> Any:
    """A flat list of inputs in the structure in which the model takes them."""
    structure = getattr(model, "_inputs_struct", getattr(model, "_nested_inputs", None))
    return inputs[0] if structure is None else tf.nest.pack_sequence_as(structure, list(inputs))


def _graph(model: keras.Model) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """What model.json says of a graph, or an error that its reader is to give; its weights."""
    for layer in keras2.every(model):
        layer._fused = False  # or Keras 2 normalizes layers by a BatchNormalization in training
    # Constants are copied some fifteen times on the way: large ones are inputs until the end.
    large = {f"weight_{i}": v for i, v in enumerate(model.variables) if math.prod(v.shape) >= LARGE}
    function = _traced(model, large)
    try:
        frozen = converter._freeze_saved_model_v2(function, True)
        signed = converter._build_signature_def(frozen, frozen.inputs, frozen.outputs)
        with patch.object(converter, "_run_grappler", _optimized):
            graph = converter.optimize_graph(frozen, signed, strip_debug_ops=True)
    except ValueError as error:
        kinds = str(error).partition("\n")[2] or "AssignVariableOp"  # of a stateful layer
        return {"error": f"it needs {kinds}, which TensorFlow.js does not have"}, []
    (weights,) = converter.extract_weights(graph)
    for one in graph.node:
        if one.name in large:
            weights.append({"name": one.name, "data": np.asarray(large[one.name])})
            one.op, value = "Const", one.attr["value"].tensor
            value.dtype = one.attr["dtype"].type
            value.tensor_shape.CopyFrom(one.attr["shape"].shape)
    signature = {}
    for end, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        about = getattr(signed, end)
        found = [converter.MessageToDict(about[one.name]) for one in getattr(frozen, end)]
        names = [tensor._keras_history[0].name for tensor in tensors]
        names = [f"{n}_{i}" if names.count(n) > 1 else n for i, n in enumerate(names)]
        signature[end] = dict(zip(names, found, strict=False))  # without the large weights
    topology = {"format": "graph-model", "modelTopology": converter.MessageToDict(graph)}
    return topology | {"signature": signature}, [weights]


def _traced(model: keras.Model, large: dict[str, Any]) -> Any:
    """The function of a model's inputs and of some of its weights."""
    ends = [(f"input_{index}", tensor) for index, tensor in enumerate(model.inputs)]
    signature = [tf.TensorSpec(t.shape, t.dtype, name) for name, t in [*ends, *large.items()]]

    @tf.function(input_signature=signature, autograph=False)
    def serve(*given: tf.Tensor) -> list[tf.Tensor]:
        new = dict(zip(map(id, large.values()), given[len(ends) :], strict=True))
        with ExitStack() as patches:
            for part in map(vars, model._flatten_layers()):
                tensors = {key: new[id(held)] for key, held in part.items() if id(held) in new}
                patches.enter_context(patch.dict(part, tensors))
            for module in (tf, tf.compat.v2):
                patches.enter_context(patch.object(module, "TensorArray", _array))
            erfc = patch("tensorflow.python.ops.math_ops.erfc", lambda x: 1 - tf.math.erf(x))
            patches.enter_context(erfc)
            return tf.nest.flatten(model(packed(model, given[: len(ends)]), training=False))

    return serve.get_concrete_function()


def _array(dtype: Any, size: Any, element_shape: Any = None, **options: Any) -> Any:
    """A TensorArray, or for outputs, which TensorFlow.js would free in a loop, one that grows."""

    class Grown(NamedTuple):  # which a loop takes as a variable
        values: Any

        def write(self, step: Any, value: Any) -> Any:
            before = [] if isinstance(step, int) else [self.values]  # only the last is kept
            return Grown(tf.concat([*before, tf.reshape(value, [-1])], 0))

        def stack(self) -> Any:
            return tf.reshape(self.values, [size, -1, *element_shape[1:]])

    if element_shape is None:
        return tensor_array(dtype, size, **options)
    return Grown(tf.compat.v1.placeholder_with_default(tf.zeros([0], dtype), [None]))


def _optimized(config: Any, *graph: Any) -> Any:
    """What grappler makes of a graph, without fusing if it fuses what TensorFlow.js does not."""
    found = run_grappler(config, *graph)
    fused = {o for n in found.node if "fused_ops" in n.attr for o in n.attr["fused_ops"].list.s}
    if fused - FUSED:
        config.graph_options.rewrite_options.optimizers.remove("remap")
        found = run_grappler(config, *graph)
    return found


def answers(jobs: Sequence[tuple[Path, list[np.ndarray]]]) -> list[dict[str, Any]]:
    """Load the files of each folder in real TensorFlow.js, all in one process of Node, and answer.

    Each job has a folder and the inputs (n, ...). An answer is {outputs: float32 (n, ...) each,
    seconds_per_example (warm)}, or {error, layers: names of those it was in, innermost first}.
    """
    with tempfile.TemporaryDirectory() as scratch:
        told: list[dict[str, Any]] = []
        for number, (folder, arrays) in enumerate(jobs):
            job = {"folder": str(folder), "files": f"{scratch}/{number}", "count": len(arrays[0])}
            told.append(job | {"shapes": [array.shape[1:] for array in arrays]})
            for index, array in enumerate(arrays):
                Path(f"{job['files']}-in{index}.f32").write_bytes(array.astype("<f4").tobytes())
        content = {"modules": str(node.modules()), "jobs": told}
        Path(scratch, "jobs.json").write_text(json.dumps(content))
        found = json.loads(node.run("answer.mjs", f"{scratch}/jobs.json"))
        for job, answer in zip(told, found, strict=True):
            answer["outputs"] = [
                np.fromfile(f"{job['files']}-out{index}.f32", "<f4").reshape(job["count"], *shape)
                for index, shape in enumerate(answer.get("shapes", ()))
            ]
        return found
