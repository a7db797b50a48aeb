"""Workflows of plain Python functions on Ray."""
