"""profiles.toml is found, read, and its mistakes are told by place."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.profiles import ProfilesUnusable, read_active_profile

TWO = """
active = "work"

[profiles.work]
PREFECT_API_URL = "http://work/api"
PREFECT_CLIENT_MAX_RETRIES = 2

[profiles.home]
PREFECT_API_URL = "http://home/api"
"""


def _home(tmp_path: Path, text: str | None) -> dict[str, str]:
    if text is not None:
        (tmp_path / ".prefect").mkdir()
        (tmp_path / ".prefect" / "profiles.toml").write_text(text)
    return {"HOME": str(tmp_path)}


def test_the_profile_that_the_file_calls_active_is_read(tmp_path: Path) -> None:
    profile = read_active_profile(_home(tmp_path, TWO))
    assert profile.name == "work"
    assert profile.values == {"PREFECT_API_URL": "http://work/api", "PREFECT_CLIENT_MAX_RETRIES": 2}


def test_the_environment_names_another_profile(tmp_path: Path) -> None:
    profile = read_active_profile(_home(tmp_path, TWO) | {"PREFECT_PROFILE": "home"})
    assert profile.values == {"PREFECT_API_URL": "http://home/api"}


def test_a_profile_variable_that_is_set_to_nothing_names_none(tmp_path: Path) -> None:
    assert read_active_profile(_home(tmp_path, TWO) | {"PREFECT_PROFILE": ""}).name == "work"


def test_a_file_that_is_not_there_is_no_profile(tmp_path: Path) -> None:
    profile = read_active_profile(_home(tmp_path, None))
    assert (profile.name, profile.values, profile.warning) == (None, {}, None)


def test_a_file_without_active_profile_is_no_profile(tmp_path: Path) -> None:
    profile = read_active_profile(_home(tmp_path, "[profiles.a]\nPREFECT_API_URL = 'x'\n"))
    assert (profile.name, profile.values) == (None, {})


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"PREFECT_HOME": "/ph"}, "/ph/profiles.toml"),
        ({"PREFECT_HOME": "~/ph"}, "/h/ph/profiles.toml"),
        ({"PREFECT_HOME": "/ph", "PREFECT_PROFILES_PATH": "/p/x.toml"}, "/p/x.toml"),
        ({"PREFECT_HOME": "/ph", "PREFECT_PROFILES_PATH": "$PREFECT_HOME/x"}, "/ph/x"),
        ({"PREFECT_HOME": "/ph", "PREFECT_PROFILES_PATH": "${PREFECT_HOME}/x"}, "/ph/x"),
        ({"PREFECT_HOME": "", "PREFECT_PROFILES_PATH": ""}, "/h/.prefect/profiles.toml"),
    ],
)
def test_the_file_is_looked_for_where_prefect_does(environment: dict[str, str], path: str) -> None:
    assert read_active_profile({"HOME": "/h"} | environment).path == Path(path)


@pytest.mark.parametrize("named_by", ["environment", "file"])
def test_a_profile_that_is_not_there_is_said_and_none_is_used(
    named_by: str, tmp_path: Path
) -> None:
    if named_by == "environment":
        profile = read_active_profile(_home(tmp_path, TWO) | {"PREFECT_PROFILE": "wrok"})
    else:
        profile = read_active_profile(_home(tmp_path, TWO.replace('= "work"', '= "wrok"')))
    assert profile.values == {}
    assert profile.warning is not None
    assert "'wrok'" in profile.warning
    assert "(there: home, work)" in profile.warning


@pytest.mark.parametrize("name", ["default", "ephemeral"])
def test_profiles_that_ship_with_prefect_need_not_be_in_the_file(name: str, tmp_path: Path) -> None:
    profile = read_active_profile(_home(tmp_path, f'active = "{name}"\n'))
    assert (profile.name, profile.values, profile.warning) == (name, {}, None)


def test_invalid_toml_is_told_by_line_without_its_content(tmp_path: Path) -> None:
    home = _home(tmp_path, '[profiles.a]\nPREFECT_API_KEY = "hunter2\n')
    with pytest.raises(ProfilesUnusable, match=r"profiles\.toml: invalid TOML \(at line 2") as said:
        read_active_profile(home)
    assert "hunter2" not in str(said.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("profiles = 3", "`profiles` is not a table"),
        ("active = 3", "`active` is not the name of a profile"),
        ("active = 'a'\n[profiles]\na = 3", "`profiles.a` is not a table of settings"),
    ],
)
def test_a_file_of_another_shape_is_told(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ProfilesUnusable, match=reason):
        read_active_profile(_home(tmp_path, text))


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ProfilesUnusable, match="not UTF-8"):
        read_active_profile({"PREFECT_PROFILES_PATH": str(path)})


def test_a_directory_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProfilesUnusable, match="can't be read: Is a directory"):
        read_active_profile({"PREFECT_PROFILES_PATH": str(tmp_path)})
