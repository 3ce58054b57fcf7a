"""What the tests share: a small real data set, a tracking store of their own, and the program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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


def wait_for(condition, process, seconds=600):
    """Until `condition` holds, or `process` has ended."""
    until = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)


@contextmanager
def served(folder: Path, database: str = "") -> Iterator[str]:
    """Address of a real tracking server that keeps its files in `folder`."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port),
            *("--backend-store-uri", database or f"sqlite:///{folder}/server.db"),
            *("--artifacts-destination", str(folder / "artifacts"), "--workers", "1"),
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        try:
            return urllib.request.urlopen(f"{address}/health", timeout=1).status == 200
        except OSError:
            return False

    try:
        wait_for(healthy, server)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


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
