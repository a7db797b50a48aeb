"""What users write: flows, tasks, futures and the run context."""
