"""Settings: the only reader of `RAYSCHED_*` environment variables."""

from functools import cache
from pathlib import Path

from platformdirs import user_data_path
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from raysched.errors import SettingsError

_PREFIX = "RAYSCHED_"


class Settings(BaseSettings):
    """What can be set by `RAYSCHED_<NAME>`; frozen for the life of the process."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: user_data_path("raysched"))
    """Directory of everything that raysched keeps on this machine."""

    database_url: str = ""
    """SQLAlchemy URL of the database; by default SQLite in `home`."""

    backend: str = Field(default="ray", pattern="^(ray|inline)$")
    """`ray`, or `inline`: in this process, without Ray."""

    address: str = ""
    """Ray address; by default `RAY_ADDRESS`, else the Ray of `raysched up`, else a local one."""

    sqlite_synchronous: str = Field(default="FULL", pattern="^(FULL|NORMAL)$")
    """`FULL` survives a loss of power, `NORMAL` only the death of processes."""

    store_patience_seconds: float = Field(default=60.0, gt=0)
    """How long an unreachable database is tried again before the driver gives up (seconds)."""

    inline_result_max_bytes: int = Field(default=32 * 1024, ge=0)
    """Results up to this encoded size (bytes) are kept in the database."""

    result_storage: str = ""
    """URL (fsspec) of the result storage, for larger results; by default `results` in `home`.

    A directory that is named here is taken for one that all nodes share.
    """

    kept_result_max_bytes: int = Field(default=1024**3, ge=0)
    """Results over this encoded size (bytes) are not kept after their run."""

    kept_run_max_bytes: int = Field(default=64 * 1024**3, ge=0)
    """Most that is kept of the results of one flow run (bytes); what comes after is not kept."""

    retention_days: float = Field(default=0, ge=0)
    """How long flow runs are kept after their end (days), 0 for ever: what `raysched db prune`
    removes where nothing else is said."""

    values_in_memory_bytes: int = Field(default=16 * 1024**2, ge=0)
    """Small results that the driver keeps in memory (bytes); older ones are read again."""

    result_max_bytes: int = Field(default=8 * 1024**3, gt=0)
    """Results over this encoded size (bytes) fail their task run with a clear error."""

    max_same_failures: int = Field(default=1000, ge=0)
    """Attempts of one map that may fail in a row with one fingerprint; 0 for any number.

    For tasks without an option `max_same_failures`: then the rest of the map is not begun any more.
    """

    drain_grace_seconds: float = Field(default=10.0, ge=0)
    """How long running task runs may go on after the flow function raised (seconds)."""

    termination_grace_seconds: float = Field(default=10.0, ge=0)
    """How long a task run may clean up after its timeout or cancellation, before its worker, and
    what it has started, is ended by force (seconds)."""

    segment_milliseconds: float = Field(default=3.0, ge=0)
    """How long calls are collected before they are compiled, unless the flow blocks (ms)."""

    unit_size: int = Field(default=0, ge=0)
    """Task runs that every unit carries, where there are as many; 0 lets units adapt.

    For tests and comparison: an option `batch_size` of a task is the better place.
    """

    fusion: bool = True
    """Whether task runs may run in the unit of the one that they need, right after it.

    For tests and comparison: no state and no result depends on it.
    """

    mask: str = ""
    """Names of secrets, separated by commas, that are not shown among the arguments of a failed
    task run, beside those that are known (`password`, `token`, …): `ssn, iban`."""

    fault_points: str = ""
    """Faults that happen at named points, as `raysched.testing.FaultPoints` writes them."""

    refresh_cache: bool = False
    """Whether tasks run although their results are cached, and replace these.

    For tasks without an option `refresh_cache`."""

    trace: bool = False
    """Whether to export traces to a collector on this machine if nothing names another one.

    Without it that is done where an `OTEL_EXPORTER_OTLP_*ENDPOINT`, a provider of the program's own
    or `raysched jaeger` says where to."""

    trace_max_spans: int = Field(default=5000, ge=0)
    """Spans of one trace from which on maps are told by `chunk` spans; 0 for all spans."""

    trace_url: str = Field(default="", pattern=r"^$|\{trace_id\}")
    """Where people look at a trace: `http://localhost:16686/trace/{trace_id}`."""

    jaeger: str = ""
    """The `jaeger` binary that `raysched jaeger` starts; by default the one on `PATH`, else a
    container where Docker or Podman runs."""

    telemetry_flush_seconds: float = Field(default=2.0, ge=0)
    """How long the end of a program waits for collectors (seconds)."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port on this machine for metrics in Prometheus' text format; 0 for none."""

    debug: bool = False
    """Whether the command line shows tracebacks of raysched itself."""

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$")
    """Lowest level of kept log records."""

    def resolved_database_url(self) -> str:
        """Return `database_url`, or the URL of the SQLite file in `home`."""
        return self.database_url or f"sqlite:///{self.home / 'raysched.db'}"

    def resolved_result_storage(self) -> str:
        """Return `result_storage`, or the directory in `home`."""
        return self.result_storage or str(self.home / "results")


def variables() -> frozenset[str]:
    """Return the names of all environment variables that are settings."""
    return frozenset(f"{_PREFIX}{name.upper()}" for name in Settings.model_fields)


@cache
def settings() -> Settings:
    """Return the settings of this process, read once.

    Raises:
        SettingsError: A variable has an impossible value.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{_PREFIX}{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors()
        )
        message = f"{problems}: change or unset the variable"
        raise SettingsError(message) from error
