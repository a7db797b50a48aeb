"""Units as Ray calls; the only place that imports ray."""
