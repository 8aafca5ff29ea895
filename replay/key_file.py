"""The key of a redaction: thrown away, or kept in a file so that other logs get the same names."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from replay.pseudonyms import KEY_BYTES


class KeyUnusable(Exception):
    """There is no key in a file, and none can be put there."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"can't use the key file {path}: {reason}")


def new_key() -> bytes:
    """Return a key that nobody has."""
    return secrets.token_bytes(KEY_BYTES)


def key_in(path: Path) -> bytes:
    """Return the key in a file, which is made, for its owner alone, if it is not there.

    Raises:
        KeyUnusable: it can't be read or made, or holds something else.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _kept(path)
    except OSError as error:
        raise KeyUnusable(path, error.strerror or str(error)) from error
    key = new_key()
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return key


def _kept(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise KeyUnusable(path, error.strerror or str(error)) from error
    if len(key) != KEY_BYTES:
        raise KeyUnusable(path, f"a key has {KEY_BYTES} bytes, and this has another number")
    return key
