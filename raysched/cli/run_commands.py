"""The commands that run flows, with their options and help."""

import os
from typing import Annotated, Literal, TypeAlias

import typer

from raysched.cli.options import (
    JsonOption,
    ParamOption,
    ParamsJsonOption,
    RunArgument,
    TargetArgument,
    examples,
)
from raysched.errors import UsageError

RUN_EXAMPLES = examples(
    "raysched run flow.py",
    "raysched run flow.py:nightly --param day=2026-11-20 --param limit=10",
    "raysched run reports.billing:monthly --params-json '{\"customers\": [1, 2]}'",
    "raysched run flow.py --backend inline",
    "raysched run flow.py --key nightly-2026-11-20 --supervise",
)
RESUME_EXAMPLES = examples(
    "raysched resume last",
    "raysched resume 3f9c --dry-run",
    "raysched resume 3f9c moved/flow.py:nightly --rerun-changed",
    "raysched resume --all-lost",
)
RERUN_EXAMPLES = examples(
    "raysched rerun last",
    "raysched rerun 3f9c --from transform --dry-run",
    "raysched rerun 3f9c --from 'load[17]' --param limit=20",
)


def _set_trace(wanted: bool) -> bool:
    if wanted:
        # For this process and those that it starts, as with --supervise and --all-lost.
        os.environ["RAYSCHED_TRACE"] = "1"
    return wanted


AddressOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        show_default=False,
        help="Ray cluster, such as auto or 10.0.0.5:6379; by default that of RAYSCHED_ADDRESS "
        "or RAY_ADDRESS, else the one of raysched up, else one of its own on this machine, "
        "as with local.",
    ),
]
BackendOption: TypeAlias = Annotated[
    Literal["ray", "inline"] | None,
    typer.Option(
        show_default=False,
        help="inline runs everything in this process, without Ray: for tests and debugging.",
    ),
]
MaxParallelOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        show_default=False,
        help="At most so many task runs at once, instead of the flow's own max_parallel.",
    ),
]
TraceOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--trace",
        callback=_set_trace,
        help="Trace it: send spans to a collector on this machine, port 4318, unless "
        "OTEL_EXPORTER_OTLP_ENDPOINT or raysched jaeger says where to, which traces every run.",
    ),
]
WhereArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="[TARGET]",
        show_default=False,
        help="Where the flow is now, as in raysched run; by default where it was.",
    ),
]
ChangedOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--rerun-changed", help="Run again what completed with code that has changed since."
    ),
]
YesOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--yes",
        "-y",
        help="Let task runs that are declared as idempotent=False run again, although they may "
        "have run.",
    ),
]


def run(
    target: TargetArgument,
    *,
    param: ParamOption = None,
    params_json: ParamsJsonOption = None,
    key: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            show_default=False,
            help="Run it once only: where a run with this key is there, nothing runs, and that one "
            "is shown.",
        ),
    ] = "",
    supervise: Annotated[
        bool,
        typer.Option(
            "--supervise",
            help="Run it in another process, and go on with the run whenever that one has died.",
        ),
    ] = False,
    max_resumes: Annotated[
        int, typer.Option(min=0, metavar="N", help="How often --supervise does so at most.")
    ] = 10,
    address: AddressOption = None,
    backend: BackendOption = None,
    max_parallel: MaxParallelOption = None,
    trace: TraceOption = False,  # noqa: ARG001 - its callback acts
    json: JsonOption = False,
    run_id: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Run a flow, showing live what it does.

    The exit code is 0 only when the flow completed.
    Ctrl-C cancels the run, so that tasks may clean up; a second one stops at once.
    """
    from raysched.cli.run import Order, run_target
    from raysched.cli.running import Options

    options = Options(address, backend, max_parallel, json)
    order = Order(target, tuple(param or ()), params_json, options, key, run_id)
    if supervise:
        from raysched.cli.supervise import supervise as keep_running

        raise typer.Exit(keep_running(order, max_resumes))
    raise typer.Exit(run_target(order))


def resume(
    run: RunArgument = "",
    target: WhereArgument = "",
    *,
    all_lost: Annotated[
        bool,
        typer.Option(
            "--all-lost", help="Go on with every run whose process has died, one after the other."
        ),
    ] = False,
    rerun_changed: ChangedOption = False,
    yes: YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what is reused and what would run.")
    ] = False,
    address: AddressOption = None,
    backend: BackendOption = None,
    max_parallel: MaxParallelOption = None,
    trace: TraceOption = False,  # noqa: ARG001 - its callback acts
    json: JsonOption = False,
) -> None:
    """Go on with a run that failed, was stopped, or whose process has died.

    The flow function runs again in the same run, with its parameters. Each task run that completed
    answers the equal call, the rest goes on: mend the code of what failed, and resume.
    The exit code is 0 only when the flow completed.
    """
    from raysched.cli.resume import Choices, resume_all_lost, resume_run, show_stock
    from raysched.cli.running import Options

    if all_lost == bool(run):
        raise UsageError("give a RUN, such as last, or --all-lost; see raysched resume --help")
    choices = Choices(target, Options(address, backend, max_parallel, json), rerun_changed, yes)
    if all_lost:
        if dry_run or json:
            raise UsageError(
                "--all-lost: goes on with each run as raysched resume RUN does; leave --dry-run "
                "and --json out"
            )
        raise typer.Exit(resume_all_lost(choices))
    raise typer.Exit(show_stock(run, as_json=json) if dry_run else resume_run(run, choices))


def rerun(
    run: RunArgument,
    target: WhereArgument = "",
    *,
    failed: Annotated[
        bool,
        typer.Option(
            "--failed", help="Run what did not complete; what completed is reused. The default."
        ),
    ] = False,
    again: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="TASK|KEY",
            show_default=False,
            help="Run this task, or task run such as load[17], and everything that needs it, too. "
            "May be given several times.",
        ),
    ] = None,
    param: ParamOption = None,
    params_json: ParamsJsonOption = None,
    rerun_changed: ChangedOption = False,
    yes: YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would run and what is reused.")
    ] = False,
    address: AddressOption = None,
    backend: BackendOption = None,
    max_parallel: MaxParallelOption = None,
    trace: TraceOption = False,  # noqa: ARG001 - its callback acts
    json: JsonOption = False,
) -> None:
    """Begin a new run that reuses the results of an earlier one.

    What did not complete there runs, and what depends on that, on a changed parameter or on what
    --from names. The earlier run stays as it is.
    The exit code is 0 only when the flow completed.
    """
    from raysched.cli.resume import Changes, Choices, rerun_run
    from raysched.cli.running import Options

    choices = Choices(target, Options(address, backend, max_parallel, json), rerun_changed, yes)
    changes = Changes(tuple(param or ()), params_json, tuple(again or ()), only_failed=failed)
    if dry_run:
        from raysched.cli.rerun_plan import show_rerun

        raise typer.Exit(show_rerun(run, choices, changes))
    raise typer.Exit(rerun_run(run, choices, changes))
