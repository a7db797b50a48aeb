"""The tables. A change here needs a new revision in `migrations/versions/`; a test compares them.

Times are nanoseconds since the epoch, 0 where there is none. `grp` and `idx` are the model's
`group` and `index`, and `asked_by` its `by`: reserved words of SQL.
The `error_` columns are an `ErrorInfo`; `error_type` is NULL where there is none.
"""

from sqlalchemy import BigInteger, Index, MetaData, Table, func, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names of constraints, so that a later revision can alter them."""


class _Base(SQLModel, registry=registry(metadata=MetaData(naming_convention=_NAMES))):
    """Metadata of our own, so that tables of the user's SQLModel classes do not get in here."""

    # Nobody makes instances, and their validators would take half of this module's import.
    model_config = {"defer_build": True}


class Driver(_Base, table=True):
    """A process that owns flow runs. It lives as long as it holds the lock of its `id`."""

    __tablename__ = "driver"

    number: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)
    host: str
    pid: int
    started: int = Field(sa_type=BigInteger)


class FlowRun(_Base, table=True):
    """A flow run."""

    __tablename__ = "flow_run"
    # Only those of which there is something left to do are in it.
    __table_args__ = (
        Index(
            "ix_flow_run_untraced",
            "untraced",
            sqlite_where=text("untraced IS NOT NULL"),
            postgresql_where=text("untraced IS NOT NULL"),
        ),
    )

    number: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)
    flow: str
    name: str
    state: int
    message: str
    started: int = Field(sa_type=BigInteger)
    ended: int = Field(sa_type=BigInteger)
    parameters: str
    pickled_parameters: bytes | None
    tags: str
    """JSON list."""
    parent: str = Field(index=True)
    parent_key: str
    target: str
    backend: str
    versions: str
    epoch: int
    """Raised by each takeover; a commit with another one is refused."""
    attempts: int
    driver: int = Field(foreign_key="driver.number")
    counts: str | None = None
    """JSON `{state code: task runs}`, written with the terminal state: history lists quickly."""
    error_type: str | None = None
    error_message: str = ""
    error_traceback: str = ""
    error_class: str = ""
    error_kind: str = ""
    error_exception: bytes | None = None
    error_fingerprint: str | None = None
    error_evidence: str | None = None
    """JSON object."""
    late: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    """Reports of attempts that were over already, and were refused."""
    key: str | None = Field(default=None, index=True, unique=True)
    """What makes the run the only one of its kind."""
    identity: bytes | None = None
    """Of a subflow, what tells its call from others of the same parent."""
    result: bytes | None = None
    """Envelope of what the flow function returned, where that is kept."""
    rerun_of: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    removed: bool | None = None
    """Whether the run is being removed: then nobody sees it any more."""
    executions: str = Field(default="[]", sa_column_kwargs={"server_default": text("'[]'")})
    """JSON list of `[started, traceparent]`, then `tracestate` and attributes where there are
    any."""
    traced: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    """Executions whose spans have all been delivered, counted from the first."""
    untraced: bool | None = None
    """Whether it has a sampled execution after those; NULL if not."""


class TaskGroup(_Base, table=True):
    """A group of task runs."""

    __tablename__ = "task_group"

    run: int = Field(primary_key=True, foreign_key="flow_run.number")
    id: int = Field(primary_key=True)
    task: str
    first: int
    size: int
    mapped: bool
    edges: str
    tags: str
    options: str
    parent_key: str
    plan: str | None
    units: int | None
    """Counted at the end of the run, for groups of several task runs."""
    source: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    created: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": text("0")}
    )
    identities: bytes | None = None
    """Digests of all members. The last column, as a long value in SQLite has to be."""


class TaskRun(_Base, table=True):
    """A task run. Columns that may be NULL are left as they were by rows without a value for them.

    No rowid, no secondary index and no foreign key: an uneventful row costs about 60 bytes.
    """

    __tablename__ = "task_run"
    __table_args__ = {"sqlite_with_rowid": False}

    run: int = Field(primary_key=True)
    grp: int = Field(primary_key=True)
    idx: int = Field(primary_key=True)
    state: int
    attempts: int
    place: int | None
    """Where the last attempt ran. Here it takes what PostgreSQL leaves empty before `started`."""
    started: int = Field(sa_type=BigInteger)
    duration: int | None = Field(sa_type=BigInteger)
    """`ended - started`, four bytes shorter than `ended`; NULL while open."""
    size: int | None = Field(sa_type=BigInteger)
    handled: bool | None
    name: str | None
    roots: str | None
    """JSON list of keys."""
    value: bytes | None
    reason: str | None
    rolled_back: bool | None
    location: str | None
    """Where the result storage has the value."""


