"""The words all rooms share: ids, states, events, commands, options, plan."""
