"""What the tests share: a small real data set, a tracking store of their own, and the program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mnist_cnn.data import load_test, load_training

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 1,200 training and the first 300 test images of MNIST, as an .npz data set."""
    training, test = load_training("mnist").train, load_test("mnist")
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(
        path,
        x_train=training.x[:1200, :, :, 0],
        y_train=training.y[:1200],
        x_test=test.x[:300, :, :, 0],
        y_test=test.y[:300],
    )
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to work in, one a test module, with MLflow's default store: mlflow.db, mlruns/."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("MLFLOW_"):
                patch.delenv(name)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        yield folder


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """`python -m mnist_cnn ...` begun in `folder`, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_cnn", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
