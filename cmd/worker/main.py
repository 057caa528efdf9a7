"""The worker process: `neurogate worker` from a checkout."""

import sys

from neurogate.cli.main import main

if __name__ == "__main__":
    main(["worker", *sys.argv[1:]])
