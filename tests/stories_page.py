"""Runs the commands in docs/replay-stories.md, and writes what they print below them.

`python -m tests.stories_page` renews the page; `tests/integration/test_stories_page.py` compares.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.samples.tales import FOLDER

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "replay-stories.md"

_BLOCK: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROGRAM: Final = ("pluperfect", "replay")


def commands(page: str) -> Iterator[str]:
    """Yield the commands of a page, in order."""
    for block in _BLOCK.finditer(page):
        yield from (line[2:] for line in block[1].splitlines() if line.startswith("$ "))


def output_of(command: str) -> str:
    """Return what a command prints, as a user sees it in a pipe."""
    program, group, *arguments = shlex.split(command)
    if (program, group) != _PROGRAM:
        raise ValueError(f"not a replay command: {command}")
    environment: Mapping[str, str] = os.environ | {"TZ": "UTC", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "replay", *arguments],
        cwd=FOLDER, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return "".join(line.rstrip() + "\n" for line in (done.stdout + done.stderr).splitlines())


def without_own_time(output: str) -> str:
    """Return an output without what it says of the time that the command itself took."""
    return re.sub(r"(?<=again in )\d+\.\d+ s|(?<=agent's time in )\S+ m?s", "…", output)


def renewed(page: str) -> str:
    """Return a page with what its commands print today."""

    def block(match: re.Match[str]) -> str:
        told = [f"$ {command}\n{output_of(command)}" for command in commands(match[0])]
        return "```console\n" + "\n".join(told) + "```"

    return _BLOCK.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
