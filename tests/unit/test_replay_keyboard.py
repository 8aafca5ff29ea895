"""Keys from bytes, however the terminal and the network cut them up."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.keyboard import Keyboard

SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[C": "right",
    b"\x1b[D": "left",
    b"\x1bOC": "right",  # as terminals in application mode send it
    b"\x1b[H": "home",
    b"\x1b[1~": "home",
    b"\x1bOF": "end",
    b"\x1b[8~": "end",
    b"\x1b[5~": "page_up",
    b"\x1b[6~": "page_down",
    b"\x1b[1;5C": "right",  # with Ctrl
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\t": "tab",
    b"q": "q",
    b"?": "?",
    "ß".encode(): "ß",
    "本".encode(): "本",
    "🦊".encode(): "🦊",
}


@pytest.mark.parametrize("data", SEQUENCES)
def test_each_key_has_its_name(data: bytes) -> None:
    keyboard = Keyboard()

    assert keyboard.feed(data) == [SEQUENCES[data]]
    assert not keyboard.is_waiting


@given(st.lists(st.sampled_from(list(SEQUENCES)), max_size=12), st.data())
def test_keys_are_the_same_however_the_bytes_are_cut(
    pressed: list[bytes], draw: st.DataObject
) -> None:
    data = b"".join(pressed)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    keyboard = Keyboard()

    pieces = [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]
    keys = [key for piece in pieces for key in keyboard.feed(piece)]

    assert keys == [SEQUENCES[each] for each in pressed]


def test_an_escape_that_nothing_follows_is_the_key() -> None:
    keyboard = Keyboard()

    assert keyboard.feed(b"\x1b") == []
    assert keyboard.is_waiting
    assert keyboard.settle() == ["escape"]
    assert not keyboard.is_waiting


def test_an_escape_before_another_one_is_the_key() -> None:
    assert Keyboard().feed(b"\x1b\x1b[A") == ["escape", "up"]


def test_a_sequence_that_breaks_off_is_no_key() -> None:
    keyboard = Keyboard()

    assert keyboard.feed(b"\x1b[1;") == []
    assert keyboard.settle() == []
    assert keyboard.feed(b"j") == ["j"]


@pytest.mark.parametrize("data", [b"\x1b[200~", b"\x1b[<0;10;20M", b"\x1b[I", b"\x1bx", b"\x1bOP"])
def test_what_is_not_used_does_nothing(data: bytes) -> None:
    assert Keyboard().feed(data) == []


@given(st.binary(max_size=200))
def test_no_bytes_break_it_or_keep_it_waiting(data: bytes) -> None:
    keyboard = Keyboard()
    keyboard.feed(data)
    keyboard.settle()

    assert keyboard.feed(b"\r") in (["enter"], ["\ufffd", "enter"])
