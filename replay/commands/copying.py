"""`import`, `redact` and `salvage`: what makes a new log out of an old one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from replay.commands.common import (
    EPILOG,
    EXIT_DIVERGED,
    EXIT_UNREADABLE,
    EXIT_UNWRITABLE,
    EXIT_USAGE,
    fail,
    json_option,
    log_argument,
    print_json,
    reading,
    where,
)

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


@click.command(epilog=EPILOG, short_help="Make a copy of a log that strangers may see.")
@log_argument
@output_option
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="Keep the pseudonyms' key here (made if it is not there), so that other logs get the"
    " same ones. Without it, the key is thrown away.",
)
def redact(log: Path | None, output: Path, key_file: Path | None) -> None:
    """Make a copy of LOG that is fit for a public bug report, and still verifies.

    Ids, names of runs, queues, hosts and paths, and every word of a text that is not on a fixed
    list are replaced, the same by the same; what happened, and when, stays. Of a log that diverges,
    the copy diverges at the same position. No agent can go on with the copy.
    """
    with reading(log) as reader:
        from events.copying import CopyFailed  # noqa: PLC0415 - see `common`
        from replay.key_file import KeyUnusable, key_in, new_key  # noqa: PLC0415
        from replay.redacting import redact as write  # noqa: PLC0415
        from replay.screen import open_screen  # noqa: PLC0415

        try:
            key = new_key() if key_file is None else key_in(key_file)
            records = write(reader, key, output)
        except KeyUnusable as error:
            fail(EXIT_USAGE, str(error))
        except CopyFailed as error:
            fail(EXIT_UNWRITABLE, str(error))
    open_screen().line(("redacted", "good"), (f"  {records:,} records into {output}", ""))


@click.command(epilog=EPILOG, short_help="Say what of a damaged log is lost, and save the rest.")
@log_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write what is intact to this new log; without it, nothing is written.",
)
@json_option
def salvage(log: Path | None, output: Path | None, *, as_json: bool) -> None:
    """Say what of LOG is lost and what is intact, and write that to a new log.

    Every page of the file is looked at, whatever else is broken. A record is kept if its hash
    proves it, at its own position; what is lost is noted, so that the new log verifies. LOG and
    what lies beside it are never touched. No agent can go on with the new log.
    """
    import apsw  # noqa: PLC0415 - see `common`

    from events.copying import CopyFailed  # noqa: PLC0415
    from events.log import LogError  # noqa: PLC0415
    from replay.damage import diagnosis_object, print_diagnosis  # noqa: PLC0415
    from replay.salvage import salvage as save  # noqa: PLC0415
    from replay.screen import open_screen  # noqa: PLC0415

    path = where(log)
    try:
        found = save(path, output)
    except CopyFailed as error:
        fail(EXIT_UNWRITABLE, str(error))
    except LogError as error:
        fail(EXIT_UNREADABLE, str(error))
    except (apsw.Error, OSError) as error:
        fail(EXIT_UNWRITABLE, f"no room for the temporary files (TMPDIR): {error}")
    if as_json:
        print_json([diagnosis_object(found, output)])
    else:
        print_diagnosis(found, output, open_screen())
    if not found.is_sound:
        sys.exit(EXIT_DIVERGED)


COMMANDS = (import_, redact, salvage)
