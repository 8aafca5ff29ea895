"""docs/replay-stories.md tells what its commands print, on logs that can be made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from events.sqlite_reader import SqliteReader
from tests.samples.tales import FOLDER, TALES, write_tale
from tests.stories_page import PAGE, commands, renewed, without_own_time


def test_every_command_prints_what_the_page_says() -> None:
    page = PAGE.read_text()

    assert without_own_time(renewed(page)) == without_own_time(page)


def test_the_page_uses_every_sample() -> None:
    told = "\n".join(commands(PAGE.read_text()))

    assert all(f"{name}.sqlite" in told for name in TALES)


@pytest.mark.parametrize("name", TALES)
def test_the_kept_logs_are_those_that_are_made(name: str, tmp_path: Path) -> None:
    made = tmp_path / "made.sqlite"
    write_tale(name, made)

    kept, new = SqliteReader.open(FOLDER / f"{name}.sqlite"), SqliteReader.open(made)
    assert list(kept.read_rows()) == list(new.read_rows())
    kept.close()
    new.close()
