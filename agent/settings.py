"""What the agent was told: each setting, the variables it is read from, and what it may be.

`load` takes the command line, the environment and the active profile of Prefect's profiles.toml,
in this order of precedence, and gives one frozen `Settings`; a value that can't be used is one
clear line. docs/settings.md is the table for people. Imported before a command is chosen, so
nothing heavy (httpx, trio, pendulum) is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import attrs
from cattrs import BaseValidationError

from agent.profiles import Profile, SettingsError, expand, read_active_profile
from agent.secret import MASK, Secret
from agent.values import (
    EXPECTED,
    ApiUrl,
    Count,
    Factor,
    Headers,
    LogLevel,
    Seconds,
    StatusCodes,
    Timeout,
    structure,
)
from events.places import STATE_VARIABLE, default_state_dir

__all__ = [
    "BadSetting",
    "NoApiUrl",
    "Settings",
    "SettingsError",
    "build",
    "job_environment",
    "load",
]


class BadSetting(SettingsError):
    """A value that can't be used.

    Attributes:
        variable: its name, or the option's.
    """

    def __init__(self, variable: str, origin: str, shown: str, expected: str) -> None:
        self.variable = variable
        super().__init__(f"{variable} is {shown} ({origin}); expected {expected}")


class NoApiUrl(SettingsError):
    """Nobody said which server to serve."""

    def __init__(self, profile: Profile) -> None:
        of = f"in profile {profile.name!r} of {profile.path}" if profile.name else "in a profile"
        hint = f" ({profile.warning})" if profile.warning else ""
        super().__init__(
            f"no API URL: give --api URL, or set PREFECT_API_URL in the environment or {of}{hint}"
        )


@attrs.frozen(kw_only=True)
class Settings:
    """Everything the daemon is told from outside, besides the options of one start.

    Attributes:
        api_url: base of all requests, without a slash at its end. None: nobody said.
        api_key: sent as a bearer token.
        api_auth_string: `user:password` for HTTP basic authentication; wins over the key.
        tls_insecure_skip_verify: trust any certificate.
        ssl_cert_file: certificates to trust instead of certifi's.
        request_timeout: in seconds, for connecting, reading, writing and waiting for a
            connection, each.
        max_retries: how often a request is repeated.
        retry_jitter_factor: how far a delay may be off, as a part of it.
        retry_extra_codes: HTTP status codes that are tried again besides 408, 429, 502 and 503.
        csrf_support_enabled: fetch a CSRF token before the first changing request.
        custom_headers: sent with every request.
        cloud_api_url: a server whose URL begins with this is Prefect Cloud, which has no CSRF
            tokens.
        query_seconds: between two polls.
        prefetch_seconds: take runs this long before they are due; 0 is possible.
        logging_level: of the agent's own lines.
        debug_mode: the level is DEBUG whatever `logging_level` says.
        state_dir: where log and spool are kept.
        python: the interpreter of the default command. None: nobody said.
        default_infrastructure: the block document for deployments that name none.
        profile: which profile was read.
    """

    api_url: str | None = attrs.field(default=None, repr=False)
    api_key: Secret | None = None
    api_auth_string: Secret | None = None
    tls_insecure_skip_verify: bool = False
    ssl_cert_file: Path | None = None
    request_timeout: float = 60.0
    max_retries: int = 5
    retry_jitter_factor: float = 0.2
    retry_extra_codes: frozenset[int] = frozenset()
    csrf_support_enabled: bool = True
    custom_headers: Mapping[str, Secret] = attrs.field(factory=dict)
    cloud_api_url: str = "https://api.prefect.cloud/api"
    query_seconds: float = 15.0
    prefetch_seconds: float = 15.0
    logging_level: str = "INFO"
    debug_mode: bool = False
    state_dir: Path
    python: str | None = None
    default_infrastructure: UUID | None = None
    profile: Profile
    _job_environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def log_level(self) -> str:
        """The level of the agent's own lines, debug mode considered."""
        return "DEBUG" if self.debug_mode else self.logging_level

    @property
    def shown_api_url(self) -> str:
        """The API's URL without credentials and query, fit for logs."""
        return shown_url(self.api_url or "")

    def require_api_url(self) -> str:
        """Return the API's URL.

        Raises:
            NoApiUrl: none was given.
        """
        if self.api_url is None:
            raise NoApiUrl(self.profile)
        return self.api_url

    def job_environment(self) -> dict[str, str]:
        """Return the base environment of launched jobs. It holds secrets: never log it."""
        return dict(self._job_environment)


@attrs.frozen
class Source:
    """What a setting is read from.

    Attributes:
        kind: which of `agent.values` it has to be.
        variables: in the environment or a profile; of several, the first that is set is taken.
        option: of the command line, for people.
    """

    kind: Any
    variables: tuple[str, ...]
    option: str | None = None


