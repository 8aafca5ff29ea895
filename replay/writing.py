"""Writes what a command makes: to the standard output, or to a file that is whole or not there."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def written(path: Path | None) -> Iterator[BinaryIO]:
    """Open an output for the length of a block; None or `-` is the standard output.

    A file that is there already is replaced when the new one is whole and on the disk, and not
    touched when the block fails. Only its owner may read it, as with the log itself.

    Raises:
        OSError: it can't be written there.
    """
    if path is None or str(path) == "-":
        # Not through Python's own buffer, which would be written again, and fail again, on exit.
        with open(sys.stdout.fileno(), "wb", closefd=False) as out:
            yield out
        return
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with target.open("wb") as file:  # A device or a pipe is written to, not replaced.
            yield file
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
