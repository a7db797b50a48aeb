"""A Ray cluster on this machine whose autoscaler starts a raylet for each node that is missing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from ray.util import get_node_ip_address

HEAD = "f" * 51 + "00000"
"""The id by which Ray's fake provider of nodes knows the head."""

_COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


class AutoscaledCluster:
    """A head without CPUs, and at most one node of type `small`, which ends after 3 s idle."""

    def __init__(self) -> None:
        # Short: names of sockets have at most 107 characters.
        self._directory = tempfile.mkdtemp(prefix="raysched-")
        host = get_node_ip_address()  # type: ignore[no-untyped-call]
        with socket.create_server((host, 0)) as server:
            port = server.getsockname()[1]
        self.address = f"{host}:{port}"
        file = Path(self._directory) / "cluster.json"
        file.write_text(json.dumps(self._configuration()))
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *(f"--port={port}", f"--node-ip-address={host}", "--num-cpus=0"),
                *("--include-dashboard=false", "--disable-usage-stats"),
                *("--dashboard-agent-listen-port=0", f"--temp-dir={self._directory}"),
                f"--autoscaling-config={file}",
            ],
            env=os.environ
            | {
                "RAY_FAKE_CLUSTER": "1",
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_enable_autoscaler_v2": "1",
                "RAY_CLOUD_INSTANCE_ID": HEAD,
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._until_it_blocks()

    def close(self) -> None:
        """End all of it."""
        self._process.terminate()
        self._process.communicate()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _until_it_blocks(self) -> None:
        """Wait until the command has started all that it starts."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "block forever" in line:
                return
        raise AssertionError("the cluster has ended")

    def _configuration(self) -> dict[str, object]:
        return {
            "cluster_name": "fake",
            "max_workers": 1,
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": 0.05,
            "docker": {},
            "auth": {},
            "provider": {
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider"
                ".FakeMultiNodeProvider",
                "launch_multiple": True,
                "head_node_id": HEAD,
                "gcs_address": self.address,
            },
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "small": {
                    "resources": {"CPU": 1, "object_store_memory": 80 * 1024**2},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": 1,
                },
            },
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "rsync_exclude": [],
            "rsync_filter": [],
            **{command: [] for command in _COMMANDS},
        }
