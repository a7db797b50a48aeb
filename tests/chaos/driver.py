"""The driver of a story: runs the flow that is described beside its log, here or on Ray.

`driver.py PLACE` begins it, `driver.py PLACE RUN` goes on with a run of it.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from chaos.graphs import Graph, around
from chaos.log import is_alive, note, read_log

if __name__ == "__main__":
    place = Path(sys.argv[1])
    if len(sys.argv) == 3:
        state = around.resume(sys.argv[2], return_state=True)
    else:
        graph = Graph.from_json((place / "graph.json").read_text())
        state = around(graph, str(place), return_state=True)
    # Later Ray ends them with their workers.
    for child in read_log(place).children:
        if is_alive(child):
            note(str(place), "left", child)
    print(state.name, state.message)  # noqa: T201 - for whoever looks at a story that failed
    sys.exit(not state.is_completed())
