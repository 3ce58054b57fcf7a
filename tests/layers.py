"""The table of layers: models that TensorFlow.js must answer as Keras does, or refuse by name.

`python -m tests.layers > docs/layers.md` converts them all, in both formats.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mnist_cnn.browser import keras2, proof, tfjs
from mnist_cnn.learning.backend import keras
from mnist_cnn.parameters import UserError

L = keras.layers
IMAGE, SEQUENCE, VOLUME, FRAMES = (8, 8, 3), (5, 3), (5, 5, 5, 2), (4, 6, 6, 2)
FORMATS = ("tfjs_layers_model", "tfjs_graph_model")


def stack(*layers, shape=IMAGE, dtype="float32"):
    return keras.Sequential([L.Input(shape, dtype=dtype), *layers])


def on(*shapes, dtype="float32"):
    """A model of one layer: on(shape)(layer), with several inputs for several shapes."""

    def model(layer):
        inputs = [L.Input(shape, dtype=dtype) for shape in shapes]
        return keras.Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))

    return model


def adapted():
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3, 2, (20, *IMAGE)))
    return layer


def residual():
    x = L.Input((8, 8, 4), name="picture")
    y = L.Conv2D(4, 3, padding="same", activation="relu", name="my_own_name")(x)
    return keras.Model(x, L.Dense(3)(L.Flatten()(L.Add()([x, y]))))


def nested():
    inner = stack(L.Conv2D(4, 3, name="twice"), L.ReLU())
    x = L.Input(IMAGE)
    y = L.Conv2D(3, 3, padding="same", name="twice")(x)
    return keras.Model(x, L.Add()([L.Dense(2)(inner(x)), L.Dense(2)(inner(y))]))


def nested_refused():
    x = L.Input(IMAGE)
    y = L.DepthwiseConv2D(3, dilation_rate=2, padding="same", name="wide")(x)
    y = L.Conv2D(2, 3, activation="softsign", name="soft")(y)
    return stack(L.Conv2D(3, 1), keras.Model(x, y), L.Flatten())


def masked():
    words, numbers = L.Input((6,)), L.Input(SEQUENCE)
    x = L.LSTM(3)(L.Embedding(9, 4, mask_zero=True)(words))
    y = L.Bidirectional(L.LSTM(3))(L.Masking(0.5)(numbers))
    return keras.Model([words, numbers], L.Concatenate()([x, y]))


def nested_output():
    dense, x = stack(L.Dense(3), shape=(4,)), L.Input((4,))
    inner = keras.Model(x, [x, L.Dense(2)(x), L.Dense(2)(x)])
    x = L.Input((4,))
    return keras.Model(x, [dense(x), *inner(x)])


def initial_state():
    x, h, c = L.Input(SEQUENCE), L.Input((4,)), L.Input((4,))
    return keras.Model([x, h, c], L.LSTM(4)(x, initial_state=[h, c]))


def outputs(structure):
    x = L.Input((4,))
    return keras.Model(x, structure(x))


image, sequence, volume = on(IMAGE), on(SEQUENCE), on(VOLUME)
indices = on((6,))
GRAPH = FORMATS[1]

# name: (model, words of the refusal as layers or "", words of the refusal as a graph or "")
TABLE = {
    "Dense, softmax": (lambda: stack(L.Flatten(), L.Dense(4, "softmax")), "", ""),
    "Dense on images": (lambda: image(L.Dense(3)), "", ""),
    "Conv1D": (lambda: sequence(L.Conv1D(4, 3, strides=2, padding="same")), "", ""),
    "Conv1D dilated": (lambda: on((9, 3))(L.Conv1D(4, 3, dilation_rate=2)), "", ""),
    "Conv1D causal": (lambda: sequence(L.Conv1D(4, 3, padding="causal")), "padding='causal'", ""),
    "Conv2D": (lambda: image(L.Conv2D(4, 3, strides=2, padding="same", use_bias=False)), "", ""),
    "Conv2D dilated": (lambda: image(L.Conv2D(4, 3, dilation_rate=2)), "", ""),
    "Conv2D in groups": (
        lambda: image(L.Conv2D(6, 3, groups=3, name="g")),
        "groups=3",
        "layer 'g'",
    ),
    "Conv3D": (lambda: volume(L.Conv3D(2, 2, padding="same")), "", ""),
    "Conv2DTranspose": (lambda: image(L.Conv2DTranspose(4, 3, strides=2)), "", ""),
    "Conv2DTranspose, output_padding": (
        lambda: image(L.Conv2DTranspose(1, 4, strides=2, output_padding=1)),
        "output_padding=(1, 1)",
        "",
    ),
    "Conv3DTranspose": (
        lambda: volume(L.Conv3DTranspose(2, 3, strides=2)),
        "",
        "Conv3DBackpropInputV2",
    ),
    "SeparableConv2D": (
        lambda: image(L.SeparableConv2D(4, 3, depth_multiplier=2, strides=2, padding="same")),
        "",
        "",
    ),
    "SeparableConv2D dilated": (lambda: image(L.SeparableConv2D(4, 3, dilation_rate=2)), "", ""),
    "DepthwiseConv2D": (lambda: image(L.DepthwiseConv2D(3, depth_multiplier=2)), "", ""),
    "DepthwiseConv2D dilated": (
        lambda: image(L.DepthwiseConv2D(3, dilation_rate=2, padding="same")),
        "dilation_rate=(2, 2)",
        "",
    ),
    "MaxPooling1D": (lambda: sequence(L.MaxPooling1D(2)), "", ""),
    "MaxPooling2D": (lambda: image(L.MaxPooling2D(3, 2, padding="same")), "", ""),
    "MaxPooling3D": (lambda: volume(L.MaxPooling3D(2)), "", ""),
    "MaxPooling3D, same": (lambda: volume(L.MaxPooling3D(3, 1, padding="same")), "", ""),
    "AveragePooling1D": (lambda: sequence(L.AveragePooling1D(2)), "", ""),
    "AveragePooling2D": (lambda: image(L.AveragePooling2D(3, 2, padding="same")), "", ""),
    "AveragePooling3D": (lambda: volume(L.AveragePooling3D(2, padding="same")), "", ""),
    "GlobalMaxPooling1D": (lambda: sequence(L.GlobalMaxPooling1D()), "", ""),
    "GlobalMaxPooling2D": (lambda: image(L.GlobalMaxPooling2D()), "", ""),
    "GlobalMaxPooling2D, keepdims": (
        lambda: image(L.GlobalMaxPooling2D(keepdims=True)),
        "",
        "",
    ),
    "GlobalAveragePooling1D": (lambda: sequence(L.GlobalAveragePooling1D()), "", ""),
    "GlobalAveragePooling2D": (lambda: image(L.GlobalAveragePooling2D()), "", ""),
    "BatchNormalization": (lambda: image(L.BatchNormalization(epsilon=0.1)), "", ""),
    "BatchNormalization, axis=1": (lambda: image(L.BatchNormalization(axis=1)), "axis=1", ""),
    "LayerNormalization": (lambda: image(L.LayerNormalization(axis=[1, 2])), "", ""),
    "Normalization": (lambda: image(adapted()), "(Normalization", ""),
    "Normalization, given": (
        lambda: image(L.Normalization(mean=1.0, variance=2.0)),
        "(Normalization",
        "",
    ),
    "Rescaling": (lambda: stack(L.Rescaling(1 / 255, offset=-0.5), L.Conv2D(2, 3)), "", ""),
    "Resizing": (lambda: image(L.Resizing(5, 11)), "", ""),
    "Resizing, nearest": (lambda: image(L.Resizing(5, 6, interpolation="nearest")), "", ""),
    "Resizing, cropped": (lambda: image(L.Resizing(5, 9, crop_to_aspect_ratio=True)), "", ""),
    "CenterCrop": (lambda: image(L.CenterCrop(5, 6)), "", ""),
    "CenterCrop, larger": (lambda: image(L.CenterCrop(9, 12)), "", ""),
    "CategoryEncoding, one_hot": (
        lambda: on((1,), dtype="int32")(L.CategoryEncoding(5, output_mode="one_hot")),
        "",
        "",
    ),
    "CategoryEncoding, multi_hot": (lambda: indices(L.CategoryEncoding(5)), "", ""),
    "CategoryEncoding, count": (
        lambda: indices(L.CategoryEncoding(5, output_mode="count")),
        "",
        "",
    ),
    "ZeroPadding2D, Cropping2D": (
        lambda: stack(L.ZeroPadding2D(((1, 2), (0, 3))), L.Cropping2D(((0, 1), (2, 0)))),
        "",
        "",
    ),
    "UpSampling2D": (lambda: image(L.UpSampling2D((2, 3))), "", ""),
    "UpSampling2D, bilinear": (lambda: image(L.UpSampling2D(2, interpolation="bilinear")), "", ""),
    "Reshape, Permute": (lambda: stack(L.Reshape((4, 48)), L.Permute((2, 1))), "", ""),
    "Flatten, RepeatVector": (lambda: stack(L.Flatten(), L.RepeatVector(3)), "", ""),
    "Softmax": (lambda: image(L.Softmax()), "", ""),
    "Softmax, axis=1": (lambda: image(L.Softmax(axis=1)), "axis=1", ""),
    "ReLU, max_value": (lambda: image(L.ReLU(max_value=0.5)), "", ""),
    "ReLU, negative_slope": (
        lambda: image(L.ReLU(negative_slope=0.1)),
        "negative_slope=0.1",
        "",
    ),
    "LeakyReLU, ELU, PReLU": (
        lambda: stack(L.LeakyReLU(negative_slope=0.2), L.ELU(), L.PReLU(shared_axes=[1, 2])),
        "",
        "",
    ),
    "ELU, alpha": (lambda: image(L.ELU(alpha=0.5)), "alpha=0.5", ""),
    "activations": (
        lambda: stack(
            *map(
                L.Activation,
                "elu gelu mish relu relu6 selu sigmoid silu softplus softsign tanh".split(),
            )
        ),
        "",
        "Softsign",
    ),
    "Activation, hard_sigmoid": (
        lambda: image(L.Activation("hard_sigmoid")),
        "activation='hard_sigmoid'",
        "",
    ),
    "Activation, glu": (
        lambda: image(L.Dense(2, activation="glu", name="d")),
        "layer 'd' (Dense, activation='glu', units=2)",
        "",
    ),
    "of training only": (
        lambda: stack(
            L.GaussianNoise(0.1),
            L.GaussianDropout(0.1),
            L.AlphaDropout(0.1),
            L.SpatialDropout1D(0.1),
            L.Dropout(0.5),
            L.Dense(2, kernel_regularizer="l2", kernel_constraint="max_norm"),
            shape=SEQUENCE,
        ),
        "",
        "",
    ),
    "Add": (lambda: on((4, 5), (1, 5))(L.Add()), "", ""),
    "Multiply": (lambda: on((5,), (5,))(L.Multiply()), "", ""),
    "Average": (lambda: on((5,), (5,))(L.Average()), "", ""),
    "Maximum": (lambda: on((5,), (5,))(L.Maximum()), "", ""),
    "Minimum": (lambda: on((5,), (5,))(L.Minimum()), "", ""),
    "Concatenate": (lambda: on((4, 5), (3, 5))(L.Concatenate(axis=1)), "", ""),
    "Dot": (lambda: on((4, 5), (5, 3))(L.Dot(axes=(2, 1))), "", ""),
    "Dot of four dimensions": (
        lambda: on((4, 5, 2), (2, 3, 4))(L.Dot(axes=(3, 1))),
        "Dot layer does not support",
        "",
    ),
    "Subtract": (lambda: on((4,), (4,))(L.Subtract()), "(Subtract", ""),
    "Embedding": (lambda: indices(L.Embedding(9, 4)), "", ""),
    "Embedding, integers, LSTM behind a mask": (
        lambda: stack(L.Embedding(9, 4, mask_zero=True), L.LSTM(3), shape=(6,), dtype="int32"),
        "",
        "",
    ),
    "Embedding, a mask that is ignored": (
        lambda: stack(L.Embedding(9, 4, mask_zero=True), L.GlobalAveragePooling1D(), shape=(6,)),
        "GlobalAveragePooling1D, behind a mask",
        "",
    ),
    "Embedding and Masking in a graph of layers": (masked, "", ""),
    "a nested model's output is an output": (nested_output, "", ""),
    "Masking": (lambda: stack(L.Masking(0.5), L.LSTM(4), shape=SEQUENCE), "", ""),
    "SimpleRNN": (lambda: sequence(L.SimpleRNN(4)), "", ""),
    "GRU": (lambda: sequence(L.GRU(4)), "GRUCell does not support reset_after", ""),
    "GRU, reset_after=False": (lambda: sequence(L.GRU(4, reset_after=False)), "", ""),
    "LSTM": (lambda: sequence(L.LSTM(4)), "", ""),
    "LSTM, return_sequences": (
        lambda: sequence(L.LSTM(4, return_sequences=True, go_backwards=True, use_bias=False)),
        "",
        "",
    ),
    "GRU, LSTM, open lengths": (
        lambda: stack(
            L.Masking(),
            L.Bidirectional(L.GRU(4, return_sequences=True, reset_after=False)),
            L.LSTM(3, return_sequences=True),
            L.SimpleRNN(2),
            shape=(None, 3),
        ),
        "",
        "",
    ),
    "LSTM, activations": (
        lambda: sequence(L.LSTM(4, activation="relu", recurrent_activation="tanh")),
        "",
        "",
    ),
    "LSTM, initial state": (initial_state, "", ""),
    "LSTM, returned state": (lambda: sequence(L.LSTM(4, return_state=True)), "", ""),
    "RNN of cells": (
        lambda: sequence(L.RNN([L.LSTMCell(4), L.GRUCell(3, reset_after=False)])),
        "",
        "",
    ),
    "RNN, SimpleRNNCell": (lambda: sequence(L.RNN(L.SimpleRNNCell(4))), "", ""),
    "ConvLSTM2D": (lambda: on(FRAMES)(L.ConvLSTM2D(3, 3, padding="same")), "", ""),
    "ConvLSTM2D, return_sequences": (
        lambda: on(FRAMES)(L.ConvLSTM2D(3, 3, strides=2, return_sequences=True)),
        "",
        "",
    ),
    "TimeDistributed": (lambda: on(FRAMES)(L.TimeDistributed(L.Conv2D(3, 3))), "", ""),
    "TimeDistributed model": (
        lambda: sequence(L.TimeDistributed(stack(L.Dense(3), shape=(3,)))),
        "",
        "",
    ),
    "TimeDistributed, LSTM, return_sequences": (
        lambda: on((4, 5, 3))(L.TimeDistributed(L.LSTM(3, return_sequences=True))),
        "",
        "",
    ),
    "TimeDistributed, open length": (
        lambda: stack(L.Dense(2), L.TimeDistributed(L.Dense(3), name="t"), shape=(None, 3)),
        "",
        "layer 't' (TimeDistributed",
    ),
    "Bidirectional LSTM": (lambda: sequence(L.Bidirectional(L.LSTM(4))), "", ""),
    "Bidirectional GRU, return_sequences": (
        lambda: sequence(
            L.Bidirectional(L.GRU(4, reset_after=False, return_sequences=True), merge_mode="sum")
        ),
        "",
        "",
    ),
    "Bidirectional, behind a mask": (
        lambda: stack(L.Masking(), L.Bidirectional(L.LSTM(4), merge_mode="mul"), shape=SEQUENCE),
        "",
        "",
    ),
    "Bidirectional RNN of a cell": (
        lambda: sequence(L.Bidirectional(L.RNN(L.LSTMCell(4), name="r"), name="b")),
        "Improper config",
        "",
    ),
    "residual": (residual, "", ""),
    "nested, shared, one name twice": (nested, "", ""),
    "nested, refused": (nested_refused, "layer 'wide'", "layer 'soft'"),
    "outputs by name": (
        lambda: outputs(lambda x: {"cls": L.Dense(3)(x), "box": [L.Dense(2)(x), L.Dense(1)(x)]}),
        "",
        "",
    ),
    "one output twice": (
        lambda: outputs(lambda x: [y := L.Dense(3)(x), stack(L.Dense(2), shape=(3,))(y), y, x]),
        "",
        "",
    ),
    "mixed precision": (
        lambda: stack(L.Conv2D(4, 3, dtype="mixed_float16"), L.Flatten(), L.Dense(3)),
        "",
        "",
    ),
    "names of other alphabets": (
        lambda: keras.Sequential([L.Input((6,)), L.Dense(2, name="слой")], name="модель"),
        "",
        "",
    ),
    "sizes left open": (
        lambda: stack(L.Conv2D(2, 5), L.GlobalMaxPooling2D(), shape=(None, None, 1)),
        "",
        "",
    ),
    "RandomFlip": (lambda: stack(L.RandomFlip(), L.Conv2D(2, 3)), "", ""),
    "GroupNormalization": (lambda: image(L.GroupNormalization(3)), "GroupNormalization", ""),
    "MultiHeadAttention": (
        lambda: on((5, 6), (4, 6))(lambda both: L.MultiHeadAttention(2, 4)(*both)),
        "(MultiHeadAttention",
        "",
    ),
    "Attention": (lambda: on((5, 6), (5, 6))(L.Attention()), "(Attention", ""),
    "Dense, tanh": (lambda: stack(L.Flatten(), L.Dense(4, "tanh"), L.Dense(2)), "", ""),
    "gelu, hard_silu": (
        lambda: stack(L.Conv2D(3, 3, activation="hard_silu"), L.Dense(2, "gelu")),
        "activation='hard_silu'",
        "",
    ),
    "Dense, softsign": (
        lambda: stack(L.Dense(3, "softsign", name="first"), L.Dense(2, name="first_1")),
        "",
        "layer 'first' (Dense, activation='softsign', units=3) is not the same",
    ),
    "identities": (
        lambda: stack(
            *(L.RandomRotation(0.2), L.RandomZoom(0.2), L.SpatialDropout2D(0.2)),
            *(L.Identity(), L.ActivityRegularization(0.1), L.Conv2D(2, 3)),
        ),
        "",
        "",
    ),
    "integers of 64 bits": (lambda: on((6,), dtype="int64")(L.Embedding(9, 4)), "", ""),
    "pixels of 8 bits": (lambda: on(IMAGE, dtype="uint8")(L.Rescaling(1 / 255)), "", ""),
    "operations": (
        lambda: sequence(lambda x: keras.ops.mean(x, axis=1) + 2.0),
        "layer 'mean",
        "",
    ),
    "LSTM, stateful": (
        lambda: keras.Sequential([L.Input(batch_shape=(2, *SEQUENCE)), L.LSTM(4, stateful=True)]),
        "",
        "stateful=True",
    ),
    "large weights": (lambda: stack(L.LSTM(130), L.Dense(600), shape=SEQUENCE), "", ""),
    "EinsumDense": (
        lambda: sequence(L.EinsumDense("abc,cd->abd", output_shape=(None, 4))),
        "(EinsumDense",
        "",
    ),
}


def randomised(model):
    """Weights that hide no error: biases and moving averages are not 0 and 1."""
    rng = np.random.default_rng(0)
    for layer in keras2.every(model):
        if type(layer).__name__ == "Normalization" or hasattr(layer, "layers"):
            continue
        for weight in layer.weights:
            low = 0.5 if "var" in weight.name else -0.7
            if "seed" not in weight.name:
                weight.assign(rng.uniform(low, 0.9, weight.shape))
    return model


def converted(names, output_format, table=TABLE):
    """What convert says to the models of the table: "" or the refusal. One process of Node."""
    said, jobs, models = dict.fromkeys(names, ""), [], {}
    with TemporaryDirectory() as scratch:
        for number, name in enumerate(names):
            try:
                model, _ = keras2.ready(randomised(table[name][0]()))
                samples = proof.drawn(model)
                folder = Path(scratch, str(number))
                folder.mkdir()
                tfjs.write(model, folder, output_format=output_format)
            except UserError as error:
                said[name] = str(error)
                continue
            jobs.append((folder, samples.inputs))
            models[name] = (folder, samples)
        for name, found in zip(models, tfjs.answers(jobs), strict=True):
            try:
                proof.judge(*models[name], found, True, output_format=output_format)
            except UserError as error:
                said[name] = str(error)
    return said


def document():
    """docs/layers.md."""
    with redirect_stdout(sys.stderr):  # the converter talks
        said = [converted(TABLE, form) for form in FORMATS]
    lines = [
        "# Layers",
        "",
        "What `convert` says to small models with random weights: proven, or the refusal. Written",
        "by `python -m tests.layers > docs/layers.md`; the default tests hold to the table.",
        "",
        "| layer, options | `tfjs_layers_model` | `tfjs_graph_model` |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {name} | "
        + " | ".join(one[name].replace("|", "\\|") or "proven" for one in said)
        + " |"
        for name in TABLE
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    document()