class Attempt(_Base, table=True):
    """An attempt that failed, or that followed one that did."""

    __tablename__ = "attempt"
    # Covers all that is asked of a fingerprint over all runs; attempts without one are not in it.
    __table_args__ = (
        Index(
            "ix_attempt_error_fingerprint",
            "error_fingerprint",
            "started",
            "run",
            sqlite_where=text("error_fingerprint IS NOT NULL"),
            postgresql_where=text("error_fingerprint IS NOT NULL"),
        ),
    )

    run: int = Field(primary_key=True)
    grp: int = Field(primary_key=True)
    idx: int = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    state: int
    started: int = Field(sa_type=BigInteger)
    ended: int = Field(sa_type=BigInteger)
    stop_reason: str
    error_type: str | None = None
    error_message: str = ""
    error_traceback: str = ""
    error_class: str = ""
    error_kind: str = ""
    error_exception: bytes | None = None
    error_fingerprint: str | None = None
    error_evidence: str | None = None
    """JSON object."""
    place: int | None = None


class Place(_Base, table=True):
    """A worker process in which task runs of a run have run."""

    __tablename__ = "place"
    __table_args__ = {"sqlite_with_rowid": False}

    run: int = Field(primary_key=True)
    id: int = Field(primary_key=True)
    node_id: str
    worker_id: str
    pid: int
    host: str


class Event(_Base, table=True):
    """What happened to the cluster. The writer counts `id` as that of a log record."""

    __tablename__ = "event"
    __table_args__ = {"sqlite_with_rowid": False}

    run: int = Field(primary_key=True)
    id: int = Field(primary_key=True)
    kind: str
    at: int = Field(sa_type=BigInteger)
    message: str
    attributes: str
    """JSON object."""


class Log(_Base, table=True):
    """A log record. The writer counts `id` from 1 within the run, in the order of commits.

    So a follower misses none, and a batch that is committed again brings the same keys.
    """

    __tablename__ = "log"
    __table_args__ = {"sqlite_with_rowid": False}

    run: int = Field(primary_key=True)
    id: int = Field(primary_key=True)
    grp: int
    idx: int
    attempt: int
    at: int = Field(sa_type=BigInteger)
    level: int
    logger: str
    message: str


class TaskInput(_Base, table=True):
    """The pickled arguments of a task run that failed; with `idx` -1 what its group shares."""

    __tablename__ = "task_input"

    run: int = Field(primary_key=True)
    grp: int = Field(primary_key=True)
    idx: int = Field(primary_key=True)
    payload: bytes
    slots: str
    """JSON list of the places that the values of the slots came from: see `InputRow`."""


class Request(_Base, table=True):
    """What another process asks of the driver of a run; `id` counts from 1 within the run."""

    __tablename__ = "request"

    run: int = Field(primary_key=True, foreign_key="flow_run.number")
    id: int = Field(primary_key=True)
    kind: str
    asked_by: str
    at: int = Field(sa_type=BigInteger)
    keys: str
    """JSON list of keys of task runs."""


class Delivery(_Base, table=True):
    """A task run that `as_completed` gave to the flow; `id` counts from 1 within the run."""

    __tablename__ = "delivery"
    __table_args__ = {"sqlite_with_rowid": False}

    run: int = Field(primary_key=True)
    id: int = Field(primary_key=True)
    grp: int
    idx: int


class CacheEntry(_Base, table=True):
    """Which task run makes, or has made, the result of a cache key.

    With rowids: keys are random, and scatter over an index of keys alone, not over whole rows.
    """

    __tablename__ = "cache_entry"

    key: bytes = Field(primary_key=True)
    run: int = Field(index=True)
    grp: int
    idx: int
    task: str
    created: int = Field(sa_type=BigInteger)
    """When it was claimed."""
    lifetime: int = Field(sa_type=BigInteger)
    """How long the result may be used (ns from its end), 0 for ever."""
    parts: str
    """JSON object: what the key was made of."""


METADATA: MetaData = _Base.metadata


def _table(model: type[SQLModel]) -> Table:
    return METADATA.tables[str(model.__tablename__)]


DRIVER = _table(Driver)
FLOW_RUN = _table(FlowRun)
TASK_GROUP = _table(TaskGroup)
TASK_RUN = _table(TaskRun)
ATTEMPT = _table(Attempt)
PLACE = _table(Place)
EVENT = _table(Event)
LOG = _table(Log)
TASK_INPUT = _table(TaskInput)
REQUEST = _table(Request)
DELIVERY = _table(Delivery)
CACHE_ENTRY = _table(CacheEntry)

HAS_VALUE = func.length(TASK_RUN.c.value).is_not(None)
"""Whether a task run has a small value; SQLite reads all of it to see that it is not NULL."""

ENDED = TASK_RUN.c.started + func.coalesce(TASK_RUN.c.duration, 0)
"""When the last attempt of a task run ended; its start while it is open."""
