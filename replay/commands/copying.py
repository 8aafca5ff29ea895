"""`import`, `redact` and `salvage`: what makes a new log out of an old one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from replay.commands.common import EPILOG, EXIT_UNREADABLE, EXIT_UNWRITABLE, fail

output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The new log."
)


@click.command("import", epilog=EPILOG, short_help="Make a log again that was exported.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@output_option
def import_(file: Path, output: Path) -> None:
    """Make the log again that `export --format jsonl` has written to FILE.

    FILE may be compressed with gzip; `-` is the standard input. The new log is the same log: the
    same id, the same records, the same hashes. What does not fit is named by line and field, and
    then nothing is written; what is at OUTPUT is never replaced.
    """
    from events.copying import CopyFailed  # noqa: PLC0415 - see `common`
    from replay.importing import NotAnExport, import_jsonl  # noqa: PLC0415
    from replay.screen import open_screen  # noqa: PLC0415

    try:
        if str(file) == "-":
            records = import_jsonl(sys.stdin.buffer, "standard input", output)
        else:
            with file.open("rb") as opened:
                records = import_jsonl(opened, str(file), output)
    except CopyFailed as error:
        fail(EXIT_UNWRITABLE, str(error))
    except NotAnExport as error:
        fail(EXIT_UNREADABLE, str(error))
    except OSError as error:
        fail(EXIT_UNREADABLE, f"can't read {file}: {error.strerror}")
    open_screen().line(("imported", "good"), (f"  {records:,} records into {output}", ""))


COMMANDS = (import_,)
