"""What the figures were measured on."""

import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import psutil

SYNCS = 50
PEERS = ("joblib", "distributed", "parsl")


@dataclass(frozen=True, slots=True)
class Machine:
    """What the figures were measured on.

    Attributes:
        cores: Logical cores that this process may use.
        memory: Bytes.
        processor: Its name.
        system: Operating system.
        sync: Median time of an fsync after a page was written, where the databases are (seconds).
        load: How many threads wanted to run over the minute before: more than 0 is other work.
        python: Version.
        ray: Version.
        raysched: Version.
        peers: Versions of the other peers that are installed, by name.
    """

    cores: int
    memory: int
    processor: str
    system: str
    sync: float
    load: float
    python: str
    ray: str
    raysched: str
    peers: Mapping[str, str]

    def __str__(self) -> str:
        peers = "".join(f", {name} {number}" for name, number in self.peers.items())
        return (
            f"{self.cores} cores ({self.processor}), {self.memory / 2**30:.0f} GiB, "
            f"fsync {1000 * self.sync:.2f} ms, load before {self.load:.1f}; {self.system}, "
            f"Python {self.python}, Ray {self.ray}, raysched {self.raysched}{peers}"
        )


def this_machine(scratch: Path) -> Machine:
    """Describe this machine; `scratch` is on the disk of the databases."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory=psutil.virtual_memory().total,
        processor=_processor(),
        system=f"{platform.system()} {platform.release()}",
        sync=_sync_seconds(scratch),
        load=os.getloadavg()[0],
        python=platform.python_version(),
        ray=version("ray"),
        raysched=version("raysched"),
        peers={name: version(name) for name in PEERS if find_spec(name)},
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _sync_seconds(directory: Path) -> float:
    taken = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(SYNCS):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return median(taken)
