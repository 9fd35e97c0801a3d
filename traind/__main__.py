"""`python -m traind` is the command `traind`."""

from traind.cli import main

if __name__ == "__main__":
    main()
