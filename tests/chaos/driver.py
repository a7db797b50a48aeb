"""The driver of a story: runs the flow that is described beside its log, here or on Ray."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from chaos.graphs import Graph, around

if __name__ == "__main__":
    place = Path(sys.argv[1])
    graph = Graph.from_json((place / "graph.json").read_text())
    state = around(graph, str(place), return_state=True)
    print(state.name, state.message)  # noqa: T201 - for whoever looks at a story that failed
    sys.exit(not state.is_completed())
