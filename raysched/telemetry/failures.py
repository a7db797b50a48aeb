"""What spans and metrics call a failure."""

from raysched.model.values import ErrorInfo


def error_type(error: ErrorInfo | None) -> str:
    """Return what `error.type` says of a failure, or "" if there is only its state to tell.

    The qualified name of the exception's class, that of a builtin without its module; where no
    exception was raised, what happened. Source: OpenTelemetry semantic conventions, `error.type`
    and `exception.type`.
    """
    if error is None:
        return ""
    # As every protocol wants it: UTF-8, without half of a surrogate pair.
    name = error.type.removeprefix("builtins.") or error.kind
    return name.encode(errors="replace").decode()
