"""The state machine: what happened goes in, what shall be done comes out."""
