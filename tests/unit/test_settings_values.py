"""A usable value is read as Prefect reads it; any other is one line that says what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.profiles import Profile
from agent.settings import SOURCES, BadSetting, Settings, build
from agent.values import EXPECTED, FALSE, TRUE

PATH = Path("/h/.prefect/profiles.toml")
NONE = Profile(None, PATH)


def _from_environment(variable: str, value: str) -> Settings:
    return build({variable: value}, NONE, {})


@pytest.mark.parametrize("word", [*TRUE, "TRUE", " Yes "])
def test_words_for_true(word: str) -> None:
    assert _from_environment("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", word).tls_insecure_skip_verify


@pytest.mark.parametrize("word", [*FALSE, "False"])
def test_words_for_false(word: str) -> None:
    variable = "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"
    assert not _from_environment(variable, word).csrf_support_enabled


@pytest.mark.parametrize("text", ["500,504", " 500 , 504 ", "504,500,500"])
def test_status_codes_come_with_commas(text: str) -> None:
    settings = _from_environment("PREFECT_CLIENT_RETRY_EXTRA_CODES", text)
    assert settings.retry_extra_codes == {500, 504}


@pytest.mark.parametrize("value", [[500, 504], "500,504", ["500", "504"]])
def test_status_codes_of_a_profile_may_be_a_list(value: Any) -> None:
    profile = Profile("p", PATH, {"PREFECT_CLIENT_RETRY_EXTRA_CODES": value})
    assert build({}, profile, {}).retry_extra_codes == {500, 504}


def test_one_status_code_of_a_profile_may_be_a_number() -> None:
    profile = Profile("p", PATH, {"PREFECT_CLIENT_RETRY_EXTRA_CODES": 500})
    assert build({}, profile, {}).retry_extra_codes == {500}


def test_headers_come_as_json_or_as_a_table() -> None:
    variable = "PREFECT_CLIENT_CUSTOM_HEADERS"
    written = _from_environment(variable, '{"X-A": "1"}').custom_headers
    table = build({}, Profile("p", PATH, {variable: {"X-A": "1"}}), {}).custom_headers
    assert {k: v.reveal() for k, v in written.items()} == {"X-A": "1"}
    assert written == table


def test_a_key_mounted_with_a_newline_at_its_end_is_used_without_it() -> None:
    key = _from_environment("PREFECT_API_KEY", "pnu_1\n").api_key
    assert key is not None
    assert key.reveal() == "pnu_1"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PREFECT_API_URL", "localhost:4200/api"),
        ("PREFECT_API_URL", "ftp://h/api"),
        ("PREFECT_API_URL", "http:///api"),
        ("PREFECT_API_URL", "http://h:99999/api"),
        ("PREFECT_API_URL", "http://h/a pi"),
        ("PREFECT_API_URL", "http://[::1/api"),
        ("PREFECT_API_REQUEST_TIMEOUT", "0"),
        ("PREFECT_API_REQUEST_TIMEOUT", "soon"),
        ("PREFECT_API_REQUEST_TIMEOUT", "inf"),
        ("PREFECT_AGENT_QUERY_INTERVAL", "0"),
        ("PREFECT_AGENT_PREFETCH_SECONDS", "-1"),
        ("PREFECT_CLIENT_MAX_RETRIES", "-1"),
        ("PREFECT_CLIENT_MAX_RETRIES", "1.5"),
        ("PREFECT_CLIENT_RETRY_JITTER_FACTOR", "nan"),
        ("PREFECT_CLIENT_RETRY_EXTRA_CODES", "99"),
        ("PREFECT_CLIENT_RETRY_EXTRA_CODES", "500;504"),
        ("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "maybe"),
        ("PREFECT_LOGGING_LEVEL", "LOUD"),
        ("PLUPERFECT_DEFAULT_INFRASTRUCTURE", "my-block"),
    ],
)
def test_an_unusable_value_is_told_with_its_place_and_what_is_expected(
    variable: str, value: str
) -> None:
    kind = next(source.kind for source in SOURCES.values() if variable in source.variables)
    with pytest.raises(BadSetting) as caught:
        _from_environment(variable, value)
    assert str(caught.value) == f"{variable} is {value!r} (environment); expected {EXPECTED[kind]}"


def test_an_unusable_value_of_a_profile_names_profile_and_file() -> None:
    profile = Profile("work", PATH, {"PREFECT_CLIENT_MAX_RETRIES": True})
    with pytest.raises(
        BadSetting, match=rf"is True \(profile 'work' in {PATH}\); expected a whole"
    ):
        build({}, profile, {})


def test_an_unusable_option_names_the_option() -> None:
    with pytest.raises(BadSetting, match=r"--api is 'nonsense' \(command line\); expected an http"):
        build({}, NONE, {"api_url": "nonsense"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PREFECT_API_KEY", "hunter2\nX-Evil: 1"),
        ("PREFECT_API_KEY", "hunter2é"),
        ("PREFECT_API_AUTH_STRING", "u:hunter2\x00"),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", '{"X-A": "hunter2'),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", '{"X-A": ["hunter2"]}'),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", '{"hunter2: x": "1"}'),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", '"hunter2"'),
        ("PREFECT_API_URL", "htp://u:hunter2@h/api"),
    ],
)
def test_an_unusable_secret_is_told_without_showing_it(variable: str, value: str) -> None:
    with pytest.raises(BadSetting, match=rf"{variable} is \*+ \(environment\)") as caught:
        _from_environment(variable, value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


VARIABLES = sorted({v for source in SOURCES.values() for v in source.variables})
TOML = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(VARIABLES), st.text())
def test_any_text_is_a_value_or_a_bad_setting(variable: str, text: str) -> None:
    """Whatever is in the environment gives settings or a BadSetting, never another error."""
    _settings_or_bad(lambda: _from_environment(variable, text))


@given(st.sampled_from(VARIABLES), TOML)
def test_any_toml_is_a_value_or_a_bad_setting(variable: str, value: Any) -> None:
    """Whatever is in a profile gives settings or a BadSetting, never another error."""
    _settings_or_bad(lambda: build({}, Profile("p", PATH, {variable: value}), {}))


def _settings_or_bad(make: Any) -> None:
    try:
        settings = make()
    except BadSetting as error:
        assert "expected" in str(error)  # noqa: PT017 - either outcome is right
        return
    assert settings.request_timeout > 0
    assert settings.prefetch_seconds >= 0
    assert all(100 <= code <= 599 for code in settings.retry_extra_codes)


@given(st.floats(0, 1e9, allow_subnormal=False))
def test_a_number_of_seconds_survives_its_text(seconds: float) -> None:
    """Reading what was written gives the same number."""
    settings = _from_environment("PREFECT_AGENT_PREFETCH_SECONDS", repr(seconds))
    assert settings.prefetch_seconds == seconds
