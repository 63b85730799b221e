"""Every limit, default and time-out, validated at start. Any room may read them; runtime and CLI load them.

Sources, strongest first: arguments, `HOLDFAST_*` variables, `.env`, `holdfast.toml`, the defaults here.
All durations are in seconds. On a slow machine set `time_scale`, whose description lists what it multiplies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, Literal

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from holdfast.errors import ConfigurationError
from holdfast.secrets import address, know, secret_names
from holdfast.trust import borrowed_password, doubt, is_loopback, read_source

__all__ = ["Settings", "load_settings"]

KiB = 1024
_PRIVATE = ("database_url", "qdrant_url", "qdrant_api_key", "api_base", "temporal_ui", "temporal_address")
_ENVIRONMENT_ONLY = {"temporal_binary", "safe_directory"}  # neither `.env` nor `holdfast.toml`: they come with a folder
_ENV_FILE = ".env"
HOUR, DAY = 3600.0, 86_400.0


class Settings(BaseSettings):
    """What a process of Holdfast needs to know. Sizes in bytes, times in seconds (before `time_scale`)."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="HOLDFAST_",
        toml_file="holdfast.toml",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    # Where things are
    home: Path = Field(
        default=Path(".holdfast"), description="Folder of the embedded stack: data, sockets, logs, state."
    )
    agents: Path = Field(default=Path("agents.py"), description="Python file that defines the agents.")
    temporal_address: str | None = Field(
        default=None,
        validation_alias=AliasChoices("HOLDFAST_TEMPORAL_ADDRESS", "TEMPORAL_ADDRESS", "temporal_address"),
        description="host:port of a Temporal server; unset: the embedded one.",
    )
    temporal_namespace: str = Field(
        default="default",
        validation_alias=AliasChoices("HOLDFAST_TEMPORAL_NAMESPACE", "TEMPORAL_NAMESPACE", "temporal_namespace"),
        description="Temporal namespace.",
    )
    temporal_ui: str | None = Field(default=None, description="Base URL of the Temporal Web UI, for links.")
    temporal_binary: Path | None = Field(
        default=None,
        description="Path of a `temporal` CLI binary to run as the embedded server. Read from the environment only.",
    )
    safe_directory: str | None = Field(
        default=None,
        description="Folders whose files are used even if another user owns them, separated by `:`; `*`: all "
        "folders. Read from the "
        "environment only.",
    )
    database_url: str | None = Field(default=None, description="postgresql:// URL; unset: the embedded PostgreSQL.")
    qdrant_url: str | None = Field(
        default=None, description="http:// URL of a Qdrant server; unset: the embedded engine."
    )
    qdrant_api_key: str | None = Field(default=None, description="API key of that Qdrant server.", repr=False)
    tenant: str = Field(default="default", pattern=r"^[A-Za-z0-9._-]{1,128}$", description="Tenant of this client.")
    task_queue: str = Field(default="holdfast", description="Temporal task queue of agents.")
    memory_queue: str = Field(default="holdfast-memory", description="Temporal task queue of the memory process.")

    # Processes
    workers: int = Field(default=2, ge=1, le=64, description="Agent worker processes of the embedded stack.")
    idle_exit: float = Field(
        default=600.0, gt=0, description="A stack started by `run` ends after so long without work."
    )
    stop_grace: float = Field(
        default=10.0,
        gt=0,
        description="After Ctrl-C the whole stack stops within this time; calls that take longer are cut off.",
    )
    shutdown_grace: float = Field(
        default=600.0,
        gt=0,
        description="A worker told to stop (SIGTERM, a reload) takes no more work and exits when its calls in flight "
        "have ended; calls that take longer than this are cut off.",
    )
    plugins: str = Field(
        default="none",
        pattern=r"^[^\s,]+(\s*,\s*[^\s,]+)*$",
        description="Names of the installed plugins to use, separated by commas, or `none`. An installed plugin that "
        "neither "
        "this setting nor the list `plugins` of the agents file names is never imported.",
    )
    reload: bool = Field(
        default=True, description="The embedded stack replaces its workers when the agents file changes."
    )
    tool_threads: int = Field(default=32, ge=1, le=1024, description="Threads of a worker for synchronous tools.")
    max_concurrent_steps: int = Field(
        default=64, ge=1, le=2000, description="Model calls and tool calls that a worker runs at the same time."
    )
    max_concurrent_control: int = Field(
        default=32,
        ge=1,
        le=2000,
        description="Short activities that a worker runs at the same time on the control queue: admitting messages, "
        "recording decisions, starting and ending runs.",
    )
    max_concurrent_workflow_tasks: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Workflow tasks that a worker runs at the same time; 0: twice the number of processors, at most "
        "8. All replays share "
        "one interpreter lock, so with many more of them long histories exceed their task timeout.",
    )
    database_pool: int = Field(
        default=10,
        ge=2,
        le=200,
        description="Maximum number of PostgreSQL connections for a worker's activities. Its tools use as many again "
        "(at least 4), "
        "and one connection renews leases: 21 in total by default.",
    )
    start_timeout: float = Field(
        default=60.0, gt=0, description="A process of the embedded stack is ready within this time."
    )
    restart_delay_max: float = Field(default=10.0, gt=0, description="Longest pause before a dying process restarts.")
    healthy_after: float = Field(
        default=5.0, gt=0, description="A process that lived so long restarts at once when it dies."
    )
    temporal_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of the embedded Temporal (unset: free)."
    )
    ui_port: int | None = Field(default=None, ge=1, le=65535, description="Port of its Web UI (unset: free).")
    postgres_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of embedded PostgreSQL (unset: free)."
    )
    ready_file: Path | None = Field(
        default=None,
        description="While a worker polls, it touches this file every `sweep_every` seconds, regardless of "
        "`time_scale`.",
    )

    # Times, and the one number that multiplies some of them
    time_scale: float = Field(
        default=1.0,
        ge=0.1,
        le=100,
        description="Multiplies `accepted_wait`, `beat`, `client_patience`, `hook_timeout`, `hook_wait`, "
        "`lease`, `mcp_relist_every`, `mcp_start_wait`, `memory_wait`, `model_patience`, `start_timeout`, "
        "`sweep_every`, `task_timeout`, the `settle` of tools and the `timeout` of plugins; no other setting and no "
        "other time of a tool.",
    )
    beat: float = Field(default=0.5, gt=0, description="Heartbeat interval of every activity.")
    lease: float = Field(default=2.0, gt=0, description="Ledger lease and heartbeat time-out.")
    key_lifetime: float = Field(
        default=86_400.0,
        gt=0,
        description="How long a remote is assumed to remember an idempotency key, unless the `keyed` tool sets "
        "`key_lifetime`.",
    )
    task_timeout: float = Field(
        default=3.0, gt=0, description="A workflow task taken by a killed worker is handed on after this."
    )
    linger: float = Field(default=3.0, ge=0, description="How long the workflow of an idle thread keeps running.")
    linger_asked: float = Field(
        default=0.5, ge=0, description="The same, after a run that AskWorkflow or a schedule asked for."
    )
    look_after: float = Field(
        default=600.0,
        gt=0,
        description="How long a run that waits for an approval waits before it checks whether it has ended meanwhile. "
        "Each further wait is six times as long as the one before, at most one day.",
    )
    client_patience: float = Field(default=60.0, gt=0, description="A client waits so long for a server to come back.")
    memory_wait: float = Field(
        default=2.0, gt=0, description="How long a run waits for the memory process to take a step."
    )
    sweep_every: float = Field(default=5.0, gt=0, description="Interval of the sweeper for runs and rows left behind.")
    sweep_threads: int = Field(
        default=200,
        ge=1,
        le=10_000,
        description="Threads with open runs that one sweep checks; the next sweep continues from there.",
    )
    collect_every: float = Field(
        default=600.0, gt=0, description="Interval of the cleanup that deletes rows which are no longer needed."
    )
    collect_batch: int = Field(default=1000, ge=1, le=100_000, description="Rows of each kind that one cleanup checks.")
    keep_blobs: float = Field(
        default=7 * DAY,
        ge=HOUR,
        description="How long a large text is kept that no message refers to: a message in flight may still refer to "
        "it.",
    )
    keep_late_outcomes: float = Field(
        default=30 * DAY,
        ge=HOUR,
        description="How long the late outcome of a call is kept after another outcome was recorded.",
    )
    keep_deltas: float = Field(
        default=1 * HOUR,
        ge=60,
        description="How long the streamed tokens of a model call are kept whose reply was never recorded.",
    )
    accepted_wait: float = Field(
        default=1.0,
        ge=0,
        description="How long `Client.get` waits for a run that was accepted a moment ago and is not stored yet.",
    )
    hook_timeout: float = Field(default=10.0, gt=0, description="Timeout of one try of a plugin's hook.")
    hook_wait: float = Field(
        default=60.0,
        gt=0,
        description="How long a reply or a result waits for a required plugin whose event loop or threads are blocked. "
        "After that, the plugin has failed.",
    )
    event_tries: int = Field(
        default=10,
        ge=1,
        description="An event that a required plugin refuses this many times, while it accepts others, is set aside.",
    )
    event_pause_max: float = Field(
        default=300.0,
        gt=0,
        description="Longest pause before an event is delivered again. The first pause is `sweep_every`, and each is "
        "twice as long as the one before.",
    )
    event_look: int = Field(
        default=20_000,
        ge=100,
        description="Maximum number of events that are read at once to find those not yet delivered to a plugin.",
    )
    model_timeout: float = Field(default=600.0, gt=0, description="Longest model call.")
    model_patience: float = Field(
        default=1800.0,
        gt=0,
        description="How long a model may refuse or fail to respond before its run fails, counted from the first "
        "refusal. Time without a worker, a free slot or PostgreSQL does not count. A longer `Retry-After` is shortened "
        "to the time that is left, after which the model is called once more.",
    )

    # Sizes
    text_max: int = Field(default=4 * KiB * KiB, ge=1, description="Longest message accepted.")
    text_inline: int = Field(default=2 * KiB, ge=1, le=2 * KiB, description="Longer message text travels by reference.")
    args_inline: int = Field(default=1 * KiB, ge=1, description="Longer tool arguments travel by reference.")
    result_inline: int = Field(
        default=16 * KiB, ge=256, description="Longer tool results are stored whole, passed on trimmed."
    )
    result_max: int = Field(default=64 * KiB * KiB, ge=KiB, description="A tool result over this is an error.")
    decision_args_max: int = Field(
        default=64 * KiB,
        ge=256,
        description="Maximum size of edited arguments that Holdfast's client sends with an approval; a thread "
        "accepts 128 KiB "
        "from any client.",
    )
    schedule_text_max: int = Field(default=16 * KiB, ge=256, description="Longest message template of a schedule.")
    answer_inline: int = Field(default=16 * KiB, ge=256, description="Longer answers come by reference in AskWorkflow.")
    agent_depth: int = Field(default=5, ge=0, le=50, description="Agents may ask one another so deep.")
    roll_after_events: int = Field(
        default=500,
        ge=50,
        description="A workflow continues as new before it has this many history events, because a worker that takes "
        "over replays all of them.",
    )

    # MCP servers
    mcp_start_wait: float = Field(
        default=5.0, ge=0, description="A worker that starts waits so long for servers it knows."
    )
    mcp_relist_every: float = Field(
        default=60.0, gt=0, description="A connected server is asked so often what its tools are."
    )
    mcp_tools_max: int = Field(default=512, ge=1, description="A server that lists more tools is refused.")
    mcp_definition_max: int = Field(
        default=64 * KiB, ge=256, description="A tool whose text and schema take more is left out."
    )
    mcp_message_max: int = Field(
        default=128 * KiB * KiB, ge=KiB, description="A longer message of a server ends its session."
    )
    mcp_values_max: int = Field(
        default=2_000_000, ge=1000, description="So does one with more JSON values; {} counts 8."
    )
    mcp_log_max: int = Field(
        default=1 * KiB * KiB, ge=KiB, description="What a server writes to standard error, kept twice."
    )

    # Models
    model: str | None = Field(default=None, description="Overrides the model of every agent (`provider/model`).")
    model_price: str | None = Field(
        default=None,
        pattern=r"^\d+(\.\d+)?/\d+(\.\d+)?$",
        description="Price of the model in HOLDFAST_MODEL: USD per million input and output tokens, such as "
        "`0.25/2.00`.",
    )
    api_base: str | None = Field(
        default=None,
        description="Base URL of an OpenAI-compatible server, for every agent that does not set its own `api_base`.",
    )
    offline: bool | None = Field(default=None, description="True: offline/extractive stands in when a key is missing.")

    # Logs
    log_format: Literal["console", "json"] = Field(
        default="console", description="Log lines for people or for machines."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )

    @field_validator(
        *("temporal_address", "temporal_ui", "database_url", "qdrant_url", "api_base"),
        *("temporal_port", "ui_port", "postgres_port"),
        mode="before",
    )
    @classmethod
    def _unset(cls, value: object) -> object:
        """Take an empty text for no address or port: a variable can take back what `.env` or `holdfast.toml` says."""
        return None if value == "" else value

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql:// (for example postgresql://user:password@host:5432/name)")
        return value

    @field_validator("qdrant_url", "temporal_ui", "api_base")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value

    @field_validator("temporal_address")
    @classmethod
    def _host_port(cls, value: str | None) -> str | None:
        if value is not None and not value.rpartition(":")[2].isdigit():
            raise ValueError("must be host:port (for example 127.0.0.1:7233)")
        return value

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show addresses without passwords: settings are printed by debuggers and failed assertions."""
        for name, value in super().__repr_args__():
            private = name in _PRIVATE and isinstance(value, str) and "://" in value
            yield name, address(value) if private else value

    def scaled(self, seconds: float) -> float:
        """Return *seconds* multiplied by `time_scale`."""
        return seconds * self.time_scale

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, environment, .env, holdfast.toml.

        Raises:
            ConfigurationError: a file is another user's, or sets what only the environment may.

        """
        for path in (Path(_ENV_FILE), Path("holdfast.toml")):
            if path.exists() and not path.is_file() and not path.is_dir():
                raise ConfigurationError(
                    f"{path} is not a regular file but a pipe or a device, so it is not read. Remove it."
                )
        env_file, toml_settings = _EnvFile(settings_cls), TomlConfigSettingsSource(settings_cls)
        for name, source in ((_ENV_FILE, env_file), ("holdfast.toml", toml_settings)):
            _check_file(name, source)
        return init_settings, env_settings, env_file, toml_settings


