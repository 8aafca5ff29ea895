"""docs/user-pain.md keeps its word."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "user-pain.md").read_text()

ISSUES = {
    *("12875", "10263", "20485", "18324", "17955", "9394", "7323", "8099", "10747", "8880"),
    *("12509", "254", "7239", "16429", "9054", "17575", "13860"),
}


def test_every_issue_is_on_the_page_once() -> None:
    rows = re.findall(r"^\| ([^|]*\d[^|]*) \|", PAGE, re.MULTILINE)
    numbers = [number for row in rows for number in re.findall(r"\d+", row)]
    assert sorted(numbers) == sorted(ISSUES)


def test_every_test_that_the_page_names_exists() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", sources))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named
    assert named - defined == set()
