"""Where people look at traces."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from raysched.settings import Settings
from raysched.telemetry import jaeger
from raysched.telemetry.wanted import has_own_tracer, traces_destination

if TYPE_CHECKING:
    from raysched.telemetry.sending.environment import Destination

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def trace_url(settings: Settings, trace_id: str, to: "Destination | None" = None) -> str:
    """Return where people look at a trace, or "" if that is not known.

    That is what `RAYSCHED_TRACE_URL` says, else the Jaeger of `raysched jaeger` if spans go there;
    where those go that a provider of the program gets, only the program knows.

    Args:
        settings: Settings of this process.
        trace_id: Its id, 32 hexadecimal digits.
        to: Where its spans go, by default where those of runs go.
    """
    if settings.trace_url:
        return settings.trace_url.replace("{trace_id}", trace_id)
    if to is None and has_own_tracer():
        return ""
    kept = jaeger.running(settings.home)
    to = to or (traces_destination(settings) if kept is not None else None)
    if kept is None or to is None:
        return ""
    where = urlsplit(to.endpoint if "//" in to.endpoint else f"//{to.endpoint}")
    taken = {urlsplit(url).port for url in (kept.http, kept.grpc)}
    there = where.hostname in _LOOPBACK and where.port in taken
    return kept.trace_url(trace_id) if there else ""
