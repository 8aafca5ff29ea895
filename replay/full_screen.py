"""A terminal taken over as a whole, and given back as it was, whatever happens.

The alternate screen, keys without Enter, and what a signal does meanwhile: a new size redraws,
Ctrl-Z gives the terminal back until `fg`, SIGTERM and Ctrl-C give it back and end. `replay step`
is the caller.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import termios
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Final, Self

from replay.keyboard import ESCAPE_SECONDS, Keyboard
from replay.screen import STYLES, Line

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""The alternate screen, no cursor, and no wrapping: a character that is wider here than we think
can then not shift the lines below it."""
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[0m\x1b[?1049l"

REDRAW: Final = "redraw"
"""A key that nobody pressed: the window has another size, or the terminal came back."""

_TEMPORARY: Final[tuple[int, ...]] = (signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP)
_FATAL: Final[tuple[int, ...]] = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Interrupted(Exception):
    """A signal has ended it; raised where the terminal is restored on the way out."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def is_possible() -> bool:
    """Tell whether there is a terminal at both ends, and one that can do it."""
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdin.isatty() and sys.stdout.isatty() and not dumb


class FullScreen:
    """The terminal, as long as the block lasts."""

    def __init__(self) -> None:
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._keyboard = Keyboard()
        self._painter = _Painter()
        self._handlers: dict[int, Any] = {}
        self._woken, self._wakes = -1, -1
        self._modes = termios.tcgetattr(self._input)

    def __enter__(self) -> Self:
        self._woken, self._wakes = os.pipe()
        for end in (self._woken, self._wakes):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        for number in _FATAL:
            self._handlers[number] = signal.signal(number, self._end)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._suspend)
        self._handlers[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._resume)
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, _wake_up)
        try:
            self._take()
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        size = os.get_terminal_size(self._output)
        return size.columns or 80, size.lines or 24

    def draw(self, lines: Sequence[Line]) -> None:
        """Put lines on the screen, which has exactly so many."""
        # Cleared first: after a line that fills the row, the cursor stands on its last character.
        rows = (f"\x1b[{number};1H\x1b[2K{self._painter.paint(line)}"
                for number, line in enumerate(lines, 1))  # fmt: skip
        self._write("".join(rows))

    def keys(self, timeout_seconds: float | None) -> list[str]:
        """Wait for keys; none when the time is over.

        Raises:
            EOFError: the terminal is gone.
            Interrupted: a signal is to end it.
        """
        while True:
            wait = ESCAPE_SECONDS if self._keyboard.is_waiting else timeout_seconds
            ready, _, _ = select.select([self._input, self._woken], [], [], wait)
            if self._woken in ready:
                self._drain()
                return [REDRAW]
            if self._input not in ready:
                return self._keyboard.settle()
            try:
                data = os.read(self._input, 1024)
            except OSError as error:
                raise EOFError from error
            if not data:
                raise EOFError
            if keys := self._keyboard.feed(data):
                return keys

    # --- taking and giving back ------------------------------------------------------------

    def _take(self) -> None:
        modes = termios.tcgetattr(self._input)
        modes[0] &= ~termios.IXON  # Ctrl-S stops nothing.
        modes[3] &= ~(termios.ECHO | termios.ICANON)  # Ctrl-C and Ctrl-Z stay signals.
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._input, termios.TCSADRAIN, modes)
        self._write(_ENTER)

    def _let_go(self) -> None:
        with contextlib.suppress(OSError, termios.error):  # It may be gone for good.
            self._write(_LEAVE)
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._modes)

    def _give_back(self) -> None:
        for number in (*_FATAL, *_TEMPORARY):
            signal.signal(number, signal.SIG_IGN)  # Nothing comes between this and its end.
        self._let_go()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._woken)
        os.close(self._wakes)

    def _write(self, text: str) -> None:
        sys.stdout.flush()
        data = text.encode(sys.stdout.encoding or "utf-8", "replace")
        while data:
            data = data[os.write(self._output, data) :]

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 1024)

    # --- signals ---------------------------------------------------------------------------

    def _end(self, number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    def _suspend(self, number: int, _frame: FrameType | None) -> None:
        self._let_go()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # Here it stops, until SIGCONT.
        self._resume(number, None)  # Or it goes on: what no shell has started can't be stopped.

    def _resume(self, _number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTSTP, self._suspend)
        self._take()


def _wake_up(_number: int, _frame: FrameType | None) -> None:
    # The wake-up descriptor ends the waiting for keys.
    pass


class _Painter:
    """Styled lines as escape sequences: rich knows NO_COLOR and what the terminal can do."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only a full screen needs it
        from rich.theme import Theme  # noqa: PLC0415

        self._console = Console(file=io.StringIO(), theme=Theme(STYLES), force_terminal=True)

    def paint(self, line: Line) -> str:
        from rich.text import Text  # noqa: PLC0415 - loaded already

        with self._console.capture() as painted:
            self._console.print(Text.assemble(*line), soft_wrap=True, end="")
        return painted.get()
