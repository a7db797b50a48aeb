"""`raysched graph`."""

from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from raysched.cli.output import print_json, say
from raysched.cli.parameters import describe_parameters, read_parameters
from raysched.cli.target import load_target
from raysched.errors import ParameterError, UsageError
from raysched.graph.drawing import Drawing
from raysched.graph.payload import object_name
from raysched.graph.picture import picture

Format: TypeAlias = Literal["tree", "mermaid", "svg", "png"]

ENDINGS: dict[str, Format] = {
    ".svg": "svg",
    ".png": "png",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".txt": "tree",
}


def draw_target(
    text: str,
    pairs: tuple[str, ...],
    document: str | None,
    file_format: Format | None,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    """Draw the graph of a flow.

    Args:
        text: TARGET.
        pairs: `name=value` of each `--param`.
        document: What `--params-json` was given, or None.
        file_format: The format, or None for what the output's ending says.
        output: File to write, or None for standard output.
        as_json: Whether to print boxes and arrows as JSON instead.

    Raises:
        UsageError: The target, a parameter or an option cannot be right.
    """
    chosen = file_format or _format_of(output)
    if chosen in {"svg", "png"} and output is None:
        raise UsageError(f"--format {chosen} needs --output FILE")
    target = load_target(text)
    parameters = read_parameters(target.flow.fn, pairs, document)
    try:
        plan = target.flow.plan(**parameters)
    except ParameterError as error:
        signature = describe_parameters(target.flow.fn, target.flow.name)
        raise ParameterError(f"{error}\n\n  {signature}") from error
    drawing = Drawing.of(plan)
    if as_json:
        print_json(_record(drawing))
    elif output is None:
        _print(drawing, chosen)
    else:
        _write(output, _content(drawing, chosen))
        say(f"{output} written")


def _content(drawing: Drawing, file_format: Format) -> bytes:
    match file_format:
        case "tree":
            return f"{drawing.tree()}\n".encode()
        case "mermaid":
            return f"{drawing.mermaid()}\n".encode()
        case _:
            return picture(drawing, file_format)


def _print(drawing: Drawing, file_format: Format) -> None:
    if file_format == "mermaid":
        say(drawing.mermaid())
        return
    for line in drawing.tree().splitlines():
        label, arrow, needs = line.partition("←")
        say(label, (f"{arrow}{needs}", "dim"))


def _write(output: Path, content: bytes) -> None:
    try:
        output.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}") from error


def _record(drawing: Drawing) -> dict[str, Any]:
    return {
        "flow": drawing.title,
        "boxes": [
            {
                "id": box.id,
                "kind": box.kind.value,
                "name": box.name,
                "size": box.size,
                "needs": [{"id": arrow.parent, "how": list(arrow.words)} for arrow in box.arrows],
                "once_per_worker": [object_name(token) for token in box.objects],
            }
            for box in drawing.boxes
        ],
    }


def _format_of(output: Path | None) -> Format:
    if output is None:
        return "tree"
    if output.suffix not in ENDINGS:
        raise UsageError(
            f"--output {output}: its ending names no format; "
            f"use {', '.join(ENDINGS)} or give --format {'|'.join(get_args(Format))}"
        )
    return ENDINGS[output.suffix]
