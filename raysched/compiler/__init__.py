"""From graph to plan: an ordered list of small pure passes."""
