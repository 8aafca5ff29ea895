"""Writes reports as a person does, for tests of what is in them, and reads off what they show."""

from __future__ import annotations

from pathlib import Path

from tests.integration.browser import Browser
from tests.integration.test_replay_cli import replay


def report(log: Path, output: Path, *arguments: object) -> Path:
    """Return the page that was written of a log."""
    done = replay("report", log, "-o", output, *arguments)
    assert done.returncode == 0, done.stderr
    return output


def window(browser: Browser) -> tuple[float, float]:
    """The window of time that the page says it shows, in milliseconds."""
    said = browser.run("{...document.getElementById('window').dataset}")
    return float(said["from"]), float(said["to"])
