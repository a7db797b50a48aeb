"""Policies that would have helped, from one fixed table: docs/why.md shows it."""

from collections.abc import Sequence

from raysched.client.advice_case import Advice, Case, Rule
from raysched.model.values import CrashKind, FailureClass, TimeoutKind

TRANSIENT = (
    "BrokenPipeError",
    "ClientConnectionError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionAbortedError",
    "ConnectionError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "IncompleteRead",
    "InterfaceError",
    "OperationalError",
    "ReadTimeout",
    "RemoteDisconnected",
    "ServerDisconnectedError",
    "Timeout",
    "TimeoutError",
    "URLError",
    "gaierror",
)
"""Classes of exceptions, by their last name, that often go away by themselves: of the network in
Python, urllib, requests, httpx and aiohttp, and of databases by the DB-API."""

PERSISTENT_WORDS = ("no such table", "no such column", "syntax error", "does not exist")
"""In messages of databases: what no retry helps against (`OperationalError` says both)."""

BUGS = (
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "ImportError",
    "IndexError",
    "KeyError",
    "LookupError",
    "ModuleNotFoundError",
    "NameError",
    "NotImplementedError",
    "RecursionError",
    "SyntaxError",
    "TypeError",
    "UnboundLocalError",
    "ValueError",
    "ZeroDivisionError",
)
"""Classes that come again with the same input, as a rule."""

NO_SPACE = "No space left on device"
"""In the message of an `OSError` with ENOSPC."""

DECIDERS = ("retry_on", "retry_condition_fn")
"""Options by which the user decides what is worth a retry."""

MANY_ALIKE = 20
"""Equal failures of one cause from which on stopping early is advised."""


NATIVE_SIGNALS = frozenset({"SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL"})
"""Signals by which native code ends its own process."""


def advise(case: Case) -> tuple[Advice, ...]:
    """Return what would have helped, in the order of the table; () where nothing fixed does."""
    return tuple(
        Advice(rule.name, rule.text, ", ".join((*_lacking(rule, case), *rule.change)))
        for rule in RULES
        if rule.applies(case)
    )


def _lacking(rule: Rule, case: Case) -> Sequence[str]:
    """Return those options of a rule that the task does not have."""
    return [code for code in rule.code if not _has(case, code.partition("=")[0])]


def _has(case: Case, *names: str) -> bool:
    """Whether the task was declared with one of these options; 0 of something is one, too."""
    found = (case.options.get(name) for name in names)
    return any(value is not None and value is not False for value in found)


def _crash(case: Case, kind: CrashKind) -> bool:
    return case.failure_class is FailureClass.INFRASTRUCTURE and case.kind == kind


def _timeout(case: Case, kind: TimeoutKind) -> bool:
    return case.failure_class is FailureClass.TIMEOUT and case.kind == kind


def _user(case: Case) -> bool:
    return case.failure_class is FailureClass.USER


def _name(case: Case) -> str:
    return case.type.rpartition(".")[2]


def _is_transient(case: Case) -> bool:
    lasting = any(words in case.message for words in PERSISTENT_WORDS)
    return _user(case) and _name(case) in TRANSIENT and not lasting


def _tried_all(case: Case) -> bool:
    """Whether it was tried as often as it may; where somebody decided otherwise it was not."""
    return case.attempts > int(case.options.get("retries") or 0) > 0


