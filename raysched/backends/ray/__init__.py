"""Units as Ray calls; the only place that imports ray."""

from raysched.backends.ray.backend import RayBackend
from raysched.backends.ray.options import validate_ray_options

__all__ = ["RayBackend", "validate_ray_options"]
