"""What the agent says, for a person or for a machine, without ever stopping to be heard.

Lines go to standard error through a thread of their own: a terminal or pipe that is not read (a
suspended `less`, a stalled log shipper) fills a bounded buffer and then loses lines, which is
said afterwards; polling and launching go on.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from datetime import UTC, datetime
from typing import Final, TextIO

import orjson

LONGEST_BUFFER: Final = 10_000
"""Lines that wait to be written before further ones are dropped."""

FLUSH_SECONDS: Final = 2.0
"""How long the end of the agent waits for the last lines to be read."""

DETAILS: Final = "details"
"""The attribute of a log record that holds machine-readable fields."""


class HumanFormatter(logging.Formatter):
    """`12:00:01.234 INFO    text`, in the host's local time."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        when = datetime.fromtimestamp(record.created, UTC).astimezone()
        return (
            f"{when:%H:%M:%S}.{int(record.msecs):03d} {record.levelname:<7} {record.getMessage()}"
        )


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, message, and what the message is of."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return orjson.dumps(fields | getattr(record, DETAILS, {}), default=str).decode()


class NeverBlockingHandler(logging.Handler):
    """Formats where the record was made, and writes in a thread."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(LONGEST_BUFFER)
        self._dropped = 0
        self._writer = threading.Thread(target=self._write, name="console", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over, or count it as dropped when nobody reads."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Give the last lines a moment to be written."""
        try:
            self._lines.put(None, timeout=FLUSH_SECONDS)
            self._writer.join(FLUSH_SECONDS)
        except queue.Full:
            # Nobody reads, and the lines would be lost either way: ending is more important.
            self._dropped += 1
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line + "\n")
                if self._dropped:
                    self._stream.write(f"({self._dropped} lines were lost: nobody read them)\n")
                    self._dropped = 0
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                # The reader went away (a closed pipe). The log has everything; go on without.
                self._dropped += 1


def configure(*, json_lines: bool, level: str) -> None:
    """Send this process's log lines to standard error. `level` is a name such as INFO."""
    handler = NeverBlockingHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_lines else HumanFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # A line for every request belongs to debugging the client, not to an operator's log.
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
