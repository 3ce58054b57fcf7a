"""`python -m mnist_cnn VERB --name value ...`."""

import signal
import sys

from mnist_cnn.cli import run

if __name__ == "__main__":
    # A shell starts a background job deaf to SIGINT; who sends one anyway means it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))
