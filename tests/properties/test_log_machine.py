"""Any sequence of commits, crashes and restarts leaves what a plain dictionary says.

The SQLite log and the log in memory go through the same steps side by side.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from events.chain import first_damage
from events.log import Append, Draft, Record, VersionConflict
from events.memory import MemoryStore
from events.sqlite import SqliteReader, SqliteStore
from tests.unit.log_fixtures import LOG_ID, Store, copy_log, ticking_clock

STREAMS = ("agent", "a/1", "a/2", "b/1", "ü/1")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@attrs.define
class Stream:
    """What the model knows of one stream."""

    data: list[str] = attrs.field(factory=list)
    closed: bool = False


@st.composite
def appends(draw: st.DrawFn) -> tuple[str, int, list[str], bool]:
    """Draw a stream, how far off the expected version is, the data and whether it closes."""
    off = draw(st.sampled_from([0, 0, 0, 0, 1, -1, 5]))
    data = draw(st.lists(TEXT, min_size=1, max_size=3))
    return draw(st.sampled_from(STREAMS)), off, data, draw(st.integers(0, 4)) == 0


class LogMachine(RuleBasedStateMachine):
    """The logs and the model."""

    @initialize()
    def make(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.lives = 0
        self.path = self.folder / "log"
        self.model: dict[str, Stream] = {}
        self.order: list[tuple[str, int]] = []
        self.clock = ticking_clock()
        self.memory = MemoryStore(LOG_ID, ticking_clock())
        self.sqlite = self.open()
        self.reader = SqliteReader.open(self.path)

    def open(self) -> SqliteStore:
        return SqliteStore.open(self.path, self.clock, new_id=lambda: LOG_ID)

    @property
    def stores(self) -> tuple[Store, Store]:
        return self.memory, self.sqlite

    @rule(group=st.lists(appends(), max_size=5))
    def commit(self, group: list[tuple[str, int, list[str], bool]]) -> None:
        drawn: list[Append] = []
        expected: list[int | VersionConflict] = []
        for stream, off, data, closes in group:
            known = self.model.setdefault(stream, Stream())
            version = len(known.data)
            wanted = max(version + off, 0)
            drafts = [Draft("Happened", 1, text, wanted or None) for text in data]
            drawn.append(Append(stream, wanted, drafts, closes))
            if known.closed or wanted != version:
                expected.append(VersionConflict(stream, wanted, version, closed=known.closed))
                continue
            known.data += data
            known.closed = closes
            self.order += [(stream, version + n) for n in range(1, len(data) + 1)]
            expected.append(len(data))

        for store in self.stores:
            found = store.commit(drawn)
            assert len(found) == len(expected)
            for outcome, said in zip(found, expected, strict=True):
                if isinstance(said, VersionConflict):
                    assert isinstance(outcome, VersionConflict)
                    assert str(outcome) == str(said)
                else:
                    assert not isinstance(outcome, VersionConflict)
                    assert len(outcome) == said

    @rule()
    def restart(self) -> None:
        self.reader.close()
        self.sqlite.close()
        self.sqlite = self.open()
        self.reader = SqliteReader.open(self.path)

    @rule()
    def crash(self) -> None:
        """Go on with what lies in the folder, while nobody closed anything."""
        self.lives += 1
        before = self.sqlite
        self.path = copy_log(self.path, self.folder / f"life {self.lives}")
        self.reader.close()
        self.reader = SqliteReader.open(self.path)
        self.check(self.reader)
        self.reader.close()
        self.sqlite = self.open()
        self.reader = SqliteReader.open(self.path)
        before.close()
        self.memory = self.memory.crash_copy()

    @precondition(lambda self: self.order)
    @rule(after=st.integers(0, 20), stream=st.sampled_from(STREAMS))
    def read_from_somewhere(self, after: int, stream: str) -> None:
        for log in (*self.stores, self.reader):
            rest = [(r.stream, r.version) for r in log.read_all(after)]
            assert rest == self.order[after:]
            data = [r.data for r in log.read_stream(stream, after)]
            assert data == self.model.get(stream, Stream()).data[after:]
            assert log.streams(stream[0]) == self.begun(stream[0])

    def begun(self, prefix: str = "") -> list[str]:
        return [s for s, version in self.order if version == 1 and s.startswith(prefix)]

    @invariant()
    def all_say_the_same(self) -> None:
        for log in (*self.stores, self.reader):
            self.check(log)
        assert self.memory.tip().position == self.sqlite.tip().position

    def check(self, log: Store | SqliteReader) -> None:
        records: list[Record] = list(log.read_all())
        assert [r.position for r in records] == list(range(1, len(self.order) + 1))
        assert [(r.stream, r.version) for r in records] == self.order
        assert first_damage(records, LOG_ID, tip=log.tip()) is None
        assert log.last_position() == len(self.order)
        assert log.streams() == self.begun()
        assert log.open_streams() == [s for s in self.begun() if not self.model[s].closed]
        for stream in STREAMS:
            known = self.model.get(stream, Stream())
            assert [r.data for r in log.read_stream(stream)] == known.data
            assert log.version_of(stream) == len(known.data)
            closing = [r.version for r in log.read_stream(stream) if r.closes]
            assert closing == ([len(known.data)] if known.closed else [])

    def teardown(self) -> None:
        if hasattr(self, "sqlite"):
            self.reader.close()
            self.sqlite.close()
            SqliteReader.open(self.path).check_file()
            shutil.rmtree(self.folder)


TestLogAgainstAModel = LogMachine.TestCase
TestLogAgainstAModel.settings = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