class _EnvFile(DotEnvSettingsSource):
    """`.env`, whose values are taken as they stand: `${OPENAI_API_KEY}` in an address would send the key there."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        path = Path(_ENV_FILE)
        if not path.exists() or path.is_dir():  # some call their virtual environment so
            return {}
        found = dotenv_values(stream=StringIO(read_source(path).decode("utf-8")), interpolate=False)
        return {name.lower(): value for name, value in found.items()}


def _has_password(value: str | None) -> bool:
    return value is not None and "://" in value and ("@" in value or "password=" in value)


def _check_file(name: str, source: PydanticBaseSettingsSource) -> None:
    """Refuse a file of the current folder that is not the user's, or that says which program to run."""
    why = doubt(Path(name))
    if why is not None:
        raise ConfigurationError(why)
    for setting in sorted(_ENVIRONMENT_ONLY & set(source())):
        raise ConfigurationError(
            f"{name} sets {setting}, which may be set in the environment only: otherwise a copied or unpacked folder "
            "could run any "
            f"program. Remove it from {name} and set HOLDFAST_{setting.upper()} in your environment."
        )


def _from_folder(settings: Settings, name: str, overrides: Mapping[str, object]) -> str | None:
    """Return the value of a setting if a file of the current folder gave it: no argument, and not the environment."""
    variable = f"HOLDFAST_{name.upper()}"
    ours = overrides.get(name) is not None or any(each.upper() == variable for each in os.environ)
    return None if ours else getattr(settings, name)


