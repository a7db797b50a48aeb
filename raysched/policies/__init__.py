"""Pure decisions, one file each: (options, history, now) -> decision."""
