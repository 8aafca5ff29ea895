"""One self-contained HTML document: the assets beside this file, and the contents, in one text.

The page may run exactly the style and the script that are put into it here, by their hashes, and
may ask the network for nothing: whatever a log holds, it is text. The contents are compressed and
unpacked by the browser; base64 has no character that could end the element they are in.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import orjson

SCRIPTS: Final = (
    "data.js", "words.js", "view.js", "shapes.js", "timeline.js", "overview.js",
    "charts.js", "panel.js", "pointers.js", "main.js",
)  # fmt: skip
"""In the order in which they build on each other; each says on top what it is for."""


def page(contents: Mapping[str, Any]) -> str:
    """Return the document for a report's contents."""
    style = _asset("report.css")
    script = '"use strict";\n(() => {\n' + "\n".join(map(_asset, SCRIPTS)) + "\n})();\n"
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}';"
        " base-uri 'none'; form-action 'none'"
    )
    packed = gzip.compress(orjson.dumps(contents), 9, mtime=0)
    parts = {
        "title": html.escape(str(contents["title"])),
        "policy": policy,
        "style": style,
        "script": script,
        "contents": base64.b64encode(packed).decode("ascii"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("report.html"))


def _asset(name: str) -> str:
    return resources.files("replay.report").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
