"""The images: what is refused and why, and a cache that heals itself."""

import gzip
import os
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from mnist_cnn.learning import data
from mnist_cnn.learning.data import IMAGES, LABELS, load_test, load_training
from mnist_cnn.parameters import UserError
from tests.conftest import ROOT


def test_mnist_is_the_published_one():
    training, test = load_training("mnist"), load_test("mnist")
    assert training.train.x.shape == (55_000, 28, 28, 1)
    assert training.validation.x.shape == (5_000, 28, 28, 1)
    assert test.x.shape == (10_000, 28, 28, 1)
    assert training.train.x.dtype == test.y.dtype == np.uint8
    # LeCun's page: the first training labels, and the test labels by class.
    assert training.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(test.y).tolist() == counts
    assert round(float(training.train.x.mean() / 255), 2) == 0.13


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    magic = magic or (IMAGES if array.ndim == 3 else LABELS)
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def write_folder(folder, n=24, compress=False):
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for split in data.NPZ:
        images = rng.integers(0, 256, (n, 28, 28), np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", images[:, 0, 0] % 10)):
            content = idx(array)
            if compress:
                (folder / f"{split}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
            else:
                (folder / f"{split}-{name}-ubyte").write_bytes(content)
    return folder


@pytest.mark.parametrize("compress", [False, True])
def test_a_folder_of_idx_files(tmp_path, compress):
    folder = str(write_folder(tmp_path / "own", compress=compress))
    training = load_training(folder)
    assert (len(training.train), len(training.validation)) == (22, 2)
    assert len(load_test(folder)) == 24


def images_file(folder):
    return folder / "train-images-idx3-ubyte"


BROKEN_FOLDERS = {
    "missing file": (lambda f: (f / "train-labels-idx1-ubyte").unlink(), "is missing"),
    "test images by another name": (
        lambda f: (f / "t10k-images-idx3-ubyte").rename(f / "test-images-idx3-ubyte"),
        "t10k-images-idx3-ubyte (or t10k-images-idx3-ubyte.gz) is missing",
    ),
    "wrong magic": (
        lambda f: images_file(f).write_bytes(idx(np.zeros((24, 28, 28), np.uint8), magic=1234)),
        "no IDX file of this kind",
    ),
    "truncated": (
        lambda f: images_file(f).write_bytes(images_file(f).read_bytes()[:-1]),
        "truncated",
    ),
    "cut in the header": (lambda f: images_file(f).write_bytes(b"\0\0"), "no IDX file"),
    "other shape": (
        lambda f: images_file(f).write_bytes(idx(np.zeros((24, 32, 32), np.uint8))),
        "(24, 32, 32)",
    ),
    "too few labels": (
        lambda f: (f / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(23, np.uint8))),
        "each needs one label",
    ),
    "labels outside 0-9": (
        lambda f: (f / "train-labels-idx1-ubyte").write_bytes(idx(np.full(24, 10, np.uint8))),
        "outside 0 to 9",
    ),
    "broken gzip": (
        lambda f: (
            images_file(f).rename(f / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bnonsense")
        ),
        "cannot be read",
    ),
}


@pytest.mark.parametrize(("damage", "says"), BROKEN_FOLDERS.values(), ids=BROKEN_FOLDERS)
def test_broken_folder_is_refused(tmp_path, damage, says):
    folder = write_folder(tmp_path / "own")
    damage(folder)
    with pytest.raises(UserError) as error:
        load_training(str(folder))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


X, Y = np.full((24, 28, 28), 9, np.uint8), np.arange(24) % 10
BROKEN_ARRAYS = {
    "missing array": ({"x_train": X, "y_train": None}, "y_train is missing"),
    "other shape": ({"x_train": X[:, :20], "y_train": Y}, "(24, 20, 28)"),
    "float images": ({"x_train": X / 255, "y_train": Y}, "float64"),
    "no test images": ({"x_train": X, "y_train": Y, "y_test": Y}, "x_test is missing"),
    "images of 0 and 1": ({"x_train": X // 9, "y_train": Y}, "by 255"),
    "text labels": ({"x_train": X, "y_train": Y.astype(str)}, "labels are <U"),
    "negative label": ({"x_train": X, "y_train": Y - 1}, "outside 0 to 9"),
    "empty split": ({"x_train": X[:0], "y_train": Y[:0]}, "is empty"),
    "pixels over 255": ({"x_train": X + np.int32(256), "y_train": Y}, "outside 0 to 255"),
    "too few to split": ({"x_train": X[:11], "y_train": Y[:11]}, "at least 12"),
    "one-hot labels": ({"x_train": X, "y_train": np.eye(10, dtype=int)[Y]}, "each needs one label"),
    "pickled": ({"x_train": np.array([{}] * 24), "y_train": Y}, "cannot be read"),
}


@pytest.mark.parametrize(("arrays", "says"), BROKEN_ARRAYS.values(), ids=BROKEN_ARRAYS)
def test_broken_npz_is_refused(tmp_path, arrays, says):
    test = {} if "y_test" in arrays else {"x_test": X, "y_test": Y}
    arrays = {name: array for name, array in {**arrays, **test}.items() if array is not None}
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(UserError) as error:
        load_training(str(tmp_path / "own.npz"))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_no_archive_is_refused(tmp_path):
    (tmp_path / "own.npz").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"cannot be read as \.npz"):
        load_training(str(tmp_path / "own.npz"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of our own that holds real MNIST by hard links."""
    load_test("mnist")
    real = data.cache_folder() / "mnist"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = data.cache_folder() / "mnist"
    folder.mkdir(parents=True)
    for name in data.FILES["mnist"]:
        os.link(real / name, folder / name)
    return folder


def replace(path, content):
    path.unlink()  # not through the link into the real cache
    path.write_bytes(content)


def from_folder(real):
    """A source that gives the four files of a folder, for a machine without a network."""

    return lambda: ((name, (real / name).read_bytes()) for name in data.FILES["mnist"])


@pytest.mark.parametrize("damage", ["cut", "flipped bit", "gone"])
def test_damaged_cache_heals_itself(cache, monkeypatch, damage, tmp_path):
    whole = tmp_path / "source"
    whole.mkdir()
    for name in data.FILES["mnist"]:
        os.link(cache / name, whole / name)

    def bad_source():
        yield "train-images-idx3-ubyte", b"half a file"

    monkeypatch.setitem(data.SOURCES, "mnist", {"bad": bad_source, "good": from_folder(whole)})
    victim = cache / "t10k-labels-idx1-ubyte"
    content = victim.read_bytes()
    if damage == "gone":
        victim.unlink()
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        replace(victim, content[:5000] if damage == "cut" else flipped)

    assert len(load_test("mnist")) == 10_000
    assert victim.read_bytes() == content
    assert sorted(path.name for path in cache.iterdir()) == sorted(data.FILES["mnist"])


def test_what_was_begun_is_taken_once_and_refused_where_it_is_asked_for(small, tmp_path):
    data.begin_loading(str(small))
    data.begin_loading(str(tmp_path / "none.npz"))
    first, second = load_training(str(small)), load_training(str(small))
    assert first is not second, "the file may be another by now"
    np.testing.assert_array_equal(first.train.x, second.train.x)
    with pytest.raises(UserError, match=r"none\.npz cannot be read"):
        load_training(str(tmp_path / "none.npz"))


def test_without_network_it_says_where_the_files_go(tmp_path, monkeypatch):
    def unreachable():
        raise OSError("no route to host")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(data.SOURCES, "mnist", {"nowhere": unreachable})
    with pytest.raises(UserError) as error:
        load_training("mnist")
    assert str(tmp_path / "mnist_cnn" / "mnist") in str(error.value)
    assert "train-images-idx3-ubyte" in str(error.value)
    assert "no route to host" in str(error.value)
    assert "\n" not in str(error.value)


SLOW_SOURCE = """
import sys, time
from pathlib import Path
from mnist_cnn.learning import data
def slow():
    Path("downloads").open("a").write("x")
    for name in data.FILES["mnist"]:
        time.sleep(0.2)
        yield name, (Path(sys.argv[1]) / name).read_bytes()
data.SOURCES["mnist"] = {"slow": slow}
print(len(data.load_test("mnist")))
"""


def slow_load(real, folder):
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_SOURCE, str(real)],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_at_once_download_once(tmp_path):
    load_test("mnist")
    real = data.cache_folder() / "mnist"
    both = [slow_load(real, tmp_path) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=60)[0].strip().endswith("10000")
    assert (tmp_path / "downloads").read_text() == "x"


def test_killed_while_downloading_leaves_whole_files_only(tmp_path):
    load_test("mnist")
    real = data.cache_folder() / "mnist"
    process = slow_load(real, tmp_path)
    folder = tmp_path / "cache" / "mnist_cnn" / "mnist"
    until = time.monotonic() + 60
    while not (folder / "train-images-idx3-ubyte").exists() and time.monotonic() < until:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = list(folder.iterdir())
    assert 0 < len(left) < 4
    assert all(path.read_bytes() == (real / path.name).read_bytes() for path in left)
    folder.with_suffix(".part").write_bytes(b"half a file")

    assert slow_load(real, tmp_path).communicate(timeout=60)[0].strip().endswith("10000")
    assert {path.name for path in folder.parent.iterdir()} == {"mnist", "mnist.lock"}


@pytest.fixture
def web(tmp_path):
    """The address of a server of the files in `tmp_path`."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_keras_archive_becomes_the_published_files_and_writes_no_control_codes(
    tmp_path, monkeypatch, capsys, web
):
    training, test = load_training("mnist"), load_test("mnist")
    x, y = (
        np.concatenate([getattr(part, name) for part in (training.train, training.validation)])
        for name in "xy"
    )
    arrays = {"x_train": x[..., 0], "y_train": y, "x_test": test.x[..., 0], "y_test": test.y}
    np.savez(tmp_path / "mnist.npz", **arrays)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "KERAS", web)
    assert load_training("mnist").digest == training.digest
    assert capsys.readouterr().out == "Downloading mnist from Keras ...\n"


def test_what_the_web_answers_is_told(tmp_path, monkeypatch, web):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sources = {"one": partial(data._from_web, web), "two": partial(data._from_web, web + "two/")}
    monkeypatch.setitem(data.SOURCES, "fashion_mnist", sources)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"another file")
    with pytest.raises(
        UserError, match=r"\(one: train-images.* has not the .* two: HTTP Error 404"
    ):
        load_training("fashion_mnist")
