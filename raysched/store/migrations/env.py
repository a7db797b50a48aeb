"""Alembic's entry: runs the revisions on the connection, and in the transaction, of the store."""

from alembic import context

from raysched.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite changes a table by copying it.
    render_as_batch=True,
)
context.run_migrations()
