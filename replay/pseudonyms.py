"""Replaces ids, names and the words of texts, the same by the same, for a log that strangers see.

Everything is a keyed hash of what it stands for: nothing has to be remembered, so a log of any
size can be redacted, and without the key nobody can tell what was there (or try guesses). Texts
are taken apart into words; a word stays only if it is in `replay.vocabulary`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import string
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final
from uuid import UUID

from replay.vocabulary import setting_words, vocabulary

KEY_BYTES: Final = 32

LONGEST_NUMBER: Final = 3
"""Digits of a number that stays in a text: exit, HTTP and signal numbers, seconds, counts. A longer
one may be somebody's."""

_TYPOGRAPHY: Final = "\u2026\u2019\u2018\u201c\u201d\u2013\u2014\u00b7\u2192\u2022"
_APART: Final = " \t\n\r" + re.escape("!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~") + _TYPOGRAPHY
"""What stands between words, and stays; `_` belongs to words, `-` within them too."""

_NO_HEX: Final = "(?<![0-9A-Za-z]){}(?![0-9A-Za-z])"
_ID: Final = re.compile(
    r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}|[0-9A-Fa-f]{32})"
    r"(?![0-9A-Fa-f])"
    "|" + _NO_HEX.format("[0-9a-f]{16}") + "|" + _NO_HEX.format("[a-z2-7]{26}")
)
"""A UUID in any spelling, wherever it stands; a digest of 16 hex digits; a launch key."""

_WORDS: Final = rf"[^{_APART}]+(?:-+[^{_APART}]+)*"
_ADDRESS: Final = re.compile(r"(?=[0-9A-Fa-f:]*[0-9A-Fa-f])(?:[0-9A-Fa-f]{0,4}:){2,}[0-9A-Fa-f:.]*")
"""An address with colons, or a time of day."""

_PIECE: Final = re.compile(
    # An address or a time of day; numbers that belong together; a path or a name with dots, or a
    # word; what stands between.
    rf"(?<![^{_APART}]){_ADDRESS.pattern}"
    rf"|(?<![^{_APART}])[0-9]+(?:[ .,/:()+-]{{1,2}}[0-9]+)+(?![^{_APART}])"
    rf"|/{{0,2}}{_WORDS}(?:[./]{_WORDS})*"
    rf"|[{_APART}]+?(?=/{{0,2}}[^{_APART}]|$)"
)
_AUTHORITY: Final = re.compile(r"(?<=://)([^\s/?#]*?)((?::[0-9]{1,5})?)(?=[\s/?#]|$)")
_SINGLE: Final = re.compile(rf"{_WORDS}|[{_APART}]+")
_WORD: Final = re.compile(rf"[^{_APART}]")
_MARK: Final = re.compile(rf"[{_APART}]")
_LONGEST_MARKS: Final = 3

_LETTERS: Final = frozenset(string.ascii_letters)
_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aiou"

_NO_IDS: Final[Mapping[str, str]] = MappingProxyType({})

DERIVED_IDS = Mapping[str, str]
"""Ids that are calculated from others, as they are and as they are in the copy: UUIDs as 32 hex
digits, and launch keys."""


