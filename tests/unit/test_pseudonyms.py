"""What of a text stays when a log is redacted, and what does not: example by example."""

from __future__ import annotations

import re

import pytest

from replay.pseudonyms import Pseudonyms
from replay.vocabulary import setting_words, vocabulary

FIVE = "[bdfghjklmnprstvz][aiou][bdfghjklmnprstvz][aiou][bdfghjklmnprstvz]"
PSEUDONYM = "-".join([FIVE] * 4)
KEY = b"k" * 32


def shape(text: str) -> str:
    """Return a text with `~` in the place of each pseudonym."""
    return re.sub(rf"(?<![a-z]){PSEUDONYM}(?![a-z])", "~", text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        # Our own messages, Prefect's and the system's stay.
        ("the spool can't be read: Input/output error", None),
        ("the deployment's infrastructure document does not exist; choose another one", None),
        ("ABORT: This run is in a PENDING state and cannot transition to a PENDING state.", None),
        ("POST /flow_runs/…/set_state: connection refused", None),
        ("[Errno 28] No space left on device", None),
        ("ConnectionRefusedError: connection reset by peer", None),
        ("killed by SIGKILL; refused with status 404 after 0.5 s, 2 of 10", None),
        ("/usr/bin/python", None),
        # Whatever else there is does not.
        ("no such command: /opt/acme/bin/nightly", "no such command: /~/~/~/~"),
        ("no answer from https://acme.example:4200/api", "no answer from https://~.~:4200/api"),
        ("customer 4711 is unknown", "~ ~ is unknown"),
        ("call 0171 555 1234", "call ~"),
        ("2026-11-24 02:15:33", "~"),
        ("by 10.0.0.7 and fe80::1 (00:1b:44:11:3a:b7)", "by ~ and ~ (~)"),
        ("bob@acme.com", "~@~.~"),
        ("nightly-report.csv", "~.~"),
        ("run-404", "~"),
        ("Zürich", "~"),
        ("日本", "~"),
        ("\x00\x1b[2J", "~[~"),
        ("acces\u017f", "~"),
        ("a == b", None),
        ("!!!!!", " ~ "),
        ("", None),
    ],
)
def test_of_a_text_the_words_of_everybodys_messages_stay(text: str, left: str | None) -> None:
    assert shape(Pseudonyms(KEY).text(text)) == (text if left is None else left)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("default", "default"),
        ("failed", "~"),
        ("the queue", "~ ~"),
        ("nightly-*", "~-*"),
        ("batch 7 (eu)", "~ ~ (~)"),
        ("404", "~"),
    ],
)
def test_of_a_name_nothing_stays_but_default(text: str, left: str) -> None:
    assert shape(Pseudonyms(KEY).name(text)) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("-m", "-m"),
        ("prefect.engine", "prefect.engine"),
        ("--date=2026-11-24", "--date=~"),
        ("--retries=3", "--retries=~"),
        ("--customer", "--~"),
    ],
)
def test_of_a_command_no_number_stays(text: str, left: str) -> None:
    assert shape(Pseudonyms(KEY).command(text)) == left


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("PREFECT_API_URL", "PREFECT_API_URL"),
        ("PREFECT__FLOW_RUN_ID", "PREFECT__FLOW_RUN_ID"),
        ("PREFECT_ACME_KEY", "PREFECT_~_KEY"),
        ("HOME", "~"),
        ("ACME_TOKEN", "~"),
    ],
)
def test_of_variables_prefects_own_keep_their_names(name: str, left: str) -> None:
    assert shape(Pseudonyms(KEY).variable(name)) == left


def test_a_digest_stays_a_digest_and_a_launch_key_a_launch_key() -> None:
    pseudonyms = Pseudonyms(KEY)
    for text, pattern in (
        ("<5d41402abc4b2a76>", r"<[0-9a-f]{16}>"),
        ("/spool/tqoqwdqqfp6gxammwpgknbvr2y/exit", r"/spool/[a-z2-7]{26}/exit"),
    ):
        told = pseudonyms.text(text)
        assert re.fullmatch(pattern, told)
        assert told != text


def test_an_id_that_was_derived_is_replaced_by_what_is_derived_in_the_copy() -> None:
    pseudonyms = Pseudonyms(KEY)
    key, id_ = "tqoqwdqqfp6gxammwpgknbvr2y", "0b7c9a52-7c55-4c55-9d0c-4a3f4a6c7d10"
    derived = {key: "a" * 26, id_.replace("-", ""): "b" * 32}

    told = pseudonyms.text(f"{key} {id_}", derived)

    assert told == f"{'a' * 26} bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"


def test_a_hostile_text_takes_no_time() -> None:
    """Lengths at which anything quadratic would not come to an end."""
    pseudonyms = Pseudonyms(KEY)
    for part in ("/", "1.", "1.1x", ":", "://", "a-", "-", " ", "a.", "0:", "fffffff-"):
        pseudonyms.text(part * 100_000 + "!")


def test_the_vocabulary_is_in_the_form_in_which_it_is_looked_up() -> None:
    for word in vocabulary() | setting_words():
        assert word == word.casefold()
        assert word.isascii()
