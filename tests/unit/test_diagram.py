"""The pages that people learn the machine from show the machine."""

import pytest

from events.diagram import DOCS, PAGES, refreshed


@pytest.mark.parametrize("name", PAGES)
def test_the_page_shows_the_tables_as_they_are(name: str) -> None:
    page = (DOCS / name).read_text()
    assert refreshed(page, PAGES[name]()) == page
