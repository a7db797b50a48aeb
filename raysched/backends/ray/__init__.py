"""Units as Ray calls; the only place that imports ray.

Nothing is imported here: a worker needs `remote` alone, and loads it before its first unit.
"""
