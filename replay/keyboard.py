"""Keys out of the bytes that a terminal sends.

Bytes in, names out, however they were cut into pieces on the way: over ssh an arrow key may come
in two reads. `replay.full_screen` reads the bytes; `replay.step_moves` says what the keys do.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from typing import Final

ESCAPE_SECONDS: Final = 0.05
"""An escape byte that nothing follows for so long is the key Esc, and no beginning of another."""

_ESC: Final = "\x1b"
_LONGEST: Final = 32
"""Characters of a sequence; what is longer is none, and is dropped."""

_FINALS: Final[Mapping[str, str]] = {
    "A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end",
}  # fmt: skip
"""The last letter of `ESC [ … A` and `ESC O A`."""

_TILDES: Final[Mapping[str, str]] = {
    "1": "home", "3": "delete", "4": "end", "5": "page_up", "6": "page_down", "7": "home",
    "8": "end",
}  # fmt: skip
"""The number in `ESC [ 5 ~`; 7 and 8 are rxvt's."""

_NAMED: Final[Mapping[str, str]] = {
    "\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace",
}  # fmt: skip


class Keyboard:
    """Turns bytes into keys: a name such as `page_up`, or the character that was typed."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""

    @property
    def is_waiting(self) -> bool:
        """Whether the beginning of a sequence is there, which may be the key Esc alone."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[str]:
        """Take bytes; return the keys that are complete, in order."""
        self._pending += self._decoder.decode(data)
        return list(self._complete())

    def settle(self) -> list[str]:
        """Return what is left when nothing more came in `ESCAPE_SECONDS`."""
        pending, self._pending = self._pending, ""
        # `[` or `O` may have been typed with Alt; a sequence that breaks off is nobody's key.
        return ["escape"] if pending == _ESC else []

    def _complete(self) -> Iterator[str]:
        while self._pending:
            if self._pending[0] != _ESC:
                char, self._pending = self._pending[0], self._pending[1:]
                yield _NAMED.get(char, char)
                continue
            length = _sequence_length(self._pending)
            if length is None:
                return
            sequence, self._pending = self._pending[:length], self._pending[length:]
            if name := _name(sequence):
                yield name


def _sequence_length(text: str) -> int | None:
    """Return how long the sequence is that a text begins with; None when it is not all there."""
    if len(text) == 1:
        return None
    match text[1]:
        case "\x1b":
            return 1
        case "O":
            return 3 if len(text) > 2 else None
        case "[":
            for index, char in enumerate(text[2:_LONGEST], 2):
                if "@" <= char <= "~":
                    return index + 1
                if not " " <= char <= "?":
                    return index  # No sequence has this; it is a key of its own.
            return None if len(text) < _LONGEST else _LONGEST
        case _:
            return 2  # Alt and a key.


def _name(sequence: str) -> str:
    """Return the key that a whole sequence stands for; empty for one that does nothing here."""
    if sequence == _ESC:
        return "escape"
    if sequence[1] not in "[O":
        return ""
    # `ESC [ 1 ; 5 C` is the same key with Ctrl, Shift or Alt.
    number = sequence[2:-1].partition(";")[0]
    if sequence[-1] == "~":
        return _TILDES.get(number, "")
    return _FINALS.get(sequence[-1], "") if number in ("", "1") else ""
