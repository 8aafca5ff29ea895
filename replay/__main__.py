"""`python -m replay`: the same as `pluperfect replay`."""

from replay.cli import main

if __name__ == "__main__":
    main(prog_name="python -m replay")
