"""`pluperfect log compact`: moves what is long over out of the log and out of the spool.

Closed submissions go into an archive (`events.archive`), and their launch folders, output included,
are deleted. Works beside a running agent. Called by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import orjson

from agent.infrastructure.spool import LaunchFolder, NotConcluded
from events.archive import Compaction, compact
from events.log import Record

_WITH_A_KEY = frozenset({"RunDiscovered", "LaunchRepeated"})


@attrs.define
class SpoolSweep:
    """Deletes the launch folders of submissions that leave the log.

    Attributes:
        deleted: how many were there and are gone.
        kept: the keys of those of which something is alive, or that are not clear.
    """

    spool: Path
    deleted: int = 0
    kept: list[str] = attrs.field(factory=list)

    def __call__(self, records: Sequence[Record]) -> None:
        """Delete the folders of some submissions' launches."""
        for record in records:
            if record.type in _WITH_A_KEY:
                self._delete(str(orjson.loads(record.data)["launch_key"]))

    def _delete(self, key: str) -> None:
        folder = LaunchFolder.of(self.spool, key)
        if not folder.path.exists():
            return
        try:
            folder.remove()
        except NotConcluded:
            self.kept.append(key)
        else:
            self.deleted += 1


def retire(
    log: Path, spool: Path, archives: Path, older_than: timedelta
) -> tuple[Compaction, SpoolSweep]:
    """Move the submissions that were closed longer ago than an age, and delete their folders.

    Raises:
        LogError: the log can't be read or written, or another compaction is at work.
    """
    before = (datetime.now(UTC) - older_than).isoformat(timespec="microseconds")
    sweep = SpoolSweep(spool)
    return compact(log, archives, before, before_removal=sweep), sweep
