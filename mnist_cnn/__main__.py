"""`python -m mnist_cnn VERB --name value ...`."""

import sys

from mnist_cnn.cli import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