RULES: Sequence[Rule] = (
    Rule(
        "transient-error",
        "a connection or a timeout of the user's code, and neither `retries` nor `retry_on`",
        lambda case: _is_transient(case) and not _has(case, "retries", *DECIDERS),
        "Such an error often goes away by itself: try again, with growing delays, and only for "
        "errors of this kind.",
        (
            "retries=3",
            "retry_delay_seconds=exponential_backoff(2)",
            "retry_jitter_factor=0.5",
            "retry_on=(ConnectionError, TimeoutError)",
        ),
    ),
    Rule(
        "transient-error-again",
        "the same, and `retries` were used up",
        lambda case: _is_transient(case) and _tried_all(case),
        "It did not go away while the retries lasted: let them last longer, or see what is wrong "
        "with the other side.",
        change=("retry_delay_seconds=exponential_backoff(10)",),
    ),
    Rule(
        "retried-bug",
        "an exception that comes again with the same input, such as `KeyError`, was tried again, "
        "and nothing decides about that (`retry_on`, `retry_condition_fn`)",
        lambda case: (
            _user(case)
            and _name(case) in BUGS
            and case.attempts > 1
            and _has(case, "retries")
            and not _has(case, *DECIDERS)
        ),
        "The same input gives the same error: say what is worth a retry, so that a bug does not "
        "cost them.",
        ("retry_on=(ConnectionError, TimeoutError)",),
    ),
    Rule(
        "many-alike",
        f"{MANY_ALIKE} or more equal failures, and neither `max_failures`, `max_same_failures` "
        "nor `min_success`",
        lambda case: (
            case.count >= MANY_ALIKE
            and not _has(case, "max_failures", "max_same_failures", "min_success")
        ),
        "One cause made them all: stop a map early, before a bug burns the rest of it.",
        ("max_failures=10",),
    ),
    Rule(
        "few-of-a-map",
        "less than a tenth of a map failed, others did not run because of that, and there is "
        "neither `min_success` nor `max_failures`",
        lambda case: (
            0 < case.count * 10 < case.group
            and case.victims > 0
            and not _has(case, "min_success", "max_failures", "max_same_failures")
        ),
        "If what follows can do without the few that failed: it gets the successes in order, with "
        "the exceptions beside them.",
        (".map(..., min_success=0.9)",),
    ),
    Rule(
        "memory-error",
        "`MemoryError` in the user's code",
        lambda case: _user(case) and _name(case) == "MemoryError",
        "Reserve what it needs, so that fewer of them run at once, or give it less at a time.",
        ('memory="4GiB"',),
    ),
    Rule(
        "disk-full",
        "`OSError` in the user's code: there is no space left",
        lambda case: _user(case) and _name(case) == "OSError" and NO_SPACE in case.message,
        "The disk that it wrote to is full: the message names the path. Free it, or write to "
        "storage that all nodes share.",
    ),
    Rule(
        "check-failed",
        "`check=` refused the result, and there is no `fallback`",
        lambda case: _user(case) and _name(case) == "CheckFailed" and not _has(case, "fallback"),
        "Where bad data may happen, say what takes the place of the value, or let what follows "
        "take the exception.",
        ("fallback=...",),
    ),
    Rule(
        "cannot-be-pickled",
        "`SerializationError`: a result cannot be pickled",
        lambda case: _user(case) and _name(case) == "SerializationError",
        "Return plain data, or make the object once per worker, where it needs no pickling.",
        ("once_per_worker(connect)",),
    ),
    Rule(
        "out-of-memory",
        "killed for memory, and no `on_oom`",
        lambda case: _crash(case, CrashKind.OUT_OF_MEMORY) and not _has(case, "on_oom"),
        "Reserve memory, and ask for more after an attempt that was killed for it.",
        ('memory="2GiB"', 'on_oom=escalate(factor=2, up_to="16GiB")'),
    ),
    Rule(
        "out-of-memory-again",
        "killed for memory in spite of `on_oom`",
        lambda case: _crash(case, CrashKind.OUT_OF_MEMORY) and _has(case, "on_oom"),
        "Even the last step was not enough: give each task run less at a time, or raise up_to, as "
        "far as a node has memory (raysched doctor shows it).",
        change=("on_oom=escalate(factor=..., up_to=...)",),
    ),
    Rule(
        "native-crash",
        "the process died by a signal of its own: `SIGSEGV`, `SIGBUS`, `SIGABRT`, `SIGFPE`, "
        "`SIGILL`",
        lambda case: _crash(case, CrashKind.WORKER_DIED) and case.signal in NATIVE_SIGNALS,
        "Native code broke: the last lines that Python wrote name the function that called it. "
        "Until it is repaired, have it run alone in its worker, so that no other is lost with it.",
        ("batch=False",),
    ),
    Rule(
        "killed",
        "the process was killed (`SIGKILL`), and Ray did not do it for memory",
        lambda case: _crash(case, CrashKind.WORKER_DIED) and case.signal == "SIGKILL",
        "Somebody killed it; often that is the system for want of memory (see its log: dmesg). "
        "Reserve as much as it takes, so that fewer of them run at once.",
        ('memory="2GiB"',),
    ),
    Rule(
        "process-ended-itself",
        "the process ended with an exit code",
        lambda case: _crash(case, CrashKind.WORKER_DIED) and case.exited,
        "Code in it ended the whole process (os._exit), with all that ran there: raise an "
        "exception instead. Where a library does it, run that in a process of its own "
        "(subprocess).",
    ),
    Rule(
        "worker-ended",
        "the worker ended for no signal and with no exit code that is known",
        lambda case: (
            _crash(case, CrashKind.WORKER_DIED)
            and not case.exited
            and case.signal not in {*NATIVE_SIGNALS, "SIGKILL"}
        ),
        "It went without a word: a kill from outside, native code that ended it, or the system "
        "for want of memory. Reserve as much as it takes, so that fewer of them run at once; "
        "where it happens by chance, more tries help.",
        ('memory="2GiB"', "crash_retries=10"),
    ),
    Rule(
        "node-died",
        "the node died",
        lambda case: _crash(case, CrashKind.NODE_DIED),
        "On nodes that may be taken away at any time, allow more crashes; they cost none of "
        "retries. Short task runs lose less.",
        ("crash_retries=10",),
    ),
    Rule(
        "out-of-disk",
        "the disk was full",
        lambda case: _crash(case, CrashKind.OUT_OF_DISK),
        "Large values spill to the disk of the node: free it, let ray.init put them elsewhere "
        "(object_spilling_directory), or write large results to files and return their paths.",
    ),
    Rule(
        "object-lost",
        "a value was lost with its node",
        lambda case: _crash(case, CrashKind.OBJECT_LOST) or _crash(case, CrashKind.OWNER_DIED),
        "It could not be computed again: let the task that makes it write it to storage and "
        "return the path, or allow more crashes.",
        ("crash_retries=10",),
    ),
    Rule(
        "runtime-env",
        "the `runtime_env` could not be set up",
        lambda case: _crash(case, CrashKind.RUNTIME_ENV),
        "No retry helps: repair the runtime_env (a package that is not there, a conda environment "
        "that the nodes do not have). The message names it.",
    ),
    Rule(
        "unschedulable",
        "no node can ever take it",
        lambda case: _crash(case, CrashKind.UNSCHEDULABLE),
        "Ask for what a node of the cluster has (raysched doctor shows it), or add such a node.",
    ),
    Rule(
        "driver-lost",
        "the driver died",
        lambda case: _crash(case, CrashKind.DRIVER_LOST),
        "The process that ran the flow was killed or its machine went away. What had completed is "
        "kept: `raysched resume` goes on with it; with `raysched run --supervise` nobody has to.",
    ),
    Rule(
        "queue-timeout",
        "waited longer than `queue_timeout_seconds`, or than `total_timeout_seconds` for its "
        "first attempt",
        lambda case: (
            _timeout(case, TimeoutKind.QUEUED)
            or (_timeout(case, TimeoutKind.TOTAL) and not case.attempts)
        ),
        "There was no room in time: ask for less, add nodes, or allow more time to wait.",
    ),
    Rule(
        "attempt-timeout",
        "longer than `timeout_seconds`, and no `retries`",
        lambda case: _timeout(case, TimeoutKind.ATTEMPT) and not _has(case, "retries"),
        "If it hangs now and then, try again; if it always takes as long, allow more time or give "
        "it less work.",
        ("retries=2",),
    ),
    Rule(
        "attempt-timeout-again",
        "longer than `timeout_seconds`, in every attempt",
        lambda case: _timeout(case, TimeoutKind.ATTEMPT) and _tried_all(case),
        "It takes as long every time: allow more time, or give it less work.",
        change=("timeout_seconds=...",),
    ),
    Rule(
        "total-timeout",
        "all attempts together took longer than `total_timeout_seconds`, and there is no "
        "`timeout_seconds`",
        lambda case: (
            _timeout(case, TimeoutKind.TOTAL)
            and case.attempts > 0
            and not _has(case, "timeout_seconds")
        ),
        "Limit single attempts as well, so that one that hangs leaves time for another.",
        ("timeout_seconds=...",),
    ),
    Rule(
        "total-timeout-again",
        "the same, in spite of `timeout_seconds`",
        lambda case: (
            _timeout(case, TimeoutKind.TOTAL)
            and case.attempts > 0
            and _has(case, "timeout_seconds")
        ),
        "All that it may try does not fit: allow more time in all, or less for each attempt and "
        "the delays between them.",
        change=("total_timeout_seconds=...",),
    ),
    Rule(
        "no-heartbeat",
        "silent for longer than `heartbeat_timeout_seconds`",
        lambda case: _timeout(case, TimeoutKind.HEARTBEAT),
        "Its process was stopped, or native code held the interpreter: allow more silence if that "
        "is how it works.",
        change=("heartbeat_timeout_seconds=...",),
    ),
)
"""The table. Conditions look at the class, the kind and the task's options, never at chance."""
