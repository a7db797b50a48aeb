"""Runs a function of a project's module on both nodes of a cluster, on workers already there."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

# Of the harness and the jobs beside this script.
sys.path.append(str(Path(__file__).parents[1]))

from backends.harness import Harness
from raysched.backends.ray import RayBackend

if __name__ == "__main__":
    address, project, module = sys.argv[1:]
    sys.path.insert(0, project)
    function = importlib.import_module(module).where
    harness = Harness(RayBackend(address=address, code_path=Path(project)))
    found = {}
    for place, options in (("head", {}), ("elsewhere", {"resources": {"elsewhere": 1}})):
        # Now a worker is there, before it has seen anything of the project.
        harness.run(lambda: None, ray=options)
        ended = harness.run(function, ray=options)
        assert not ended.errors, ended.errors
        found[place] = harness.value(ended)
    print(json.dumps(found))  # noqa: T201 - its caller reads it
    harness.backend.stop()
