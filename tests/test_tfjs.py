"""One small model a layer type: real TensorFlow.js answers as Keras does, or it is refused."""

import numpy as np
import pytest

from mnist_cnn.browser import tfjs
from mnist_cnn.learning.backend import keras
from mnist_cnn.parameters import UserError

layers = keras.layers


def sequential(*stack, shape=(8, 8, 3)):
    return keras.Sequential([layers.Input(shape), *stack])


def residual():
    x = layers.Input((8, 8, 4), name="picture")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="my_own_name")(x)
    return keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.Add()([x, y]))))


def two_in_two_out():
    a, b = layers.Input((5,), name="a"), layers.Input((7,), name="b")
    both = layers.Concatenate()([layers.Dense(4)(a), layers.Dense(4)(b)])
    return keras.Model([a, b], [layers.Dense(2)(both), layers.Dense(3)(both)])


def shared():
    a, b = layers.Input((5,)), layers.Input((5,))
    dense = layers.Dense(4, activation="tanh")
    return keras.Model([a, b], layers.Multiply()([dense(a), dense(b)]))


def merged(layer):
    a, b = layers.Input((5,)), layers.Input((5,))
    return keras.Model([a, b], layer([a, b]))


def adapted():
    normalise = layers.Normalization(name="adapted")
    normalise.adapt(np.random.default_rng(0).normal(3, 2, (20, 8, 8, 3)))
    return normalise


def nested():
    inner = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.ReLU()])
    x = layers.Input((8, 8, 3))
    return keras.Model(x, layers.GlobalAveragePooling2D()(inner(x)))


MODELS = {
    "Dense": lambda: sequential(layers.Flatten(), layers.Dense(4, "softmax")),
    "Conv2D": lambda: sequential(layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)),
    "Conv2D dilated": lambda: sequential(layers.Conv2D(4, 3, dilation_rate=2)),
    "Conv2DTranspose": lambda: sequential(layers.Conv2DTranspose(4, 3, strides=2)),
    "DepthwiseConv2D": lambda: sequential(layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "SeparableConv2D": lambda: sequential(layers.SeparableConv2D(4, 3, activation="relu")),
    "Conv1D": lambda: sequential(layers.Conv1D(4, 3, padding="same"), shape=(9, 3)),
    "BatchNormalization": lambda: sequential(layers.BatchNormalization()),
    "LayerNormalization": lambda: sequential(layers.LayerNormalization()),
    "MaxPooling2D": lambda: sequential(layers.MaxPooling2D(3, 2, padding="same")),
    "AveragePooling2D": lambda: sequential(layers.AveragePooling2D(2)),
    "GlobalMaxPooling2D": lambda: sequential(layers.GlobalMaxPooling2D()),
    "GlobalAveragePooling2D": lambda: sequential(layers.GlobalAveragePooling2D()),
    "MaxPooling1D": lambda: sequential(layers.MaxPooling1D(2), shape=(8, 3)),
    "Dropout": lambda: sequential(layers.Dropout(0.5), layers.Flatten(), layers.Dense(2)),
    "Rescaling": lambda: sequential(layers.Rescaling(2.0, offset=-1.0)),
    "padding and cropping": lambda: sequential(layers.ZeroPadding2D(2), layers.Cropping2D(1)),
    "UpSampling2D": lambda: sequential(layers.UpSampling2D(2)),
    "Reshape, Permute": lambda: sequential(layers.Reshape((4, 48)), layers.Permute((2, 1))),
    "activations": lambda: sequential(
        *(layers.Activation(name) for name in sorted(tfjs.ACTIVATIONS) if name != "softmax")
    ),
    "LeakyReLU, ELU, PReLU": lambda: sequential(
        layers.LeakyReLU(negative_slope=0.2), layers.ELU(), layers.PReLU()
    ),
    "ReLU with max_value": lambda: sequential(layers.ReLU(max_value=0.5)),
    "regularised": lambda: sequential(
        layers.Conv2D(2, 3, kernel_regularizer="l2", kernel_constraint="max_norm")
    ),
    "residual add": residual,
    "Normalization": lambda: sequential(adapted()),
    "Conv3D": lambda: sequential(layers.Conv3D(2, 2), shape=(5, 6, 6, 2)),
    "AveragePooling3D": lambda: sequential(layers.AveragePooling3D(2), shape=(4, 4, 4, 2)),
    "AveragePooling1D": lambda: sequential(layers.AveragePooling1D(2), shape=(8, 3)),
    "GlobalAveragePooling1D": lambda: sequential(layers.GlobalAveragePooling1D(), shape=(8, 3)),
    "GlobalMaxPooling1D": lambda: sequential(layers.GlobalMaxPooling1D(), shape=(8, 3)),
    "RepeatVector, Softmax": lambda: sequential(
        layers.RepeatVector(3), layers.Softmax(), shape=(4,)
    ),
    "Embedding": lambda: sequential(layers.ReLU(max_value=3), layers.Embedding(5, 4), shape=(7,)),
    "noise of training": lambda: sequential(
        layers.GaussianNoise(0.1),
        layers.GaussianDropout(0.1),
        layers.SpatialDropout1D(0.1),
        shape=(7, 2),
    ),
    "Average": lambda: merged(layers.Average()),
    "Maximum": lambda: merged(layers.Maximum()),
    "Minimum": lambda: merged(layers.Minimum()),
    "Dot": lambda: merged(layers.Dot(axes=1)),
    "two inputs, two outputs": two_in_two_out,
    "shared layer": shared,
    "nested model": nested,
}


