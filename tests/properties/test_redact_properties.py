"""A redacted copy holds nothing of what was there, and is as sound (or not) as the log was."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import attrs
from hypothesis import given
from hypothesis import strategies as st

from events.codec import EVENT_TYPES, decode, encode
from events.decider import decide
from events.lifecycle import Effect, Event, PendingProposed
from events.log import Append
from events.notices import AGENT_STREAM, Notice
from events.observations import (
    AgentRestarted,
    Observation,
    ProposalAnswered,
    RequestFailed,
    RunOffered,
    RunRead,
)
from events.sqlite import SqliteReader, SqliteStore
from events.submission import Submission, evolve, stream_name
from replay.pseudonyms import Pseudonyms
from replay.redacting import KEPT_WHEN, NAMES, TEXTS, redact
from replay.verification import Divergence, Tally, verify
from tests.properties.strategies import events, observations
from tests.unit.log_fixtures import ticking_clock

KEY = b"k" * 32
CANARY = "Zqxj"
"""In every text and in the hex of every id, so that one search finds any of them."""

HEX = "c0ffee5afe"


def planted(event: Event, number: Iterator[int]) -> Event:
    """Return an event with a canary in every text and id of it."""

    def text(value: str) -> str:
        n = next(number)
        forms = (f"{value} {CANARY}{n}", f"{CANARY}{n}{value}", f"{value}{CANARY}",
                 f"{CANARY}.{value}", f"the run {CANARY}-{n} failed: {value}",
                 f"/home/{CANARY}/{n}", f"http://{CANARY}.de:4200/{CANARY}", f"{CANARY}@{n}.com",
                 f"PREFECT_{CANARY}", f"{value}{HEX}{n:022x}{value}",
                 str(UUID(f"{HEX}{n:022x}")).upper())  # fmt: skip
        return forms[n % len(forms)]

    def plant(value: Any) -> Any:
        match value:
            case str():
                return text(value)
            case UUID():
                return UUID(f"{HEX}{next(number):022x}")
            case tuple():
                return tuple(map(plant, value))
            case Mapping():
                return {text(k): None if v is None else text(v) for k, v in value.items()}
            case _:
                return value

    fields = {f.name: plant(getattr(event, f.name)) for f in attrs.fields(type(event))}
    return attrs.evolve(event, **fields)


def write(path: Path, log: Iterable[tuple[str, Event]], log_id: UUID) -> None:
    """Write a log of these events, whatever they are."""
    versions: dict[str, int] = {}
    with closing(SqliteStore.open(path, ticking_clock(), new_id=lambda: log_id)) as store:
        for stream, event in log:
            version = versions.get(stream, 0)
            store.commit([Append(stream, version, [encode(event, version or None)])])
            versions[stream] = version + 1


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def redacted(path: Path, folder: Path) -> Path:
    folder.mkdir()
    with closing(SqliteReader.open(path)) as reader:
        redact(reader, KEY, folder / "copy")
    return folder / "copy"


@given(
    happened=st.lists(st.tuples(st.sampled_from([AGENT_STREAM, "a", "b"]), events()), max_size=30),
    start=st.integers(0, 20),
)
def test_no_text_and_no_id_of_a_log_is_anywhere_in_the_copy(
    happened: list[tuple[str, Event]], start: int
) -> None:
    numbers = itertools.count(start)
    log = [(f"{CANARY}/{s}" if s != AGENT_STREAM else s, planted(e, numbers)) for s, e in happened]
    log_id = UUID(f"{HEX}{start:022x}")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log"
        write(path, log, log_id)

        content = bytes_of(redacted(path, Path(name) / "copy").parent)

    lower = content.lower()
    assert CANARY.lower().encode() not in lower
    assert HEX.encode() not in lower
    assert str(UUID(f"{HEX}{0:022x}"))[:13].encode() not in lower
    assert bytes.fromhex(HEX) not in content


@given(event=events())
def test_what_is_no_text_stays_as_it_was(event: Event) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log"
        write(path, [("a", event)], UUID(int=1))
        with closing(SqliteReader.open(redacted(path, Path(name) / "copy"))) as reader:
            (record,) = reader.read_all()
    copied = decode(record)

    assert type(copied) is type(event)
    for field in attrs.fields(type(event)):
        before, after = getattr(event, field.name), getattr(copied, field.name)
        if isinstance(before, (str, UUID)):
            assert bool(before) == bool(after)
        elif isinstance(before, (tuple, Mapping)):
            assert len(before) == len(after)
        else:
            assert before == after


def test_every_text_field_of_every_event_is_known_to_be_a_name_or_a_text() -> None:
    known = TEXTS | NAMES | {*KEPT_WHEN} | {"submission", "command"}
    found = {
        field.name
        for kind in EVENT_TYPES.values()
        for field in attrs.fields(kind)
        if any(part in str(field.type) for part in ("str", "tuple", "Mapping"))
    }
    assert found == known


# --- decisions -----------------------------------------------------------------------------


def story(
    history: Iterable[Observation], agent_id: UUID, number: int
) -> Iterator[tuple[int, str, list[Event], bool]]:
    """Yield what an agent appends: version before, stream, events, whether it closes."""
    run = uuid5(agent_id, str(number))
    offer = RunOffered(agent_id, run, f"run {number}", run, None, "q", 1, 1, run, None)
    stream, submission, version = stream_name(run, 1), Submission(), 0
    for observation in (offer, *history):
        if submission.is_closed:
            return
        transitions = decide(submission, observation)
        for transition in transitions:
            submission = evolve(submission, transition)
        yield version, stream, [observation, *transitions], submission.is_closed
        version += 1 + len(transitions)


def our_ids(agent_id: UUID, number: int) -> st.SearchStrategy[UUID | None]:
    """Return ids that matter to a submission, so that decisions hang on which they are."""
    run = uuid5(agent_id, str(number))
    offer = RunOffered(agent_id, run, "", run, None, "q", 1, 1, run, None)
    (_, claim) = decide(Submission(), offer)
    assert isinstance(claim, PendingProposed)
    return st.sampled_from([None, run, claim.transition_id, UUID(int=7)])


AGENT = UUID("5ca1ab1e-0000-4000-8000-000000000000")


def aimed(observation: Observation, ids: list[UUID | None]) -> Observation:
    names = ("transition_id", "before_transition_id", "state_id", "before_id")
    having = {field.name for field in attrs.fields(type(observation))}
    changes = {n: i for n, i in zip(names, ids, strict=True) if n in having}
    return attrs.evolve(observation, **changes, **_times(having))


def _times(having: set[str]) -> dict[str, Any]:
    return {"scheduled_time": None} if "scheduled_time" in having else {}


def histories(number: int) -> st.SearchStrategy[list[Observation]]:
    ids = st.lists(our_ids(AGENT, number), min_size=4, max_size=4)
    anything = st.builds(aimed, observations(), ids)
    telling = st.sampled_from(TELLING).flatmap(lambda each: ours(each, number))
    return st.lists(telling | anything, max_size=15)


TELLING: tuple[Observation, ...] = (
    ProposalAnswered(Effect.PROPOSE_PENDING, "REJECT", "again", "PENDING"),
    RequestFailed(Effect.PROPOSE_PENDING, "no answer", True, 0.5),
    RunRead("PENDING", "Pending", None, None, None),
    RunRead("CANCELLING", "Cancelling", None, None, None),
    AgentRestarted(),
)
"""On these, what follows hangs on whether an id is that of our claim."""


def ours(observation: Observation, number: int) -> st.SearchStrategy[Observation]:
    having = {field.name for field in attrs.fields(type(observation))}
    names = having & {"transition_id", "before_transition_id"}
    return our_ids(AGENT, number).map(
        lambda id_: attrs.evolve(observation, **dict.fromkeys(names, id_))
    )


def record(path: Path, stories: Iterable[list[Observation]]) -> None:
    with closing(SqliteStore.open(path, ticking_clock(), new_id=lambda: AGENT)) as store:
        causes: dict[str, int] = {}
        for number, history in enumerate(stories):
            for version, stream, told, closes in story(history, AGENT, number):
                drafts = [encode(told[0], causes.get(stream))]
                drafts += [encode(each, version + 1) for each in told[1:]]
                store.commit([Append(stream, version, drafts, closes)])
                if len(told) > 1:
                    causes[stream] = version + len(told)


def divergences(path: Path) -> list[tuple[Any, ...]]:
    with closing(SqliteReader.open(path)) as reader:
        found: list[Divergence] = list(verify(reader, reader.log_id, Tally()))
    return [
        (d.kind, d.position, d.version, d.type, [field.path for field in d.fields]) for d in found
    ]


@given(st.tuples(histories(0), histories(1), histories(2)))
def test_a_copy_of_a_log_that_verifies_does_so_too(stories: tuple[list[Observation], ...]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log"
        record(path, stories)
        assert divergences(path) == []

        copy = redacted(path, Path(name) / "copy")

        assert divergences(copy) == []
        with closing(SqliteReader.open(path)) as one, closing(SqliteReader.open(copy)) as other:
            other.check_file()
            for before, after in zip(one.read_all(), other.read_all(), strict=True):
                same = ("position", "version", "type", "cause", "closes", "recorded_at",
                        "monotonic_ns")  # fmt: skip
                assert [getattr(before, n) for n in same] == [getattr(after, n) for n in same]


@given(st.tuples(histories(0), histories(1)), st.data())
def test_a_copy_of_a_log_that_diverges_diverges_at_the_same_positions(
    stories: tuple[list[Observation], ...], data: st.DataObject
) -> None:
    from tests.samples.edited import rewrite

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log"
        record(path, stories)
        forged = data.draw(st.none() | events().filter(lambda e: not isinstance(e, Notice)))

        def forge(records: list[Any]) -> list[Any]:
            index = data.draw(st.integers(0, len(records) - 1))
            draft = encode(forged or planted(decode(records[index]), itertools.count()))
            return [
                attrs.evolve(r, type=draft.type, data=draft.data) if i == index else r
                for i, r in enumerate(records)
            ]

        rewrite(path, forge, rechain=True)
        try:
            before = divergences(path)
        except (ValueError, TypeError, LookupError):
            return  # An observation that nothing can be decided from.

        assert divergences(redacted(path, Path(name) / "copy")) == before


# --- consistency ---------------------------------------------------------------------------

NAME = st.text(st.characters(categories=["Ll", "Lu", "Nd"]), min_size=4, max_size=12).map(
    lambda name: f"zz-{name}"
)


@given(NAME, NAME)
def test_a_name_has_one_pseudonym_wherever_it_stands_and_shares_it_with_no_other(
    one: str, other: str
) -> None:
    pseudonyms = Pseudonyms(KEY)
    name = pseudonyms.name(one)

    assert (name == pseudonyms.name(other)) == (one == other)
    for text in ("no such run: {}", "'{}' is not here.", "http://{}:4200/api", "({}, {})", "{}:1"):
        assert pseudonyms.text(text.replace("{}", one)) == text.replace("{}", name)
    assert Pseudonyms(b"l" * 32).name(one) != name


@given(st.text())
def test_different_texts_stay_different(text: str) -> None:
    pseudonyms = Pseudonyms(KEY)
    for changed in (text + "x", "x" + text, text.swapcase(), text + "/x", text + " 1234"):
        if changed != text:
            assert pseudonyms.name(changed) != pseudonyms.name(text)
            assert pseudonyms.text(changed) != pseudonyms.text(text)
    assert bool(pseudonyms.text(text)) == bool(text)


def test_an_id_has_one_pseudonym_in_any_spelling() -> None:
    pseudonyms, id_ = Pseudonyms(KEY), UUID("0b7c9a52-7c55-4c55-9d0c-4a3f4a6c7d10")
    new = pseudonyms.uuid(id_)

    for spelled in (str, lambda u: u.hex, lambda u: str(u).upper(), lambda u: f"run-{u}.log",
                    lambda u: f"{{{u}}}", lambda u: u.urn, lambda u: f"x_{u.hex}/y"):  # fmt: skip
        told = pseudonyms.text(spelled(id_)).lower()
        assert str(new) in told or new.hex in told
        assert str(id_) not in told
        assert id_.hex not in told
