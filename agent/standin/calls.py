"""A request on its way through the stand-in: what a route's handler is given, and what it returns.

`app` makes a `Call`; the handlers in `routes` and `block_routes` answer it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from agent.standin.bodies import Fields
from agent.standin.refusals import JSON, not_found
from agent.standin.state import StandinState

Reply = tuple[int, Any]


@attrs.frozen
class Call:
    """One request on its way through a handler.

    Attributes:
        path: what the route's `{...}` stand for; an id has been checked, and is in lower case.
        peek: whether it says (X-Prefect-UI) that it is no poll.
    """

    state: StandinState
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    peek: bool

    @property
    def id(self) -> str:
        """The id in the path."""
        return self.path["id"]

    def fields(self) -> Fields:
        """Return the body's fields."""
        return Fields.parse(self.body, self.state.traits)

    def row(self, table: Mapping[str, JSON], what: str) -> JSON:
        """Return the row with the path's id, or refuse with 404."""
        if self.id not in table:
            raise not_found(what)
        return table[self.id]


Handler = Callable[[Call], Reply]
