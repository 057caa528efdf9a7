"""`python -m neurogate` is the command `neurogate`."""

from neurogate.cli.main import main

if __name__ == "__main__":
    main()
