"""Where values live, and how they become bytes."""