SOURCES: Final[Mapping[str, Source]] = {
    "api_url": Source(ApiUrl, ("PREFECT_API_URL",), "--api"),
    "api_key": Source(Secret, ("PREFECT_API_KEY",)),
    "api_auth_string": Source(Secret, ("PREFECT_API_AUTH_STRING",)),
    "tls_insecure_skip_verify": Source(bool, ("PREFECT_API_TLS_INSECURE_SKIP_VERIFY",)),
    "ssl_cert_file": Source(Path, ("PREFECT_API_SSL_CERT_FILE",)),
    "request_timeout": Source(Timeout, ("PREFECT_API_REQUEST_TIMEOUT",)),
    "max_retries": Source(Count, ("PREFECT_CLIENT_MAX_RETRIES",)),
    "retry_jitter_factor": Source(Factor, ("PREFECT_CLIENT_RETRY_JITTER_FACTOR",)),
    "retry_extra_codes": Source(StatusCodes, ("PREFECT_CLIENT_RETRY_EXTRA_CODES",)),
    "csrf_support_enabled": Source(bool, ("PREFECT_CLIENT_CSRF_SUPPORT_ENABLED",)),
    "custom_headers": Source(Headers, ("PREFECT_CLIENT_CUSTOM_HEADERS",)),
    "cloud_api_url": Source(ApiUrl, ("PREFECT_CLOUD_API_URL",)),
    "query_seconds": Source(
        Timeout, ("PREFECT_AGENT_QUERY_INTERVAL", "PREFECT_WORKER_QUERY_SECONDS")
    ),
    "prefetch_seconds": Source(
        Seconds,
        ("PREFECT_AGENT_PREFETCH_SECONDS", "PREFECT_WORKER_PREFETCH_SECONDS"),
        "--prefetch-seconds",
    ),
    "logging_level": Source(LogLevel, ("PREFECT_LOGGING_LEVEL",)),
    "debug_mode": Source(bool, ("PREFECT_DEBUG_MODE",)),
    "state_dir": Source(Path, (STATE_VARIABLE,), "--state"),
    "python": Source(str, ("PLUPERFECT_PYTHON",), "--python"),
    "default_infrastructure": Source(
        UUID, ("PLUPERFECT_DEFAULT_INFRASTRUCTURE",), "--default-infrastructure"
    ),
}
"""By attribute of `Settings`. docs/settings.md says the same to people; a test compares."""


def load(environment: Mapping[str, str], options: Mapping[str, Any]) -> Settings:
    """Read the active profile, and build the settings.

    Args:
        environment: `os.environ`.
        options: what the command line gave, by the names of `Settings`' attributes.

    Raises:
        SettingsError: the profiles file or a value can't be used.
    """
    return build(environment, read_active_profile(environment), options)


def build(environment: Mapping[str, str], profile: Profile, options: Mapping[str, Any]) -> Settings:
    """Build the settings: command line before environment before profile before default.

    A variable that is set to nothing means the default, and hides the profile's value.

    Raises:
        BadSetting: a value can't be used.
    """
    values: dict[str, Any] = {"state_dir": default_state_dir(environment)}
    if trusted := environment.get("SSL_CERT_FILE"):
        values["ssl_cert_file"] = Path(trusted)
    for name, source in SOURCES.items():
        found = _find(name, source, environment, profile, options)
        if found is not None:
            values[name] = _structured(name, source.kind, found, environment)
    settings = Settings(profile=profile, **values)
    jobs = job_environment(environment, profile, settings)
    return attrs.evolve(settings, job_environment=jobs)


def job_environment(
    environment: Mapping[str, str], profile: Profile, settings: Settings
) -> dict[str, str]:
    """Return what Prefect's agent hands to every job it launches.

    That is each Prefect setting that somebody set (defaults are not handed on), as 2.20 has it:
    of the profile, of the environment, and the URL and key in use. `PREFECT__*` is about one run,
    and `PREFECT_PROFILE` names a profile that the job need not have. It holds secrets.
    """
    jobs = {
        name: _as_variable(value) for name, value in profile.values.items() if _is_handed_on(name)
    }
    jobs |= {name: value for name, value in environment.items() if _is_handed_on(name)}
    if settings.api_url is not None:
        jobs["PREFECT_API_URL"] = settings.api_url
    if settings.api_key is not None:
        jobs["PREFECT_API_KEY"] = settings.api_key.reveal()
    return {name: value for name, value in jobs.items() if value}


def shown_url(url: str) -> str:
    """Return a URL without what may be secret in it: credentials, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


_NOT_FOR_JOBS: Final = frozenset({"PREFECT_PROFILE"})

_SECRET: Final = frozenset({"api_key", "api_auth_string", "custom_headers"})
"""Settings whose values are in no message."""


def _is_handed_on(name: str) -> bool:
    return (
        name.startswith("PREFECT_")
        and not name.startswith("PREFECT__")
        and name not in _NOT_FOR_JOBS
    )


def _as_variable(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, dict, list)):
        return json.dumps(value, default=str)
    return str(value)


@attrs.frozen
class _Found:
    raw: Any
    variable: str
    origin: str


def _find(
    name: str,
    source: Source,
    environment: Mapping[str, str],
    profile: Profile,
    options: Mapping[str, Any],
) -> _Found | None:
    if name in options:
        return _Found(options[name], source.option or name, "command line")
    for variable in source.variables:
        if variable in environment:
            value = environment[variable]
            return _Found(value, variable, "environment") if value.strip() else None
    for variable in source.variables:
        if variable in profile.values:
            origin = f"profile {profile.name!r} in {profile.path}"
            value = profile.values[variable]
            return _Found(value, variable, origin) if value != "" else None
    return None


def _structured(name: str, kind: Any, found: _Found, environment: Mapping[str, str]) -> Any:
    try:
        value = structure(found.raw, kind)
    except (ValueError, TypeError, BaseValidationError):
        # Not chained: the cause's message quotes the value.
        shown = _shown(name, found.raw)
        raise BadSetting(found.variable, found.origin, shown, EXPECTED[kind]) from None
    return expand(str(value), environment) if isinstance(value, Path) else value


def _shown(name: str, raw: Any) -> str:
    """Return a value for an error message, unless it is or may hold a secret."""
    may_be_secret = name in _SECRET or (name.endswith("api_url") and "@" in str(raw))
    return MASK if may_be_secret else repr(raw)