class Pseudonyms:
    """What stands for what, by one key."""

    def __init__(self, key: bytes) -> None:
        """Prepare to replace.

        Args:
            key: `KEY_BYTES` random bytes. The same key gives the same pseudonyms.
        """
        self._key = key
        self._word = lru_cache(1 << 16)(self._make_word)

    def digest(self, value: bytes, kind: bytes, size: int) -> bytes:
        """Return what stands for some bytes; `kind` keeps apart what has nothing in common."""
        return hashlib.blake2b(value, key=self._key, person=kind, digest_size=size).digest()

    def uuid(self, value: UUID, derived: DERIVED_IDS = _NO_IDS) -> UUID:
        """Return what stands for an id."""
        known = derived.get(value.hex)
        if known is not None:
            return UUID(known)
        return UUID(bytes=self.digest(value.bytes, b"uuid", 16), version=4)

    def launch_key(self, key: str, derived: DERIVED_IDS = _NO_IDS) -> str:
        """Return what stands for a launch key, which is derived from ids."""
        known = derived.get(key)
        if known is not None:
            return known
        digest = self.digest(key.encode(), b"launch key", 16)
        return base64.b32encode(digest).decode("ascii").rstrip("=").lower()

    def name(self, text: str, derived: DERIVED_IDS = _NO_IDS) -> str:
        """Return what stands for a name: every word and number of it is replaced."""
        return text if text == "default" else self._text(text, derived, self._replace)

    def text(self, text: str, derived: DERIVED_IDS = _NO_IDS) -> str:
        """Return a text of which words of the vocabulary and short numbers are left.

        A name has the same pseudonym in it as elsewhere. Of a path, and of a name with dots in
        it, all stays or nothing does.
        """
        return self._in_words(text, derived, self._unless_harmless)

    def command(self, text: str, derived: DERIVED_IDS = _NO_IDS) -> str:
        """Return a word of a command: as `text`, but no number stays."""
        return self._in_words(text, derived, self._unless_known)

    def variable(self, name: str, derived: DERIVED_IDS = _NO_IDS) -> str:
        """Return what stands for an environment variable; Prefect's own stay as they are."""
        if not name.startswith("PREFECT_"):
            return self.name(name, derived)
        # `PREFECT__FLOW_RUN_ID` has an empty part.
        parts = (
            part if not part or part.casefold() in setting_words() else self.name(part, derived)
            for part in name.split("_")
        )
        return "_".join(parts)

    def _in_words(self, text: str, derived: DERIVED_IDS, word: Callable[[str], str]) -> str:
        """Replace the words of a text, and of what names a server in it: the port stays."""
        parts: list[str] = []
        end = 0
        for match in _AUTHORITY.finditer(text):
            parts.append(self._text(text[end : match.start()], derived, word))
            parts += (self._text(match[1], derived, self._replace), match[2])
            end = match.end()
        parts.append(self._text(text[end:], derived, word))
        return "".join(parts)

    def _text(self, text: str, derived: DERIVED_IDS, word: Callable[[str], str]) -> str:
        parts: list[str] = []
        end = 0
        for match in _ID.finditer(text):
            parts.append(_PIECE.sub(lambda piece: word(piece[0]), text[end : match.start()]))
            parts.append(self._id(match[0], derived))
            end = match.end()
        parts.append(_PIECE.sub(lambda piece: word(piece[0]), text[end:]))
        return "".join(parts)

    def _id(self, text: str, derived: DERIVED_IDS) -> str:
        match len(text):
            case 16:
                return self.digest(text.encode(), b"digest", 8).hex()
            case 26:
                return self.launch_key(text, derived)
            case length:
                uuid = self.uuid(UUID(text), derived)
                spelled = uuid.hex if length == 32 else str(uuid)
                return spelled.upper() if text.upper() == text else spelled

    def _unless_harmless(self, piece: str) -> str:
        """Replace a piece of a text, unless it is made of known words or is a short number."""
        if 0 < _digits(piece) <= LONGEST_NUMBER:
            return piece
        return self._unless_known(piece)

    def _unless_known(self, piece: str) -> str:
        known = piece.isascii() and all(map(_is_known, _SINGLE.findall(piece)))
        return piece if known else self._replace(piece)

    def _replace(self, piece: str) -> str:
        if _digits(piece) or _ADDRESS.fullmatch(piece):
            return self._word(piece)
        return _SINGLE.sub(lambda found: self._word(found[0]), piece)

    def _make_word(self, word: str) -> str:
        """Return four proquints (64 bits): of 600 000 words, two are alike once in 10⁸ logs."""
        if _are_few_marks(word):
            return word
        digest = self.digest(word.encode(errors="surrogatepass"), b"word", 8)
        return _proquints(digest) if _WORD.search(word) else f" {_proquints(digest)} "


def _digits(piece: str) -> int:
    """Return how many digits a number or an address of numbers has; 0 for anything else."""
    digits = sum(char in "0123456789" for char in piece)
    return digits if digits + len(_MARK.findall(piece)) == len(piece) else 0


def _is_known(word: str) -> bool:
    return word.casefold() in vocabulary() or word in _LETTERS or _are_few_marks(word)


def _are_few_marks(word: str) -> bool:
    return not _WORD.search(word) and len("".join(word.split())) <= _LONGEST_MARKS


def _proquints(digest: bytes) -> str:
    """Return bytes as words that can be said (D. Wilkerson, arXiv:0901.4016)."""
    return "-".join(_proquint(int.from_bytes(digest[i : i + 2])) for i in range(0, len(digest), 2))


def _proquint(number: int) -> str:
    c1, v1, c2, v2, c3 = (number >> s & m for s, m in ((12, 15), (10, 3), (6, 15), (4, 3), (0, 15)))
    return _CONSONANTS[c1] + _VOWELS[v1] + _CONSONANTS[c2] + _VOWELS[v2] + _CONSONANTS[c3]
