"""What is measured of flow runs, and how it is told."""
