"""Prefect's profiles.toml: finds the file, and reads the values of the active profile.

The file is shared with Prefect's own commands (`prefect profile use`, `prefect config set`) and
is never written here. Called by `agent.settings.load`, once.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

BUNDLED: Final[Mapping[str, Mapping[str, str]]] = {
    "default": {},
    "ephemeral": {},
    "local": {"PREFECT_API_URL": "http://127.0.0.1:4200/api"},
    "test": {},
    "cloud": {},
}
"""Profiles that exist without being in the file: `default` ships with Prefect 2.20, the others
with 3.x (their settings that are about a server inside the client's process do not matter here)."""


class SettingsError(Exception):
    """What was configured can't be used. One line: what, where it was found, what is expected."""


class ProfilesUnusable(SettingsError):
    """profiles.toml is there, but it can't be read or is not what Prefect writes."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"profiles file {path}: {reason}")


@attrs.frozen
class Profile:
    """The active profile.

    Attributes:
        name: as the environment or the file has it; None when neither names one.
        path: the profiles file, whether it exists or not.
        values: by variable, as TOML has them. They may hold secrets.
        warning: something is odd about which profile is active, for people.
    """

    name: str | None
    path: Path
    values: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    warning: str | None = None


def read_active_profile(environment: Mapping[str, str]) -> Profile:
    """Read the profile that PREFECT_PROFILE names, else the one that the file calls active.

    A profile that is not there is not an error, as in Prefect. Prefect then uses the values of
    another profile; here none are used, so that an agent never serves a server that nobody named.

    Args:
        environment: PREFECT_PROFILE, PREFECT_PROFILES_PATH, PREFECT_HOME and HOME are looked at.

    Raises:
        ProfilesUnusable: the file can't be read, or is not valid.
    """
    path = profiles_path(environment)
    contents = _read_toml(path)
    profiles = contents.get("profiles", {})
    if not isinstance(profiles, dict):
        raise ProfilesUnusable(path, "`profiles` is not a table; each profile is [profiles.<name>]")
    name, named_by = environment.get("PREFECT_PROFILE"), "PREFECT_PROFILE"
    if not name:
        name, named_by = contents.get("active"), "`active` in the file"
    if name is None:
        return Profile(None, path)
    if not isinstance(name, str):
        raise ProfilesUnusable(path, "`active` is not the name of a profile")
    known: Mapping[str, Any] = {**BUNDLED, **profiles}
    if name not in known:
        there = ", ".join(sorted(profiles)) or "none"
        return Profile(
            name,
            path,
            warning=f"profile {name!r}, named by {named_by}, is not in {path} (there: {there});"
            " no profile is used",
        )
    values = known[name]
    if not isinstance(values, Mapping):
        raise ProfilesUnusable(path, f"`profiles.{name}` is not a table of settings")
    return Profile(name, path, values)


def prefect_home(environment: Mapping[str, str]) -> Path:
    """Return PREFECT_HOME, by default ~/.prefect."""
    return _expand_user(environment.get("PREFECT_HOME") or "~/.prefect", environment)


def profiles_path(environment: Mapping[str, str]) -> Path:
    """Return PREFECT_PROFILES_PATH, by default profiles.toml in PREFECT_HOME."""
    given = environment.get("PREFECT_PROFILES_PATH")
    return expand(given, environment) if given else prefect_home(environment) / "profiles.toml"


def expand(path: str, environment: Mapping[str, str]) -> Path:
    """Put in the home directory for a leading `~`, and PREFECT_HOME where a path refers to it.

    Prefect 2.20 writes the latter `${PREFECT_HOME}`, 3.x `$PREFECT_HOME`.
    """
    for reference in ("${PREFECT_HOME}", "$PREFECT_HOME"):
        if reference in path:
            path = path.replace(reference, str(prefect_home(environment)))
    return _expand_user(path, environment)


def _expand_user(path: str, environment: Mapping[str, str]) -> Path:
    if path == "~" or path.startswith("~/"):
        home = environment.get("HOME") or os.path.expanduser("~")
        return Path(home + path[1:])
    return Path(path)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise ProfilesUnusable(path, "it is not UTF-8 text") from None
    except OSError as error:
        raise ProfilesUnusable(path, f"can't be read: {error.strerror}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Of the message only the place: what is wrong there may be a piece of a key.
        raise ProfilesUnusable(path, f"invalid TOML{_place(str(error))}") from None


def _place(message: str) -> str:
    start = message.rfind("(at ")
    return f" {message[start:]}" if start >= 0 else ""
