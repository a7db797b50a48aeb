"""The pure state machine of one flow run: `advance(run, event, now)` returns commands.

No clock, no threads, no Ray, no database and no user code. Everything that it knows is in the
`Run` that it is given; everything that shall happen is in the commands that it returns.
"""

from raysched.tracker.machine import advance
from raysched.tracker.outcome import Verdict, verdict
from raysched.tracker.run import Run

__all__ = ["Run", "Verdict", "advance", "verdict"]
