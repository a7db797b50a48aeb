"""What `raysched why` says of each story.

`PYTHONPATH=tests python tests/why/golden_texts.py` writes the texts anew; read them then.
"""

from collections.abc import Callable, Mapping

from why import stories
from why.around import golden, home, run, steady, told

TEXTS: Mapping[str, Callable[..., object]] = {
    "nightly": stories.nightly,
    "several": stories.several,
    "alike": stories.alike,
    "handled": stories.handled,
    "own": stories.own,
    "around": stories.around,
    "interrupted": stories.interrupted,
    "verdict": stories.verdict,
    "fine": stories.fine,
}


def text_of(name: str) -> str:
    """Runs a story in a home of its own and returns what is said of it."""
    with home():
        run(TEXTS[name])
        return steady(told("last"))


if __name__ == "__main__":
    for name in TEXTS:
        golden(name).write_text(text_of(name), encoding="utf-8")
