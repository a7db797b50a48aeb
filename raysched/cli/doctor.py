"""`raysched doctor`."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from raysched import wiring
from raysched.cli.output import duration, print_json, say
from raysched.errors import RayschedError, SettingsError
from raysched.settings import Settings, settings
from raysched.store import open_reader, open_store
from raysched.telemetry.ports import Signal
from raysched.telemetry.sending.environment import is_disabled, is_off, unsupported_exporters
from raysched.telemetry.variables import misspelt, set_variables

FAILURE = 1

GIBIBYTE = 1024**3
LEAST_FREE = 1 * GIBIBYTE
"""Free disk space (bytes) below which there is trouble ahead."""

LIBRARIES = ("ray", "pydantic", "sqlmodel", "cloudpickle", "typer", "rich")


@dataclass(frozen=True, slots=True)
class Check:
    """What was found out about one thing.

    Attributes:
        name: The thing.
        detail: What there is, or what is wrong.
        advice: What to do about it, or "".
        ok: Whether it works.
    """

    name: str
    detail: str
    advice: str = ""
    ok: bool = True


def examine(address: str | None, *, as_json: bool) -> int:
    """Check everything that a run needs; return the exit code.

    Args:
        address: Ray address, or None for the settings'.
        as_json: Whether to print JSON.
    """
    checks: list[Check] = []
    for check in _checks(address):
        checks.append(check)
        if not as_json:
            _print(check)
    ok = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        say()
        say("Everything works." if ok else "Not everything works: see the lines marked ✘.")
    return 0 if ok else FAILURE


def _print(check: Check) -> None:
    mark = ("✔ ", "green") if check.ok else ("✘ ", "bold red")
    say(mark, (f"{check.name:11}", "bold"), check.detail)
    if check.advice:
        say(f"{'':13}", (check.advice, "yellow"))


def _checks(address: str | None) -> Iterator[Check]:
    yield Check("raysched", f"{version('raysched')} in {Path(__file__).parents[1]}")
    yield Check("Python", f"{platform.python_version()}, {sys.executable}")
    yield Check("libraries", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES))
    yield from _check_variables()
    try:
        chosen = settings()
    except SettingsError as error:
        yield Check("settings", str(error), ok=False)
        return
    yield _check_database(chosen.resolved_database_url())
    yield _check_disk("disk", chosen.home)
    yield _check_disk("Ray's disk", Path(os.environ.get("RAY_TMPDIR", "/tmp")))  # noqa: S108 - where Ray keeps its sessions
    yield _check_telemetry()
    yield from _check_kept_ray()
    yield _check_ray(address or "", chosen)


def _check_variables() -> Iterator[Check]:
    """Tell which variables are set; names only, since a URL may hold a password."""
    names = set_variables() + [name for name in ("RAY_ADDRESS",) if name in os.environ]
    yield Check("settings", f"set: {', '.join(names) or 'none, all as by default'}")
    for name, meant in misspelt().items():
        yield Check("settings", f"nothing reads {name}", f"is {meant} meant?", ok=False)
    for line in unsupported_exporters():
        yield Check("telemetry", line, ok=False)


def _check_database(url: str) -> Check:
    parts = urlsplit(url)
    shown = url.replace(f":{parts.password}@", ":***@") if parts.password else url
    try:
        # As a run does, so that what a run would trip over is found here.
        open_store(url).close()
        reader = open_reader(url)
        newest = reader.runs(limit=1)
        reader.close()
    except RayschedError as error:
        return Check("database", str(error), ok=False)
    runs = f"last run {newest[0].id[:8]}" if newest else "no runs yet"
    return Check("database", f"{shown}, can be written; {runs}")


def _check_disk(name: str, directory: Path) -> Check:
    place = next(each for each in (directory, *directory.parents) if each.exists())
    usage = shutil.disk_usage(place)
    detail = f"{usage.free / GIBIBYTE:.1f} of {usage.total / GIBIBYTE:.1f} GiB free at {place}"
    if usage.free < LEAST_FREE:
        return Check(name, detail, "free some space", ok=False)
    return Check(name, detail)


def _check_telemetry() -> Check:
    from raysched.client.delivery import ask_collector

    try:
        answer = ask_collector()
    except RayschedError as error:
        return Check("telemetry", str(error), ok=False)
    if answer is None and is_off(Signal.TRACES):
        by = "OTEL_SDK_DISABLED" if is_disabled() else "OTEL_TRACES_EXPORTER"
        return Check("telemetry", f"off: {by} says so")
    if answer is None:
        return Check("telemetry", "off: nothing says where traces go; raysched jaeger does")
    if answer.reason:
        advice = "runs go well without it; raysched trace --unsent sends their traces later"
        return Check("telemetry", f"{answer.endpoint}: {answer.reason}", advice, ok=False)
    return Check("telemetry", f"traces go to {answer.endpoint}, which takes them")


def _check_kept_ray() -> Iterator[Check]:
    """Tell of the Ray of `raysched up` where there is one; that of the run comes after it."""
    try:
        from raysched.client.kept_ray import look_at_ray

        seen = look_at_ray()
    except (RayschedError, ImportError) as error:
        yield Check("kept Ray", str(error), ok=False)
        return
    if seen is not None and seen.problem:
        advice = (
            "runs start one of their own; raysched down clears up, raysched up starts a fresh one"
        )
        yield Check("kept Ray", seen.problem, advice, ok=False)


def _check_ray(address: str, chosen: Settings) -> Check:
    began = time.monotonic()
    try:
        backend = wiring.make_backend(wiring.Configuration(backend="ray", address=address), chosen)
        try:
            backend.start(lambda _message: None)
            detail = f"{backend.describe()}, ready after {duration(time.monotonic() - began)}"
        finally:
            backend.stop()
    except (RayschedError, ImportError) as error:
        advice = "raysched run --backend inline works without Ray"
        return Check("Ray", str(error), advice, ok=False)
    return Check("Ray", detail)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
