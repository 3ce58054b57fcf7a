"""What the worker processes of test_processes.py run: a module that imports in no time."""

import os
import signal
import sys

from mnist_cnn.learning.processes import parent_is_gone


def write_threads(folder, number, stop):
    (folder / str(number)).write_text(os.environ["TF_NUM_INTRAOP_THREADS"])
    if number == 1:
        sys.exit(3)


def interrupt_parent(folder, number, stop):
    """Ctrl-C in a terminal reaches the worker and its parent alike."""
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getppid(), signal.SIGINT)
    assert stop.wait(60)
    (folder / str(number)).write_text("stopped")


def wait_for_end_of_parent(folder, number, stop):
    (folder / "begun").write_text(str(os.getpid()))
    while not parent_is_gone():
        stop.wait(0.05)
    (folder / "ended").write_text("")
