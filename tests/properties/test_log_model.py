"""The SQLite log against a model: a dictionary of lists, which no crash or conflict confuses."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from events.chain import first_damage
from events.log import Append, Draft, VersionConflict
from events.sqlite import SqliteReader, SqliteStore

STREAMS = st.sampled_from(["a", "a/1", "b", "c"])
DRAFTS = st.lists(
    st.builds(Draft, st.sampled_from(["X", "Y"]), st.just(1), st.just('{"ä":"\\u0000"}')),
    min_size=1,
    max_size=3,
)
APPENDS = st.tuples(STREAMS, st.integers(-1, 1), DRAFTS, st.booleans())


class LogMachine(RuleBasedStateMachine):
    """Commits, conflicts, closings, clean ends and crashes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = SqliteStore.open(self.folder / "log")
        self.model: dict[str, list[str]] = {}
        self.closed: set[str] = set()
        self.order: list[str] = []

    @rule(wanted=st.lists(APPENDS, min_size=1, max_size=4))
    def commit(self, wanted: list[tuple[str, int, list[Draft], bool]]) -> None:
        """Commit several appends, some of them on a wrong version."""
        versions = {name: len(records) for name, records in self.model.items()}
        appends = []
        for stream, off, drafts, closes in wanted:
            expected = max(versions.get(stream, 0) + off, 0)
            appends.append(Append(stream, expected, drafts, closes))
            if expected == versions.get(stream, 0) and stream not in self.closed:
                versions[stream] = expected + len(drafts)
        for append, outcome in zip(appends, self.store.commit(appends), strict=True):
            present = self.model.get(append.stream, [])
            fits = append.stream not in self.closed and append.expected_version == len(present)
            assert isinstance(outcome, VersionConflict) == (not fits)
            if fits:
                self.model[append.stream] = present + [draft.type for draft in append.drafts]
                self.order += [append.stream] * len(append.drafts)
                if append.closes:
                    self.closed.add(append.stream)

    @rule()
    def reopen(self) -> None:
        """End cleanly and start again."""
        self.store.close()
        self.store = SqliteStore.open(self.folder / "log")

    @rule()
    def crash(self) -> None:
        """Go on from what a killed process would have left: its files as they are."""
        after = Path(tempfile.mkdtemp())
        for name in ("log", "log-wal"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, after / name)
        self.store.close()
        shutil.rmtree(self.folder)
        self.folder = after
        self.store = SqliteStore.open(self.folder / "log")

    @invariant()
    def the_log_is_the_model(self) -> None:
        """What can be read is what was committed, in order, and chained."""
        reader = SqliteReader.open(self.folder / "log")
        records = list(reader.read_all())
        assert [record.stream for record in records] == self.order
        assert first_damage(records, reader.log_id) is None
        for stream, types in self.model.items():
            assert [record.type for record in reader.read_stream(stream)] == types
        assert set(reader.open_streams()) == self.model.keys() - self.closed
        reader.close()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
