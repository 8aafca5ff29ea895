"""Settings come from the command line, the environment, the profile and defaults, in this order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import UUID

import attrs
import pytest

from agent.profiles import Profile
from agent.secret import Secret
from agent.settings import SOURCES, NoApiUrl, Settings, build, load

PATH = Path("/h/.prefect/profiles.toml")
NONE = Profile(None, PATH)


def _profile(**values: object) -> Profile:
    return Profile("work", PATH, values)


def test_the_defaults_are_prefects() -> None:
    settings = build({"HOME": "/h"}, NONE, {})
    assert settings == Settings(state_dir=Path("/h/.local/state/pluperfect"), profile=NONE)
    assert (settings.query_seconds, settings.prefetch_seconds) == (15.0, 15.0)
    assert (settings.request_timeout, settings.max_retries) == (60.0, 5)
    assert settings.csrf_support_enabled


def test_the_command_line_wins_over_the_environment_over_the_profile() -> None:
    profile = _profile(
        PREFECT_API_URL="http://p/api",
        PREFECT_CLIENT_MAX_RETRIES=1,
        PREFECT_CLIENT_RETRY_JITTER_FACTOR=0.5,
    )
    environment = {"PREFECT_API_URL": "http://e/api", "PREFECT_CLIENT_MAX_RETRIES": "2"}
    settings = build(environment, profile, {"api_url": "http://c/api"})
    assert settings.api_url == "http://c/api"
    assert settings.max_retries == 2
    assert settings.retry_jitter_factor == 0.5
    assert build(environment, profile, {}).api_url == "http://e/api"
    assert build({}, profile, {}).api_url == "http://p/api"


@pytest.mark.parametrize("nothing", ["", "  "])
def test_a_variable_that_is_set_to_nothing_hides_the_profiles(nothing: str) -> None:
    profile = _profile(PREFECT_API_KEY="k", PREFECT_API_REQUEST_TIMEOUT=5)
    environment = {"PREFECT_API_KEY": nothing, "PREFECT_API_REQUEST_TIMEOUT": nothing}
    settings = build(environment, profile, {})
    assert (settings.api_key, settings.request_timeout) == (None, 60.0)


def test_trap_25_a_prefetch_of_zero_is_possible() -> None:
    assert build({"PREFECT_AGENT_PREFETCH_SECONDS": "0"}, NONE, {}).prefetch_seconds == 0
    assert build({}, NONE, {"prefetch_seconds": 0.0}).prefetch_seconds == 0
    assert build({}, _profile(PREFECT_AGENT_PREFETCH_SECONDS=0), {}).prefetch_seconds == 0


def test_a_workers_intervals_are_taken_when_there_are_no_agents() -> None:
    worker = {"PREFECT_WORKER_QUERY_SECONDS": "3", "PREFECT_WORKER_PREFETCH_SECONDS": "4"}
    settings = build(worker, NONE, {})
    assert (settings.query_seconds, settings.prefetch_seconds) == (3.0, 4.0)
    both = build(worker | {"PREFECT_AGENT_QUERY_INTERVAL": "5"}, NONE, {})
    assert both.query_seconds == 5.0


@pytest.mark.parametrize(
    ("environment", "profile", "expected"),
    [
        ({}, NONE, None),
        ({"SSL_CERT_FILE": "/s"}, NONE, Path("/s")),
        ({"SSL_CERT_FILE": "/s"}, _profile(PREFECT_API_SSL_CERT_FILE="/p"), Path("/p")),
        ({"SSL_CERT_FILE": "/s", "PREFECT_API_SSL_CERT_FILE": "~/e"}, NONE, Path("/h/e")),
    ],
)
def test_certificates_are_prefects_file_or_the_systems(
    environment: dict[str, str], profile: Profile, expected: Path | None
) -> None:
    assert build({"HOME": "/h"} | environment, profile, {}).ssl_cert_file == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOME": "/h"}, "/h/.local/state/pluperfect"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/x"}, "/x/pluperfect"),
        ({"HOME": "/h", "XDG_STATE_HOME": "relative"}, "/h/.local/state/pluperfect"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/x", "PLUPERFECT_STATE": "~/s"}, "/h/s"),
    ],
)
def test_the_state_directory_follows_the_base_directory_specification(
    environment: dict[str, str], expected: str
) -> None:
    assert build(environment, NONE, {}).state_dir == Path(expected)


def test_our_own_settings_are_read() -> None:
    block = "11111111-1111-4111-8111-111111111111"
    settings = build(
        {"PLUPERFECT_PYTHON": "/v/bin/python", "PLUPERFECT_DEFAULT_INFRASTRUCTURE": block},
        NONE,
        {"state_dir": Path("/var/lib/x")},
    )
    assert settings.python == "/v/bin/python"
    assert settings.default_infrastructure == UUID(block)
    assert settings.state_dir == Path("/var/lib/x")


def test_debug_mode_means_debug_lines() -> None:
    assert build({"PREFECT_LOGGING_LEVEL": "error"}, NONE, {}).log_level == "ERROR"
    both = {"PREFECT_LOGGING_LEVEL": "error", "PREFECT_DEBUG_MODE": "1"}
    assert build(both, NONE, {}).log_level == "DEBUG"


def test_every_setting_has_a_source() -> None:
    public = {f.name for f in attrs.fields(Settings) if not f.name.startswith("_")}
    assert public - {"profile"} == set(SOURCES)


# --- no server ------------------------------------------------------------------------------


def test_no_api_url_says_where_to_put_one() -> None:
    with pytest.raises(NoApiUrl, match=r"give --api URL, or set PREFECT_API_URL .*'work' of /h"):
        build({}, _profile(), {}).require_api_url()


def test_no_api_url_because_of_a_misspelt_profile_says_so(tmp_path: Path) -> None:
    settings = load({"HOME": str(tmp_path), "PREFECT_PROFILE": "wrok"}, {})
    with pytest.raises(NoApiUrl, match="'wrok', named by PREFECT_PROFILE, is not in"):
        settings.require_api_url()


def test_the_api_url_is_shown_without_credentials() -> None:
    settings = build({"PREFECT_API_URL": "https://u:hunter2@h:8443/api/?t=hunter2"}, NONE, {})
    assert settings.shown_api_url == "https://h:8443/api/"
    assert "hunter2" not in repr(settings)


# --- what jobs get --------------------------------------------------------------------------


def test_jobs_get_what_was_set_and_nothing_else() -> None:
    environment = {
        "PREFECT_API_URL": "http://e/api/",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_PROFILE": "work",
        "PREFECT__FLOW_RUN_ID": "of another run",
        "PLUPERFECT_STATE": "/s",
        "PATH": "/bin",
    }
    profile = _profile(
        PREFECT_API_KEY="pnu_1",
        PREFECT_LOGGING_LEVEL="ERROR",
        PREFECT_FLOW_DEFAULT_RETRIES=3,
        PREFECT_LOGGING_COLORS=False,
        PREFECT_LOGGING_EXTRA_LOGGERS=["a", "b"],
    )
    assert build(environment, profile, {}).job_environment() == {
        "PREFECT_API_URL": "http://e/api",
        "PREFECT_API_KEY": "pnu_1",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_FLOW_DEFAULT_RETRIES": "3",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": '["a", "b"]',
    }


def test_jobs_get_the_url_of_the_command_line() -> None:
    environment = {"PREFECT_API_URL": "http://e/api"}
    jobs = build(environment, NONE, {"api_url": "http://c/api"}).job_environment()
    assert jobs == {"PREFECT_API_URL": "http://c/api"}


def test_jobs_do_not_get_a_key_that_the_environment_hides() -> None:
    jobs = build({"PREFECT_API_KEY": ""}, _profile(PREFECT_API_KEY="k"), {}).job_environment()
    assert jobs == {}


# --- secrets --------------------------------------------------------------------------------


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", str([secret])]
    assert not any("hunter2" in text for text in shown)
    assert secret == Secret("hunter2")
    assert secret != Secret("hunter3")


def test_settings_show_no_secret() -> None:
    environment = {
        "PREFECT_API_URL": "http://u:hunter2@h/api",
        "PREFECT_API_KEY": "hunter2",
        "PREFECT_API_AUTH_STRING": "u:hunter2",
        "PREFECT_CLIENT_CUSTOM_HEADERS": '{"X": "hunter2"}',
    }
    settings = build(environment, _profile(PREFECT_API_KEY="hunter2"), {})
    assert "hunter2" not in f"{settings} {settings!r}"


def test_the_documentation_has_each_variable_with_its_default_and_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    defaults = attrs.asdict(build({"HOME": "~"}, NONE, {}), recurse=False)
    for name, source in SOURCES.items():
        (row,) = [row for row in rows if f"`{source.variables[0]}`" in row.split("|")[1]]
        assert all(f"`{variable}`" in row for variable in source.variables)
        assert source.option is None or f"`{source.option}`" in row
        assert _as_documented(defaults[name]) in row.split("|")[3]


def _as_documented(default: object) -> str:
    if default in (None, frozenset(), {}):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_settings_are_read_without_the_heavy_libraries() -> None:
    heavy = "{'httpx', 'trio', 'pendulum', 'apsw'} & set(sys.modules)"
    code = f"import sys, agent.settings; sys.exit(' '.join({heavy}) or None)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.strip()) == (0, "")
