"""From committed rows to spans, the same for a run that goes on and for one that is long over."""
