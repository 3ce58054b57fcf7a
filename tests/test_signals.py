"""A signal at any moment ends a command in at most one sentence, without a traceback."""

import signal
import socket
import time

import pytest

from tests.conftest import start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_serve_ends_cleanly_at_any_moment(tmp_path, number):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("a page")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    interrupted = "interrupted; nothing is half-written."
    ends = set()
    for moment in range(30):
        process = start(tmp_path, "serve", "--port", str(port))
        if moment < 3:
            process.stdout.readline()  # it is serving
        else:
            time.sleep(0.01 * moment)  # while it starts, wherever it is by then
        process.send_signal(number)
        _, err = process.communicate(timeout=60)  # a lost signal would serve for ever
        if process.returncode == 0:
            assert err == ""
        elif interrupted in err:
            assert err.strip() in (f"mnist_cnn serve: {interrupted}", f"mnist_cnn: {interrupted}")
            assert process.returncode == 1
        else:  # Python itself was starting, and has not run our first two lines, which listen
            assert process.returncode in (-number, 1)
            assert "cli.py" not in err and "serve.py" not in err
        ends.add(process.returncode)
    assert 0 in ends


# Sends itself a signal while TensorFlow is imported, with the lower levels' output turned off.
EARLY = """
import os, runpy, signal, sys, threading, time

def send():
    while "tensorflow" not in sys.modules:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGTERM)

sys.argv = ["mnist_cnn", "evaluate"]
threading.Thread(target=send, daemon=True).start()
runpy.run_module("mnist_cnn", run_name="__main__", alter_sys=True)
"""


def test_a_signal_while_tensorflow_is_imported_is_told_too(tmp_path):
    process = start(tmp_path, program=("-c", EARLY))
    _, err = process.communicate(timeout=300)
    told = "mnist_cnn: interrupted; nothing is half-written.\n"
    assert (process.returncode, err) == (1, told)