def _check_password(settings: Settings, overrides: Mapping[str, object]) -> None:
    """Refuse to send a password of the user's to a server that a file of the current folder names."""
    url = _from_folder(settings, "database_url", overrides)
    found = None if url is None else borrowed_password(url)
    if found is not None:
        raise ConfigurationError(
            "A file of this folder (.env or holdfast.toml) names a PostgreSQL server without a password, so the "
            f"password of {found} would be sent to it. A folder that was copied or unpacked may name any server. Set "
            "HOLDFAST_DATABASE_URL in your environment instead, or write the server's own password into the URL."
        )


def _check_keys(settings: Settings, overrides: Mapping[str, object]) -> None:
    """Refuse to send a key of the user's environment to another host that a file of the current folder names."""
    for name, key in (("qdrant_url", "HOLDFAST_QDRANT_API_KEY"), ("api_base", "OPENAI_API_KEY")):
        url = _from_folder(settings, name, overrides)
        if url is None or is_loopback(url):
            continue
        env_file, toml_file = _EnvFile(Settings).env_vars, TomlConfigSettingsSource(Settings)()
        ours = {value for variable, value in os.environ.items() if variable.upper() == key and value}
        theirs = {env_file.get(key.lower()), toml_file.get(key.lower().removeprefix("holdfast_"))}
        sent = overrides.get(key.lower().removeprefix("holdfast_")) is None and bool(ours - theirs)
        if sent or secret_names(url):
            variable = f"HOLDFAST_{name.upper()}"
            what = f"{key}, which is set in your environment," if sent else "the secrets that it names"
            instead = f" Or unset {key} in your environment and write the server's own key into .env." if sent else ""
            raise ConfigurationError(
                f"A file of this folder (.env or holdfast.toml) sets {variable} to {address(url)}, so {what} would be "
                f"sent to that server. A folder that was copied or unpacked may name any server. Set {variable} in "
                f"your environment instead.{instead}"
            )


