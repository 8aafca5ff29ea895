"""What of a launch may be written down: names as they are, values as keyed digests.

Whether two launches had the same value can be seen in the log; the value can't, for the digest's
key lies in a file of its own beside the log and never in it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from agent.infrastructure.launcher import ProcessSpec
from events.observations import InfrastructureResolved

KEY_NAME: Final = "digest.key"
SHORTEST_SECRET: Final = 8
"""Shorter values are not looked for in commands: they would be found by chance."""

_TELLING: Final = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "AUTH", "CREDENTIAL")


def redact(spec: ProcessSpec, key: bytes) -> InfrastructureResolved:
    """Return what the log keeps of a launch."""
    hidden = [
        value
        for name, value in spec.env.items()
        if value and len(value) >= SHORTEST_SECRET and any(t in name.upper() for t in _TELLING)
    ]
    return InfrastructureResolved(
        infrastructure="process",
        name=spec.name,
        command=tuple(_without(argument, hidden, key) for argument in spec.command),
        working_dir=spec.working_dir,
        env={
            name: None if value is None else digest(value, key) for name, value in spec.env.items()
        },
        labels=dict(spec.labels),
    )


def digest(value: str, key: bytes) -> str:
    """Return what stands for a value: the same for the same value and key, 16 hex digits."""
    return hashlib.blake2b(value.encode(), key=key, digest_size=8).hexdigest()


def _without(argument: str, hidden: list[str], key: bytes) -> str:
    for value in hidden:
        argument = argument.replace(value, f"<{digest(value, key)}>")
    return argument


def digest_key(state_dir: Path) -> bytes:
    """Return the key of this log's digests; made when first asked for.

    Raises:
        OSError: it can be neither read nor made.
    """
    path = state_dir / KEY_NAME
    if not path.exists():
        partial = state_dir / f"{KEY_NAME}.{os.getpid()}"
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(handle, secrets.token_bytes(32))
        os.fsync(handle)
        os.close(handle)
        partial.rename(path)
    return path.read_bytes()
