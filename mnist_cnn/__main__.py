"""`python -m mnist_cnn VERB --name value ...`."""

import os
import signal
import sys
from types import FrameType


def interrupt(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does: what is open is closed. A second signal does not wait for that."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, frame: os._exit(1))
    raise KeyboardInterrupt


if __name__ == "__main__":
    # First, for a signal may come while the rest is imported; and explicitly, for a shell starts a
    # background job deaf to SIGINT, and who sends one anyway means it.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        from mnist_cnn.cli import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        print("mnist_cnn: interrupted; nothing is half-written.", file=sys.stderr)
        sys.exit(1)
