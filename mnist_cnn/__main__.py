"""`python -m mnist_cnn VERB --name value ...`."""

import atexit
import io
import os
import signal
import sys
from types import FrameType


def interrupt(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, SIGTERM too: what is open is closed. A second signal does not wait."""
    cli = sys.modules.get("mnist_cnn.cli")
    if not getattr(cli, "verb_has_begun", False):
        # Nothing is open yet, and an exception would be lost in some callback of the imports.
        os.write(stderr, b"mnist_cnn: interrupted; nothing is half-written.\n")
        os._exit(1)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, frame: os._exit(1))
    raise KeyboardInterrupt


if __name__ == "__main__":
    stderr = os.dup(2)  # for 2 itself is closed while TensorFlow is imported
    signal.signal(signal.SIGINT, interrupt)  # a shell starts a background job deaf to it
    signal.signal(signal.SIGTERM, interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):  # or None; a reader that is gone is met at once
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    from mnist_cnn.cli import run

    code = run(sys.argv[1:])
    atexit._run_exitfuncs()
    os._exit(code)  # what is open is closed; TensorFlow's own end takes a quarter of a second
