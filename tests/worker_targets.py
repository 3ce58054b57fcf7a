"""What the worker processes of test_processes.py run: a module that imports in no time."""

import os
import signal
import sys
import time


def write_threads(folder, number):
    (folder / str(number)).write_text(os.environ["TF_NUM_INTRAOP_THREADS"])
    if number == 1:
        sys.exit(3)


def work_without_end(folder, number):
    (folder / "worker").write_text(str(os.getpid()))
    time.sleep(600)


def interrupt_parent(folder, number):
    """Ctrl-C in a terminal reaches the worker and its parent alike."""
    os.kill(os.getpid(), signal.SIGINT)
    (folder / "worker").write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(600)
