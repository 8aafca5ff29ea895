"""Where an agent keeps its log when nobody says otherwise; the replay tool looks there too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LOG_NAME: Final = "events.sqlite"
"""What the log is called in the state directory."""

STATE_VARIABLE: Final = "PLUPERFECT_STATE"
"""The environment variable that names the state directory."""


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """Return the state directory of a user who has named none."""
    # The base directory specification wants a relative XDG_STATE_HOME ignored.
    base = environment.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "pluperfect"
    home = environment.get("HOME") or os.path.expanduser("~")
    return Path(home) / ".local" / "state" / "pluperfect"


def log_in(path: Path) -> Path:
    """Return the log's file, given that file or the state directory that holds it."""
    return path / LOG_NAME if path.is_dir() else path
