"""The folders of the spool: their names, their locks, who may remove them, and the order's form."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.infrastructure import spool
from agent.infrastructure.keeper import (
    EXEC,
    KEEPER_LOCK,
    Order,
    Refused,
    boot_id,
    find,
    is_locked,
    pack_order,
    start_time,
    try_lock,
    unpack_order,
)
from agent.infrastructure.procfs import Process, is_alive, open_process
from agent.infrastructure.spool import (
    BadLaunchKey,
    KeeperAlive,
    LaunchFolder,
    NotConcluded,
    SpoolUnusable,
)


@pytest.mark.parametrize("key", ["", "..", "a/b", "../a", "A", "a.b", "a b", "a\n", "é", "a" * 65])
def test_what_could_lead_out_of_the_spool_is_no_launch_key(tmp_path: Path, key: str) -> None:
    with pytest.raises(BadLaunchKey):
        LaunchFolder.of(tmp_path, key)


def test_the_spool_is_private(tmp_path: Path) -> None:
    path, _ = spool.prepare(tmp_path / "a" / "spool")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_spool_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    spool.prepare(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_spool_where_there_is_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnusable, match="file"):
        spool.prepare(tmp_path / "file")


def test_a_file_system_whose_locks_do_not_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "is_locked", lambda _descriptor: False)
    with pytest.raises(SpoolUnusable, match="lets two at once lock a file"):
        spool.prepare(tmp_path)


def test_only_one_at_a_time_gets_the_keepers_lock(tmp_path: Path) -> None:
    folder = LaunchFolder.of(tmp_path, "key")
    descriptor = folder.lock()
    with pytest.raises(KeeperAlive):
        folder.lock()
    os.close(descriptor)
    os.close(folder.lock())


def test_looking_takes_no_lock_from_anybody(tmp_path: Path) -> None:
    folder = LaunchFolder.of(tmp_path, "key")
    os.close(folder.lock())
    with open(folder.path / KEEPER_LOCK) as looker:
        assert not is_locked(looker.fileno())
        os.close(folder.lock())


def test_a_lock_in_a_folder_that_was_removed_meanwhile_is_not_mistaken_for_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = LaunchFolder.of(tmp_path, "key")
    removals = [1, 2, 3]

    def try_lock_too_late(descriptor: int) -> bool:
        if removals:
            removals.pop()
            (folder.path / KEEPER_LOCK).unlink()
            folder.path.rmdir()
        return try_lock(descriptor)

    monkeypatch.setattr(spool, "try_lock", try_lock_too_late)
    descriptor = folder.lock()
    with pytest.raises(KeeperAlive):
        folder.lock()
    os.close(descriptor)


def test_a_launch_whose_keeper_lives_is_not_removed(tmp_path: Path) -> None:
    folder = LaunchFolder.of(tmp_path, "key")
    descriptor = folder.lock()
    with pytest.raises(NotConcluded, match="alive"):
        folder.remove()
    os.close(descriptor)
    folder.remove()
    assert not folder.path.exists()
    folder.remove()


def test_a_launch_that_makes_no_sense_is_not_removed(tmp_path: Path) -> None:
    folder = LaunchFolder.of(tmp_path, "key")
    folder.path.mkdir()
    (folder.path / EXEC).write_text("?")
    with pytest.raises(NotConcluded, match="damaged"):
        folder.remove()


def test_a_removal_that_was_cut_short_is_finished_by_the_next_agent(tmp_path: Path) -> None:
    (tmp_path / ".removed-key-1").mkdir()
    (tmp_path / ".removed-key-1" / EXEC).touch()
    (tmp_path / "key").mkdir()
    spool.prepare(tmp_path)
    assert spool.keys(tmp_path) == ["key"]
    assert sorted(os.listdir(tmp_path)) == [".spool-id", "key"]


# --- processes -------------------------------------------------------------------------------


def test_another_process_with_the_same_pid_is_not_taken_for_the_one_that_was_meant() -> None:
    me = Process(os.getpid(), start_time(os.getpid()))
    earlier = Process(me.pid, me.start_time - 1)
    assert is_alive(me)
    assert not is_alive(earlier)
    assert open_process(earlier) is None


def test_the_boot_id_is_a_word() -> None:
    assert len(boot_id().split()) == 1


# --- the order -------------------------------------------------------------------------------

words = st.binary(max_size=12).filter(lambda word: b"\0" not in word)
names = words.filter(lambda word: word and b"=" not in word)
orders = st.builds(
    Order,
    hostname=words,
    streams=st.booleans(),
    directory=words,
    command=st.lists(words, min_size=1, max_size=4),
    environment=st.dictionaries(names, words, max_size=4),
)


@given(orders)
def test_an_order_arrives_as_it_was_sent(order: Order) -> None:
    arrived = unpack_order(pack_order(order))
    assert arrived is not None
    assert vars(arrived) == vars(order)


@given(orders, st.data())
def test_an_order_that_was_cut_short_is_none(order: Order, data: st.DataObject) -> None:
    packed = pack_order(order)
    assert unpack_order(packed[: data.draw(st.integers(0, len(packed) - 1))]) is None


def test_a_nul_in_an_order_is_refused_without_showing_any_value() -> None:
    with pytest.raises(ValueError, match="NUL") as caught:
        pack_order(Order(b"h", True, b"", [b"true"], {b"KEY": b"s3cret\0"}))
    assert "s3cret" not in str(caught.value)


# --- finding the program ---------------------------------------------------------------------


def _program(path: Path, mode: int = 0o755) -> bytes:
    path.parent.mkdir(exist_ok=True)
    path.touch()
    path.chmod(mode)
    return os.fsencode(path)


def test_the_first_program_on_the_path_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    second = _program(tmp_path / "b" / "prog")
    _program(tmp_path / "c" / "prog")
    path = os.fsencode(f"{tmp_path}/a:{tmp_path}/b:{tmp_path}/c")
    assert find(b"prog", path) == second


def test_what_is_not_executable_is_passed_over_if_something_later_is(tmp_path: Path) -> None:
    _program(tmp_path / "a" / "prog", 0o644)
    second = _program(tmp_path / "b" / "prog")
    assert find(b"prog", os.fsencode(f"{tmp_path}/a:{tmp_path}/b")) == second


def test_a_program_that_is_only_not_executable_is_refused_as_that(tmp_path: Path) -> None:
    _program(tmp_path / "a" / "prog", 0o644)
    with pytest.raises(Refused, match=r"not executable: .*a/prog"):
        find(b"prog", os.fsencode(f"{tmp_path}/a"))


def test_a_directory_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "prog").mkdir()
    with pytest.raises(Refused, match="is a directory"):
        find(os.fsencode(tmp_path / "prog"), None)
    with pytest.raises(Refused, match="command not found: 'prog'"):
        find(b"prog", os.fsencode(tmp_path))


def test_without_a_path_the_systems_own_is_searched() -> None:
    assert find(b"sh", None).endswith(b"/bin/sh")
