"""What is probably wrong with environment variables, though nothing fails for it."""

import logging
import os
from collections.abc import Collection, Iterable

from raysched.settings import variables
from raysched.telemetry.ports import Signal
from raysched.telemetry.sending.environment import is_disabled, unsupported_exporters

logger = logging.getLogger("raysched.telemetry")

_OTLP_OPTIONS = (
    "CERTIFICATE",
    "CLIENT_CERTIFICATE",
    "CLIENT_KEY",
    "COMPRESSION",
    "ENDPOINT",
    "HEADERS",
    "INSECURE",
    "PROTOCOL",
    "TIMEOUT",
)

_USUAL = frozenset(
    {
        *(
            f"OTEL_EXPORTER_OTLP_{kind}{option}"
            for kind in ("", *(f"{signal.upper()}_" for signal in Signal))
            for option in _OTLP_OPTIONS
        ),
        *(f"OTEL_{signal.upper()}_EXPORTER" for signal in Signal),
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_SDK_DISABLED",
        "OTEL_SERVICE_NAME",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
    }
)
"""Those that are read here: who sets no others need not import OpenTelemetry for their names."""

_OF_OTHERS = ("OTEL_EXPERIMENTAL_", "OTEL_INSTRUMENTATION_", "OTEL_PYTHON_", "OTEL_SEMCONV_")
"""How names begin that instrumentations, and the SDK of a language, have for themselves."""

_ALIKE = 0.8
"""Least ratio of `difflib` for a name to be looked at as another one's misspelling."""

_MOST_SLIPS = 2
"""Most characters that are wrong, too many or missing in a misspelt name.

More would take what others have named in the same way (`OTEL_METRICS_PORT`, which Kubernetes sets
for a service `otel-metrics`) for `OTEL_METRICS_EXPORTER`.
"""

_FEWEST_WORDS = 3
"""Fewest words of a name that is taken for another one with a word left out."""

_told: set[str] = set()


def set_variables() -> list[str]:
    """Return the names of `RAYSCHED_*` and `OTEL_*` variables that are set.

    Their values may be credentials: keys in headers, passwords in URLs.
    """
    return sorted(name for name in os.environ if name.startswith(("RAYSCHED_", "OTEL_")))


def misspelt() -> dict[str, str]:
    """Return which of them nothing reads, each with the name that is probably meant.

    What resembles no known name is not among them: other programs have variables, too.
    """
    names = set_variables()
    found = _misspelt((name for name in names if name.startswith("RAYSCHED_")), variables())
    unusual = [name for name in names if name.startswith("OTEL_") and name not in _USUAL]
    if unusual and not is_disabled():
        of_others = _of_opentelemetry()
        found |= _misspelt((name for name in unusual if not name.startswith(_OF_OTHERS)), of_others)
    return found


def remark() -> None:
    """Say in the log, once in a process, what is probably wrong with variables."""
    lines = unsupported_exporters()
    if wrong := misspelt():
        questions = (f"{name} (is {meant} meant?)" for name, meant in wrong.items())
        lines.append(f"nothing reads {', '.join(questions)}")
    for line in lines:
        if line not in _told:
            _told.add(line)
            logger.warning("%s", line)


def _of_opentelemetry() -> frozenset[str]:
    from opentelemetry import environment_variables as of_api
    from opentelemetry.sdk import environment_variables as of_sdk

    names = (*vars(of_api), *vars(of_sdk))
    return _USUAL.union(name for name in names if name.startswith("OTEL_"))


def _misspelt(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    # Settings are found in any case.
    closest = {name: _closest(name, known) for name in names if name.upper() not in known}
    return {name: meant for name, meant in closest.items() if meant}


def _closest(name: str, known: Collection[str]) -> str:
    """Return the known name that one is a misspelling of, or ""."""
    from difflib import get_close_matches

    candidates = get_close_matches(name, sorted(known), 5, _ALIKE)
    return next((each for each in candidates if _is_misspelling(name, each)), "")


def _is_misspelling(name: str, known: str) -> bool:
    """Return whether a few characters are wrong, or words are out of order, or one is left out."""
    from difflib import SequenceMatcher

    steps = SequenceMatcher(None, name, known, autojunk=False).get_opcodes()
    slips = sum(max(b - a, d - c) for what, a, b, c, d in steps if what != "equal")
    if slips <= _MOST_SLIPS:
        return True
    words, of_known = name.split("_"), known.split("_")
    if sorted(words) == sorted(of_known):
        return True
    left_out = len(words) == len(of_known) - 1 and set(words) < set(of_known)
    return left_out and words[-1] == of_known[-1] and len(words) >= _FEWEST_WORDS
