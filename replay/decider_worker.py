"""Makes recorded decisions again by whichever `events` is imported: today's, another version's.

`replay check` uses `Judge` in its own process for today's rules. For those of another checkout it
runs this file as a script, `python -I -B decider_worker.py PATH`, in which `events` is that
checkout's and nothing of this release is imported. Standard input and output carry batches of
questions and answers: four bytes of length, then JSON.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final

import orjson

Question = tuple[int, str | None, int, str, bool]
"""(key of the stream, an observation's type or None for none, its schema, its data, whether the
stream ends here)."""

Answer = tuple[
    list[tuple[str, int, str]], tuple[str, str] | None, tuple[str, list[str], bool] | None
]
"""(the transitions as type, schema and data, what went wrong and how, where the stream ends: its
state, what is owed, whether it is closed)."""

UNREADABLE: Final = "unreadable"
"""What went wrong: this version can't read the observation."""
RAISES: Final = "raises"
"""What went wrong: this version's decider breaks on it."""
LOST: Final = "lost"
"""What went wrong: one of the two, earlier in this stream."""

LENGTH: Final = struct.Struct("<I")


class Judge:
    """Folds what it decides, stream by stream, and keeps the folds of open streams only."""

    def __init__(self) -> None:
        """Import the rules.

        Raises:
            Exception: whatever goes wrong when a version's modules are imported.
        """
        decider, codec = _module("events.decider"), _module("events.codec")
        # Before the fold had a module of its own it was the decider's.
        home = _module("events.submission") if _exists("events.submission") else decider
        self._draft: Callable[..., Any] = _module("events.log").Draft
        self._unreadable: type[Exception] = codec.UndecodableRecord
        self._decode, self._encode = codec.decode, codec.encode
        self._decide, self._evolve = decider.decide, home.evolve
        self._what_next, self._nothing = home.what_next, home.Submission()
        self._folds: dict[int, Any] = {}
        self._lost: set[int] = set()

    def ask(self, questions: list[Question]) -> list[Answer]:
        """Return an answer to each question."""
        return [self._answer(*question) for question in questions]

    def _answer(self, key: int, type_: str | None, schema: int, data: str, last: bool) -> Answer:
        transitions: list[tuple[str, int, str]] = []
        trouble = None
        if key in self._lost:
            trouble = (LOST, "")
        elif type_ is not None:
            trouble = self._judge(key, self._draft(type_, schema, data), transitions)
            if trouble is not None:
                self._lost.add(key)
        return transitions, trouble, self._end(key) if last else None

    def _judge(
        self, key: int, draft: Any, transitions: list[tuple[str, int, str]]
    ) -> tuple[str, str] | None:
        try:
            observation = self._decode(draft)
        except self._unreadable as error:
            return UNREADABLE, str(error)
        fold = self._folds.get(key, self._nothing)
        try:
            for transition in self._decide(fold, observation):
                fold = self._evolve(fold, transition)
                encoded = self._encode(transition)
                transitions.append((encoded.type, encoded.schema, encoded.data))
        except Exception as error:
            return RAISES, _last_line(error)
        self._folds[key] = fold
        return None

    def _end(self, key: int) -> tuple[str, list[str], bool]:
        fold = self._folds.pop(key, self._nothing)
        self._lost.discard(key)
        return fold.state.value, [effect.value for effect in self._what_next(fold)], fold.is_closed


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


def _exists(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]


# --- another version, in a process of its own ----------------------------------------------


def main(root: Path) -> None:
    """Answer what comes in until nothing does, by the rules in `root/events`."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # Whatever that version prints must not end up among the answers.
    os.dup2(2, 1)
    try:
        _make_importable(root / "events")
        judge = Judge()
    except Exception as error:
        send(outgoing, {"error": _last_line(error), "where": _where(error, root)})
        return
    send(outgoing, {"error": None})
    with cycles_left_alone():
        while (questions := receive(incoming)) is not None:
            send(outgoing, judge.ask(questions))


@contextlib.contextmanager
def cycles_left_alone() -> Iterator[None]:
    """Look for cyclic garbage seldom: there is hardly any, and it took a quarter of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _make_importable(package: Path) -> None:
    """Let `events` be that package; nothing beside it becomes importable."""
    spec = importlib.util.spec_from_file_location(
        "events", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{package} is no package")
    module = importlib.util.module_from_spec(spec)
    sys.modules["events"] = module
    spec.loader.exec_module(module)


def _where(error: BaseException, root: Path) -> str | None:
    """Return the innermost place in the checkout that an error came from."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    inside = [(file, line) for file, line in places if Path(file).is_relative_to(root)]
    if not inside:
        return None
    file, line = inside[-1]
    return f"{Path(file).relative_to(root)}, line {line}"


def send(stream: BinaryIO, message: Any) -> None:
    """Write one message."""
    body = orjson.dumps(message)
    stream.write(LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message; None at the end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    return orjson.loads(body) if len(body) == length else None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
