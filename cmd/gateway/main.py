"""The gateway process: `neurogate gateway` from a checkout."""

import sys

from neurogate.cli.main import main

if __name__ == "__main__":
    main(["gateway", *sys.argv[1:]])
