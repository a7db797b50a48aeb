"""A program that is started as Jaeger, or as a container engine that runs it, and answers so.

It is copied to where `jaeger`, `docker` or `podman` is looked for; `calls` beside it tells how it
was called.
"""

import http.server
import json
import sys
import threading
from pathlib import Path
from typing import Any

HERE = Path(__file__)


def ports() -> list[tuple[str, int]]:
    """Where to listen, as the configuration says, or what a container publishes."""
    published = [each.split(":") for each in sys.argv if each.startswith("--publish=")]
    if published:
        return [(host.removeprefix("--publish="), int(outer)) for host, outer, _ in published]
    config: Any = json.loads(sys.argv[1].removeprefix("--config=yaml:"))
    protocols = config["receivers"]["otlp"]["protocols"]
    listeners = [config["extensions"]["jaeger_query"]["http"], protocols["http"], protocols["grpc"]]
    addresses = [each["endpoint"].rpartition(":") for each in listeners]
    return [(host, int(port)) for host, _, port in addresses]


def serve() -> None:
    threads = []
    for address in ports():
        server = http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler)
        threads.append(threading.Thread(target=server.serve_forever))
    for thread in threads:
        thread.start()


def main() -> int:
    with HERE.with_name("calls").open("a", encoding="utf-8") as calls:
        calls.write(json.dumps([HERE.name, *sys.argv[1:]]) + "\n")
    if HERE.name == "jaeger" or sys.argv[1] == "run":
        serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
