"""Durable states; the only place with SQLModel."""
