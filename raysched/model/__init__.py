"""The shared words: ids, states, events, commands, options, rows. No logic and no I/O."""