def compared(model, folder, **options):
    """The largest difference between Keras and TensorFlow.js on random inputs."""
    rng = np.random.default_rng(0)
    for weight in model.weights:  # so that moving averages and biases count
        if "adapted" in weight.path:
            continue
        weight.assign(rng.uniform(0.1, 1.0, weight.shape) / max(1, np.sqrt(weight.shape[0])))
    inputs = [rng.normal(size=(4, *t.shape[1:])).astype(np.float32) for t in model.inputs]
    folder.mkdir()
    written = tfjs.Written(**options)
    tfjs.write(model, folder, written)
    found = tfjs.answers(folder, written.output_format, inputs).outputs
    expected = model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
    expected = expected if isinstance(expected, list) else [expected]
    pairs = zip(found, expected, strict=True)
    return max(np.abs(a - b).max() / max(1, np.abs(b).max()) for a, b in pairs)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_layer_answers_as_in_keras(make, tmp_path):
    assert compared(make(), tmp_path / "out") < 1e-4


def test_graph_model_answers_as_keras(tmp_path):
    difference = compared(residual(), tmp_path / "out", output_format="tfjs_graph_model")
    assert difference < 1e-4


def test_options_of_the_writer(tmp_path):
    options = {"weight_shard_size_bytes": 1024, "split_weights_by_layer": True, "metadata": "me"}
    model = sequential(layers.Conv2D(32, 3), layers.Conv2D(8, 3))
    assert compared(model, tmp_path / "out", **options) < 1e-4
    assert len(list((tmp_path / "out").glob("group2-*.bin"))) > 1
    assert '"userDefinedMetadata"' in (tmp_path / "out" / "model.json").read_text()


REFUSED = {
    "Lambda": (lambda: sequential(layers.Lambda(lambda x: x, name="mine")), "'mine' is a Lambda"),
    "GroupNormalization": (lambda: sequential(layers.GroupNormalization(3)), "GroupNormalization"),
    "activation": (lambda: sequential(layers.Dense(2, activation="glu", name="d")), "'d' has"),
    "keepdims": (lambda: sequential(layers.GlobalMaxPooling2D(keepdims=True)), "keepdims=True"),
    "Normalization by hand": (
        lambda: sequential(layers.Normalization(mean=1.0, variance=2.0, name="n")),
        "'n' (Normalization)",
    ),
    # TensorFlow.js has it, but takes 0 for the maximum of negative numbers.
    "MaxPooling3D": (
        lambda: sequential(layers.MaxPooling3D(2), shape=(4, 4, 4, 2)),
        "MaxPooling3D",
    ),
    "leaky ReLU": (lambda: sequential(layers.ReLU(negative_slope=0.1)), "negative_slope=0.1"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_what_tensorflow_js_does_not_have_is_refused_by_name(make, says, tmp_path):
    with pytest.raises(UserError) as error:
        tfjs.write(make(), tmp_path, tfjs.Written())
    assert says in str(error.value)
    assert list(tmp_path.iterdir()) == []
