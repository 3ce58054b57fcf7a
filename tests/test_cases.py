"""Models of other people's kinds through the command line: proven, or refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest

from mnist_cnn import cli
from mnist_cnn.learning.backend import keras

KERAS_2 = Path(__file__).parent / "cases"  # small files that tf.keras 2.13 wrote

L = keras.layers


def stack(shape, *layers, dtype="float32", **options):
    return keras.Sequential([L.Input(shape, dtype=dtype), *layers], **options)


def one_unit():
    return stack((64,), L.Dense(64, activation="tanh"), L.Dense(1, activation="sigmoid"))


def nan():
    model = stack((6,), L.Dense(3))
    model.layers[0].kernel.assign(np.full((6, 3), np.nan))
    return model


def mask():
    embedding = L.Embedding(9, 4, mask_zero=True, embeddings_initializer="random_normal")
    return stack((6,), embedding, L.GlobalAveragePooling1D(), L.Dense(1, activation="sigmoid"))


def dict_out():
    a = L.Input((4,))
    return keras.Model(a, {"cls": L.Dense(3)(a), "box": L.Dense(2)(a)})


def nested_out():
    a = L.Input((4,))
    return keras.Model(a, [L.Dense(3)(a), [L.Dense(2)(a), L.Dense(1)(a)]])


def free_size():
    layers = L.Conv2D(2, 5), L.Conv2D(2, 5), L.GlobalAveragePooling2D()
    return stack((None, None, 1), *layers)


def conv_t():
    return stack((4, 4, 2), L.Conv2DTranspose(1, 4, strides=2, output_padding=1))


def unbuilt():
    return keras.Sequential([L.Dense(3), L.Dense(2)])


def unicode_name():
    return stack((6,), L.Dense(2), name="модель")


def textvec():
    words = L.TextVectorization(max_tokens=20, output_sequence_length=4)
    words.adapt(["a b c", "b c d"])
    return stack((1,), words, L.Embedding(20, 4), L.GlobalAveragePooling1D(), dtype="string")


def lstm():
    return stack((5, 3), L.LSTM(4), L.Dense(2))


def int_input():
    return stack((6,), L.Embedding(9, 4), L.Flatten(), L.Dense(3), dtype="int32")


def flip():
    return stack((8, 8, 3), L.RandomFlip("horizontal"), L.Conv2D(2, 3), L.GlobalMaxPooling2D())


def dilated():
    return stack(
        (8, 8, 3), L.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=2, padding="same")
    )


def tanh_graph():
    a = L.Input((64,))
    x = L.Dense(64, activation="tanh")(a)
    heads = L.Dense(1, activation="sigmoid")(x), L.Dense(5, activation="softmax")(x)
    return keras.Model(a, list(heads))


def mixed():
    layers = L.Conv2D(4, 3, activation="relu", dtype="mixed_float16"), L.Flatten()
    return stack((8, 8, 1), *layers, L.Dense(3, activation="softmax"))


LAYERS, GRAPH = "tfjs_layers_model", "tfjs_graph_model"
CASES = [
    *[
        (m, form, "")
        for m in (one_unit, dict_out, nested_out, free_size)
        for form in (LAYERS, GRAPH)
    ],
    *[(m, form, "") for m in (unicode_name, lstm, int_input, mixed) for form in (LAYERS, GRAPH)],
    *[(name, form, "") for name in ("lstm", "mixed", "multi") for form in (LAYERS, GRAPH)],
    *[(name, form, "") for name in ("sep", "slash") for form in (LAYERS, GRAPH)],
    *(
        (tanh_graph, GRAPH, ""),
        (flip, GRAPH, ""),
        (flip, LAYERS, ""),
        (conv_t, GRAPH, ""),
        (dilated, GRAPH, ""),
    ),
    (nan, LAYERS, "NaN or infinity, which proves nothing"),
    (mask, LAYERS, "(GlobalAveragePooling1D, behind a mask)"),
    (conv_t, LAYERS, "output_padding=(1, 1)"),
    (dilated, LAYERS, "dilation_rate=(2, 2)"),
    (unbuilt, LAYERS, "give it an Input"),
    (textvec, LAYERS, "layer 'text_vectorization' takes strings"),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_cases(store, capfd):
    wrong = {}
    for number, (model, output_format, refusal) in enumerate(CASES):
        keras.utils.set_random_seed(1)
        keras.backend.clear_session()
        path = KERAS_2 / f"{model}.h5" if isinstance(model, str) else Path(f"{number}.keras")
        if callable(model):
            model().save(path)
        told = ["--model", str(path), "--output", f"{number}", "--output_format", output_format]
        code = cli.run(["convert", *told])
        out, err = capfd.readouterr()
        right = code == 1 and refusal in err if refusal else code == 0 and "proven" in out
        if not right or "Traceback" in err or len(err) > 600:
            wrong[f"{getattr(model, '__name__', model)}, {output_format}"] = (out + err)[-600:]
    assert not wrong
