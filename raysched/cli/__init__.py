"""The command line: parse, ask the client, print."""


def main() -> None:
    """Run the command of this process's arguments; the entry point of `raysched`."""
    from raysched.cli.app import app

    app(prog_name="raysched")