def load_settings(**overrides: object) -> Settings:
    """Load and validate the settings.

    Raises:
        ConfigurationError: a value is wrong; the message names each variable and what it must be.

    """
    try:
        settings = Settings(**{k: v for k, v in overrides.items() if v is not None})  # type: ignore[arg-type]
        _check_password(settings, overrides)
        _check_keys(settings, overrides)
        for name in _PRIVATE:
            value = getattr(settings, name)
            if name == "qdrant_api_key" or _has_password(value):
                know(f"HOLDFAST_{name.upper()}", value)
        return settings
    except ValidationError as exc:
        lines = []
        for error in exc.errors():
            name = str(error["loc"][0]) if error["loc"] else "settings"
            variable = name if name.isupper() else f"HOLDFAST_{name.upper()}"
            shown = " (not shown)" if name.lower().removeprefix("holdfast_") in _PRIVATE else f"={error.get('input')!r}"
            lines.append(f"  {variable}{shown}: {error['msg']}")
        message = "These settings are wrong (environment, .env or holdfast.toml):\n" + "\n".join(lines)
        raise ConfigurationError(message) from None
    except ConfigurationError:
        raise
    except Exception as exc:  # a malformed holdfast.toml surfaces as a parser's own error
        raise ConfigurationError(f"holdfast.toml or .env could not be read: {exc}. Mend or remove it.") from exc


@lru_cache(maxsize=1)
def defaults() -> Settings:
    """Return the built-in defaults, read from no file and no environment."""
    return Settings.model_construct()
