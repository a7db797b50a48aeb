"""Traces, metrics and logs for OpenTelemetry: the only room that knows it.

What is committed is observed, and exported in the background. Nothing of this room is imported,
nor OpenTelemetry, unless a run is traced or measured.
"""
