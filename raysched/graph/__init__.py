"""Groups and edges: building, checking and drawing the graph of a flow run."""
