"""Another version's decider, at work in a process of its own: `replay check --against PATH`.

The process is `replay/decider_worker.py`, run by the same interpreter, isolated from environment
and user, with only PATH's `events` importable. Nothing is written to PATH.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

from replay import decider_worker
from replay.decider_worker import Answer, Question, receive, send

PATIENCE_SECONDS: Final = 10.0
"""How long a worker that has nothing more to do may take to end."""


class NoDecider(Exception):
    """A checkout holds no decider that works, and why."""

    def __init__(self, root: Path, reason: str) -> None:
        self.root, self.reason = root, reason
        super().__init__(f"the decider in {root} can't be used: {reason}")


class OtherVersion:
    """The rules of a checkout. A context manager; its process ends with the block."""

    def __init__(self, root: Path) -> None:
        """Start the process and let it import the rules.

        Args:
            root: a checkout of pluperfect, or a folder that it is installed in.

        Raises:
            NoDecider: there is none, or it can't be imported.
        """
        self.root = root.resolve()
        if not (self.root / "events" / "decider.py").is_file():
            reason = "there is no events/decider.py in it; name a checkout of pluperfect"
            raise NoDecider(root, reason)
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        # -I: neither the environment nor the folder we are in says what is imported; -B: no
        # bytecode is left in the checkout.
        command = [sys.executable, "-I", "-B", decider_worker.__file__, str(self.root)]
        self._process = subprocess.Popen(  # noqa: S603 - the interpreter we are
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )
        hello = receive(self._stdout)
        if hello is None or hello["error"]:
            reason = self._how_it_ended() if hello is None else _in_words(hello)
            self.close()
            raise NoDecider(root, reason)

    def __enter__(self) -> OtherVersion:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def ask(self, questions: list[Question]) -> list[Answer]:
        """Return that version's answer to each question.

        Raises:
            NoDecider: its process has ended.
        """
        try:
            send(self._stdin, questions)
            answers: list[Answer] | None = receive(self._stdout)
        except BrokenPipeError:
            answers = None
        if answers is None:
            raise NoDecider(self.root, self._how_it_ended())
        return answers

    def close(self) -> None:
        """End the process. Closing twice is allowed."""
        for stream in (self._stdin, self._stdout):
            # It may have ended already, with something left to read.
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return f"its process ended with status {status}" + (f": {lines[-1]}" if lines else "")

    @property
    def _stdin(self) -> BinaryIO:
        return cast("BinaryIO", self._process.stdin)

    @property
    def _stdout(self) -> BinaryIO:
        return cast("BinaryIO", self._process.stdout)


def _in_words(hello: dict[str, Any]) -> str:
    return f"{hello['where']}: {hello['error']}" if hello["where"] else str(hello["error"])
