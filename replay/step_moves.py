"""What the keys of `replay step` do: a table of moves, and a prompt for a text or a position.

Pure: where one is and a key in, where one is then out. `replay.step_app` reads the keys and
`replay.step_screen` draws the place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from replay.severity import severity
from replay.stepping import Walk
from replay.words import describe

PAGE: Final = 10
"""Steps that PageUp and PageDown go."""


@attrs.frozen
class Place:
    """Where one is in a walk, and how one looks at it.

    Attributes:
        at: the step, from 0.
        follows: the last step is wanted, whichever that is by then.
        full: every field is shown, in a list that `scroll` lines have left at the top.
        help: the keys are shown instead.
        prompt: `/` or `:` while a text or a position is typed, and `typed` what it is so far.
        sought: the text that `n` and `N` look for.
        message: for the person, until the next key.
    """

    at: int = 0
    follows: bool = False
    full: bool = False
    scroll: int = 0
    help: bool = False
    prompt: str = ""
    typed: str = ""
    sought: str = ""
    message: str = ""


def press(place: Place, key: str, walk: Walk) -> Place | None:
    """Return where a key leads; None when it ends the walk."""
    place = attrs.evolve(place, message="")
    if place.prompt:
        return _typed(place, key, walk)
    if place.help:
        return attrs.evolve(place, help=False)
    if place.sought and key in _SEARCHING:
        return _SEARCHING[key](place, walk)
    if key in _ENDS:
        return None
    if place.full and key in _SCROLLING:
        return attrs.evolve(place, scroll=max(place.scroll + _SCROLLING[key], 0))
    if key.isdecimal() and len(key) == 1:
        return attrs.evolve(place, prompt=":", typed=key)
    if key in _JUMPS:
        return _jump(place, key, walk)
    move = _MOVES.get(key)
    return place if move is None else move(place, walk)


def grown(place: Place, walk: Walk, number: int) -> Place:
    """Return the place when steps have been added to the walk."""
    if place.follows:
        return _go_to(place, len(walk) - 1, follows=True)
    return attrs.evolve(place, message=f"{number} new step{'s' * (number != 1)} (G: to the last)")


def _go_to(place: Place, index: int, *, follows: bool = False) -> Place:
    scroll = place.scroll if index == place.at else 0
    return attrs.evolve(place, at=index, scroll=scroll, follows=follows)


def _by(steps: int) -> Callable[[Place, Walk], Place]:
    def move(place: Place, walk: Walk) -> Place:
        index = min(max(place.at + steps, 0), len(walk) - 1)
        if index == place.at:
            edge = "last" if steps > 0 else "first"
            return attrs.evolve(place, message=f"this is the {edge} step")
        return _go_to(place, index)

    return move


def _toggle_full(place: Place, _walk: Walk) -> Place:
    return attrs.evolve(place, full=not place.full, scroll=0)


_MOVES: Final[Mapping[str, Callable[[Place, Walk], Place]]] = {
    **dict.fromkeys(("right", "down", "n", "j", " "), _by(1)),
    **dict.fromkeys(("left", "up", "p", "k", "backspace"), _by(-1)),
    "page_down": _by(PAGE),
    "page_up": _by(-PAGE),
    **dict.fromkeys(("home", "g"), lambda place, _walk: _go_to(place, 0)),
    **dict.fromkeys(("end", "G"), lambda place, walk: _go_to(place, len(walk) - 1, follows=True)),
    "f": _toggle_full,
    "?": lambda place, _walk: attrs.evolve(place, help=True),
    "/": lambda place, _walk: attrs.evolve(place, prompt="/", typed=""),
    ":": lambda place, _walk: attrs.evolve(place, prompt=":", typed=""),
}

_ENDS: Final = frozenset({"q", "Q", "escape"})

_SCROLLING: Final[Mapping[str, int]] = {"up": -1, "down": 1, "page_up": -PAGE, "page_down": PAGE}
"""In the list of all fields these keys move the list."""


# --- to the next of a kind -----------------------------------------------------------------


def _kind(kind: str) -> Callable[[Walk, int], bool]:
    return lambda walk, index: walk.steps[index].kind == kind


def _changes_state(walk: Walk, index: int) -> bool:
    taken = walk.steps[index]
    return taken.before.state is not taken.after.state


def _is_restart(walk: Walk, index: int) -> bool:
    return walk.steps[index].record.type in ("AgentRestarted", "AgentStarted")


def _goes_wrong(walk: Walk, index: int) -> bool:
    taken = walk.steps[index]
    return bool(taken.trouble or severity(taken.event))


def _is_otherwise(walk: Walk, index: int) -> bool:
    decision = walk.decision(index)
    return (
        decision is not None and not decision.is_same and decision.observation is walk.steps[index]
    )


_FORWARD: Final[Mapping[str, tuple[str, Callable[[Walk, int], bool]]]] = {
    "o": ("observation", _kind("observation")),
    "d": ("decision", _kind("transition")),
    "s": ("change of state", _changes_state),
    "e": ("step that went wrong", _goes_wrong),
    "r": ("restart of the agent", _is_restart),
    "x": ("decision that would be another today", _is_otherwise),
}
_JUMPS: Final = {**_FORWARD, **{key.upper(): jump for key, jump in _FORWARD.items()}}
"""Capitals go back."""


def _jump(place: Place, key: str, walk: Walk) -> Place:
    words, wanted = _JUMPS[key]
    direction = 1 if key.islower() else -1
    found = walk.find(place.at, lambda index: wanted(walk, index), direction)
    if found is None:
        where = "after" if direction > 0 else "before"
        return attrs.evolve(place, message=f"no {words} {where} this step")
    return _go_to(place, found)


# --- the prompt ----------------------------------------------------------------------------


def _typed(place: Place, key: str, walk: Walk) -> Place:
    match key:
        case "escape":
            return attrs.evolve(place, prompt="", typed="")
        case "backspace" if not place.typed:
            return attrs.evolve(place, prompt="")
        case "backspace":
            return attrs.evolve(place, typed=place.typed[:-1])
        case "enter":
            asked, text = place.prompt, place.typed.strip()
            place = attrs.evolve(place, prompt="", typed="")
            return _go_to_position(place, text, walk) if asked == ":" else _seek(place, text, walk)
        case _ if len(key) == 1 and key.isprintable():
            return attrs.evolve(place, typed=place.typed + key)
        case _:
            return place


def _go_to_position(place: Place, text: str, walk: Walk) -> Place:
    if not text:
        return place
    if not text.isdecimal():
        return attrs.evolve(place, message=f"{text} is no position: a number, as in the list")
    index = walk.index_at(int(text))
    there = walk.steps[index].record.position
    missed = "" if there == int(text) else f"nothing of this run is at {text}; this is at {there}"
    return attrs.evolve(_go_to(place, index), message=missed)


def _seek(place: Place, text: str, walk: Walk) -> Place:
    if not text:
        return attrs.evolve(place, sought="")
    return _seek_on(attrs.evolve(place, sought=text), walk)


def _seek_on(place: Place, walk: Walk, direction: int = 1) -> Place:
    def holds(index: int) -> bool:
        return _holds(walk, index, place.sought.lower())

    found = walk.find(place.at, holds, direction)
    if found is not None:
        return _go_to(place, found)
    found = walk.find(-1 if direction > 0 else len(walk), holds, direction)
    if found is None:
        return attrs.evolve(place, sought="", message=f"no step holds {place.sought!r}")
    again = "from the first step again" if direction > 0 else "from the last step again"
    return attrs.evolve(_go_to(place, found), message=again)


def _holds(walk: Walk, index: int, text: str) -> bool:
    taken = walk.steps[index]
    words = describe(taken.event) if taken.event else ""
    return any(text in part.lower() for part in (taken.record.type, taken.record.data, words))


_SEARCHING: Final[Mapping[str, Callable[[Place, Walk], Place]]] = {
    "n": _seek_on,
    "N": lambda place, walk: _seek_on(place, walk, -1),
    "escape": lambda place, _walk: attrs.evolve(place, sought=""),
}
"""What keys do while a text is sought."""
