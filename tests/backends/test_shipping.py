"""The user's modules reach the workers: those beside the driver, and those of other nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysched.backends.ray.shipping import FILE_MAX_BYTES, collect, with_code
from raysched.model.values import CrashKind

HERE = Path(__file__).parent

MAIN = """
import os
import sibling
from tools.deep import inner

def where():
    return {"sibling": sibling.__file__, "inner": inner.NAME, "cwd": os.getcwd()}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    deep = project / "tools" / "deep"
    deep.mkdir(parents=True)
    (project / "nightly.py").write_text(MAIN)
    (project / "sibling.py").write_text("")
    (deep / "inner.py").write_text("NAME = __name__")
    return project


class TestCollect:
    def test_modules_and_packages(self, project: Path) -> None:
        for other in (".git", "venv", "data", "tools/__pycache__"):
            (project / other).mkdir()
        (project / "venv" / "pyvenv.cfg").touch()
        (project / "venv" / "module.py").touch()
        (project / ".git" / "hook.py").touch()
        (project / "data" / "rows.csv").touch()
        found, excludes = collect(project)
        assert [path.name for path in found] == ["nightly.py", "sibling.py", "tools"]
        assert excludes == []

    def test_large_files_stay_here(self, project: Path) -> None:
        with (project / "tools" / "model.bin").open("wb") as file:
            file.truncate(FILE_MAX_BYTES + 1)
        assert collect(project)[1] == ["/model.bin"]

    def test_large_packages_stay_here(
        self, project: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(11):
            with (project / "tools" / f"part{number}").open("wb") as file:
                file.truncate(FILE_MAX_BYTES)
        assert [path.name for path in collect(project)[0]] == ["nightly.py", "sibling.py"]
        assert "not shipped" in caplog.text


class TestArguments:
    def test_environment_of_the_user_is_kept(self, project: Path) -> None:
        mine = {"runtime_env": {"env_vars": {"A": "1"}, "py_modules": ["mine"]}}
        environment = with_code(mine, project, here=False)["runtime_env"]
        assert environment["env_vars"] == {"A": "1"}
        assert environment["py_modules"][0] == "mine"
        assert str(project / "sibling.py") in environment["py_modules"]

    def test_code_that_the_user_ships_is_left_to_them(self, project: Path) -> None:
        mine = {"runtime_env": {"working_dir": "."}}
        assert with_code(mine, project, here=False) == mine

    def test_nothing_to_ship(self) -> None:
        assert with_code({}, None, here=False) == {}


def test_both_nodes_of_a_cluster(project: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",
        # By default Ray takes 15 s to see the death of a node.
        "RAY_health_check_initial_delay_ms": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "6",
    }
    with subprocess.Popen(
        [sys.executable, HERE / "cluster.py"],
        cwd=elsewhere,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as cluster:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        done = subprocess.run(
            [sys.executable, HERE / "driver.py", address, project, "nightly"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        cluster.communicate()
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["head"]["sibling"] == str(project / "sibling.py")
    assert not found["elsewhere"]["sibling"].startswith(str(project))
    assert found["elsewhere"]["inner"] == "tools.deep.inner"
    # The node was killed then, under a unit and a value.
    assert found["kind"] in {CrashKind.NODE_DIED, CrashKind.WORKER_DIED}
    assert found["evidence"]["node_id"]
    assert found["starved"] == CrashKind.OBJECT_LOST
    assert found["before"] == [False, False]
    assert found["after"] == [True, False, True]
    assert "lost" in found["lost"]
