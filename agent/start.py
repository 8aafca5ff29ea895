"""Puts the daemon together from its settings, runs it, and turns what went wrong into words.

The composition root: the only place that knows every part. Called by the command line.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from uuid import UUID

import attrs
import trio

from agent import console
from agent.cli import EXIT_LOG_UNUSABLE, EXIT_LOG_WRITE_FAILED, EXIT_POLL_FAILED, EXIT_USAGE
from agent.daemon import Daemon, OnStop, Plan
from agent.infrastructure.keeper import boot_id
from agent.infrastructure.process import ProcessLauncher
from agent.infrastructure.redact import digest_key
from agent.infrastructure.resolve import Resolver, default_python
from agent.infrastructure.spool import SpoolUnusable
from agent.narration import Narrator
from agent.noticeboard import NoticeBoard
from agent.polling import QueuePoller
from agent.prefect.client import PrefectClient
from agent.prefect.errors import ClientMisconfigured
from agent.settings import Settings, SettingsError
from agent.submission import SubmissionDriver, World
from events.group_commit import group_commit
from events.lifecycle import Event, OnUncertain
from events.log import LogError, LogWriteFailed
from events.notices import AgentStarted
from events.places import LOG_NAME
from events.sqlite import SqliteStore
from events.submission import Submission

logger = logging.getLogger("pluperfect")

SPOOL_NAME = "spool"


@attrs.frozen
class Request:
    """What one start was asked for, besides the settings."""

    queues: tuple[str, ...]
    prefixes: tuple[str, ...]
    limit: int | None
    run_once: bool
    hide_welcome: bool
    wait_on_stop: bool
    json_lines: bool
    on_uncertain: OnUncertain = OnUncertain.CRASH
    max_late: timedelta | None = None
    overdue_after: timedelta = timedelta(minutes=5)


def start_agent(settings: Settings, request: Request) -> int:
    """Run an agent until it is stopped; return the process's exit status."""
    console.configure(json_lines=request.json_lines, level=settings.log_level)
    try:
        settings.require_api_url()
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = SqliteStore.open(settings.state_dir / LOG_NAME)
    except SettingsError as error:
        return _give_up(str(error), EXIT_USAGE)
    except LogError as error:
        full = isinstance(error, LogWriteFailed)
        return _give_up(str(error), EXIT_LOG_WRITE_FAILED if full else EXIT_LOG_UNUSABLE)
    except OSError as error:
        return _give_up(f"can't use {settings.state_dir}: {error.strerror}", EXIT_LOG_UNUSABLE)
    try:
        return trio.run(_run, settings, request, store)
    except BaseExceptionGroup as group:
        return _explain(group)
    except (LogError, SpoolUnusable, ClientMisconfigured) as error:
        # Before there was a nursery that would have put it into a group.
        return _explain(ExceptionGroup("at the start", [error]))
    finally:
        store.close()
        logging.shutdown()


async def _run(settings: Settings, request: Request, store: SqliteStore) -> int:
    narrator = Narrator()
    daemons: list[Daemon] = []

    def listen(driver: SubmissionDriver, before: Submission, events: Sequence[Event]) -> None:
        narrator.tell(driver, before, events)
        for daemon in daemons:
            daemon.note_change()

    async with (
        group_commit(store) as log,
        PrefectClient(settings) as client,
        ProcessLauncher.open(settings.state_dir / SPOOL_NAME) as launcher,
    ):
        resolver = Resolver(
            client,
            base_environment=settings.job_environment(),
            python=settings.python or default_python(),
            default_document=settings.default_infrastructure,
        )
        rng = random.Random()  # noqa: S311 - jitter
        key = digest_key(settings.state_dir)
        world = World(log, client, launcher, resolver, key, rng, listen, request.on_uncertain)
        board = await NoticeBoard.open(log)
        plan = _plan(settings, request, store.log_id)
        poller = QueuePoller(client, request.queues, request.prefixes, board.post)
        daemon = Daemon(world, poller, board, plan, lambda: datetime.now(UTC), rng)
        daemons.append(daemon)
        if settings.profile.warning:
            logger.warning("%s", settings.profile.warning)
        if not request.hide_welcome:
            _welcome(settings, request)
        await daemon.run()
    if request.run_once and not daemon.last_poll_worked:
        return EXIT_POLL_FAILED
    return 0


def _plan(settings: Settings, request: Request, agent_id: UUID) -> Plan:
    return Plan(
        limit=request.limit,
        query_seconds=settings.query_seconds,
        prefetch_seconds=settings.prefetch_seconds,
        run_once=request.run_once,
        on_stop=OnStop.WAIT if request.wait_on_stop else OnStop.LEAVE,
        started=AgentStarted(
            version=version("pluperfect"),
            agent_id=agent_id,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            boot_id=boot_id(),
            server=settings.shown_api_url,
            queues=(*request.queues, *(f"{prefix}*" for prefix in request.prefixes)),
            limit=request.limit,
            prefetch_seconds=settings.prefetch_seconds,
            open_submissions=0,
        ),
        max_late_seconds=request.max_late.total_seconds() if request.max_late else None,
        overdue_seconds=request.overdue_after.total_seconds(),
    )


def _welcome(settings: Settings, request: Request) -> None:
    queues = [
        *map(repr, request.queues),
        *(f"those that begin with {p!r}" for p in request.prefixes),
    ]
    logger.info("pluperfect %s serves %s", version("pluperfect"), settings.shown_api_url)
    logger.info("work queues: %s; log and spool: %s", ", ".join(queues), settings.state_dir)


def _explain(group: BaseExceptionGroup[BaseException]) -> int:
    """Say what ended the daemon; a traceback only for what is a mistake of ours."""
    expected, others = group.split((LogError, SpoolUnusable, ClientMisconfigured))
    if others is not None:
        raise group
    status = EXIT_USAGE
    for error in _leaves(expected or group):
        if isinstance(error, LogWriteFailed):
            status = EXIT_LOG_WRITE_FAILED
            logger.critical("%s; what runs goes on running, and is adopted then", error)
        else:
            if isinstance(error, LogError):
                status = EXIT_LOG_UNUSABLE
            elif isinstance(error, SpoolUnusable) and _may_pass(error.__cause__):
                status = EXIT_LOG_WRITE_FAILED
            logger.critical("%s", error)
    return status


def _may_pass(cause: BaseException | None) -> bool:
    """Tell whether there may be room again, or the disk be mended."""
    troubles = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    return isinstance(cause, OSError) and cause.errno in troubles


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _give_up(message: str, status: int) -> int:
    print(f"pluperfect: {message}", file=sys.stderr)
    return status
