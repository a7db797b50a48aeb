"""What happens to a cluster of Ray is told, each once, with Ray's reason."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.core.generated import autoscaler_pb2

from backends import jobs
from backends.harness import Harness, wait_for
from faults.cluster import ENVIRONMENT
from raysched.backends.ray.autoscaling import Autoscaling
from raysched.backends.ray.events import Events
from raysched.engine.ports import Happened
from raysched.model.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raysched.engine.ports import Message

HERE = Path(__file__).parent


@pytest.fixture
def harness(local_ray: None) -> Iterator[Harness]:
    """A backend of its own on the Ray of this session, so that its events are those of a test."""
    from raysched.backends.ray.backend import RayBackend

    del local_ray
    backend = RayBackend(code_path=HERE.parent)
    yield Harness(backend)
    backend.stop()


def told_in(scene: str) -> dict[str, Any]:
    """Return what a driver of `happenings` was told."""
    driver = subprocess.run(
        [sys.executable, HERE / "happenings.py", scene],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert driver.returncode == 0, driver.stderr
    # Ray prints its own messages before.
    found: dict[str, Any] = json.loads(driver.stdout.splitlines()[-1])
    return found


class TestWorkers:
    def test_death_is_told_before_the_unit_is_lost(self, harness: Harness) -> None:
        """Or a run that ends with the unit would not have the event."""
        before = time.time_ns()
        lost = harness.run(jobs.die, (signal.SIGSEGV,)).lost
        assert lost is not None
        (event,) = harness.happened(EventKind.WORKER_DIED)
        for name in ("worker_id", "node_id", "pid"):
            assert event.attributes[name] == lost.evidence[name]
        assert "SIGSEGV" in event.message
        assert str(event.attributes["death_reason"]).startswith("SYSTEM_ERROR: ")
        # Ray tells milliseconds.
        assert before - 1_000_000 <= event.at <= time.time_ns()

    def test_each_once_and_those_that_end_by_themselves_not(self, harness: Harness) -> None:
        lost = harness.run(jobs.die, (signal.SIGKILL,)).lost
        assert lost is not None
        retired = harness.value(harness.run(os.getpid, ray={"max_calls": 1}))
        wait_for(lambda: not Path(f"/proc/{retired}").exists())
        idle = harness.value(harness.run(os.getpid))
        os.kill(idle, signal.SIGKILL)
        event = harness.until_happened(EventKind.WORKER_DIED, pid=idle)
        assert "unexpectedly" in event.message
        # It was the last to be looked at.
        told = [event.attributes["pid"] for event in harness.happened(EventKind.WORKER_DIED)]
        assert told == [lost.evidence["pid"], idle]

    def test_of_what_cannot_be_seen_is_logged_once(
        self, harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A Ray whose inside is another loses the run nothing but the events from there."""
        idle = harness.value(harness.run(os.getpid))
        monkeypatch.setattr(autoscaler_pb2, "GetClusterStatusReply", None)
        with caplog.at_level(logging.DEBUG, "raysched.backends.ray.events"):
            os.kill(idle, signal.SIGKILL)
            harness.until_happened(EventKind.WORKER_DIED, pid=idle)
        (record,) = caplog.records
        assert record.getMessage() == "the cluster's status cannot be seen"
        assert record.levelno == logging.DEBUG


class TestNodes:
    def test_that_come_and_go(self) -> None:
        told = told_in("nodes_come_and_go")
        # Neither those that were there before, nor the workers that went with their nodes.
        added, killed, ended = told["events"]
        assert added["kind"] == "node added"
        assert killed["kind"] == ended["kind"] == "node removed"
        nodes = [each["attributes"]["node_id"] for each in (added, killed, ended)]
        assert nodes == [told["nodes"][0], *told["nodes"]]
        assert "CPU=2, elsewhere=8" in added["message"]
        assert added["at"] < killed["at"] < ended["at"]
        reason = killed["attributes"]["death_reason"]
        assert reason.startswith("UNEXPECTED_TERMINATION: health check failed")
        assert reason in killed["message"]
        # Told with the unit that was lost there, after which the backend was stopped.
        assert ended["attributes"]["death_reason"] == "EXPECTED_TERMINATION: received SIGTERM"

    def test_are_told_of_once_by_whoever_asked_earlier_and_comes_later(
        self, local_ray: None
    ) -> None:
        del local_ray
        told: list[Message] = []

        def sink(message: Message) -> None:
            told.append(message)

        events = Events(sink, is_fresh=False)
        here = ray.nodes()  # type: ignore[no-untyped-call]
        there = [*here, {**here[0], "NodeID": "f" * 56}]
        gone = [*here, {**here[0], "NodeID": "f" * 56, "Alive": False}]
        for nodes in (there, here, gone, there, gone):
            events.see_nodes(nodes)
        events.close()
        kinds = [each.event.kind for each in told if isinstance(each, Happened)]
        assert kinds == [EventKind.NODE_ADDED, EventKind.NODE_REMOVED]

    def test_of_an_autoscaler(self) -> None:
        asked, *others, removed = told_in("cluster_is_scaled")["events"]
        assert asked["kind"] == "autoscaled"
        assert asked["message"] == "the autoscaler asked for 1 node of type small"
        assert asked["attributes"] == {"action": "requested", "node_type": "small", "count": 1}
        # Between two looks it may have begun to start Ray, and come up, too.
        assert [each["kind"] for each in others if each["kind"] != "autoscaled"] == ["node added"]
        assert removed["kind"] == "node removed"
        assert removed["attributes"]["death_reason"].startswith("AUTOSCALER_DRAIN_IDLE: ")


class TestAutoscaling:
    def test_what_it_does_not_get_is_told_once_with_the_reason(self) -> None:
        state: Any = autoscaler_pb2.AutoscalingState()  # type: ignore[attr-defined]
        refused = {"ray_node_type_name": "gpu", "reason": "no capacity", "failed_ts": 9}
        state.failed_instance_requests.add(count=1, **refused | {"failed_ts": 1})
        autoscaling = Autoscaling()
        assert autoscaling.see(state, 5) == []
        for _ in range(2):
            state.failed_instance_requests.add(count=1, **refused)
        wanted = state.infeasible_resource_requests.add().resources_bundle
        wanted["CPU"], wanted["memory"] = 4, 2**34
        assert [(event.at, event.message) for event in autoscaling.see(state, 7)] == [
            (9_000_000_000, "the autoscaler did not get 2 nodes of type gpu: no capacity"),
            (7, "the autoscaler has no type of node with CPU=4, memory=16 GiB"),
        ]
        assert autoscaling.see(state, 8) == []


class TestMemory:
    def test_kill_for_memory(self) -> None:
        told = told_in("memory_runs_out")
        (event,) = told["events"]
        assert event["kind"] == "out of memory"
        for name in ("worker_id", "node_id", "pid", "used_bytes", "allowed_bytes"):
            assert event["attributes"][name] == told["evidence"][name]
        assert event["attributes"]["bytes"] > 200 * 1024**2
        assert "ran out of memory" in event["message"]
        assert "\n" not in event["message"]

    def test_spilling(self) -> None:
        (event,) = told_in("store_overflows")["events"]
        assert event["kind"] == "objects spilled"
        spilled = event["attributes"]
        # 8 values of 20 MiB in 80 MiB; the look may come in the middle of it.
        assert 1 <= spilled["objects"] <= 8
        assert spilled["bytes"] >= spilled["objects"] * 20 * 1024**2
        assert f"{spilled['objects']} objects" in event["message"]
