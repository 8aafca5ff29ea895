"""The page that people learn the machine from shows the machine."""

from events.diagram import PAGE, refreshed


def test_the_page_shows_the_table_as_it_is() -> None:
    page = PAGE.read_text()
    assert refreshed(page) == page
