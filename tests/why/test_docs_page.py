"""docs/why.md says what really happens."""

import pytest

from why.docs_page import PAGE, PARTS, written


@pytest.mark.parametrize("name", PARTS)
def test_page_is_up_to_date(name: str) -> None:
    """If it is not: `PYTHONPATH=tests python tests/why/docs_page.py` writes it."""
    assert PAGE.read_text("utf-8") == written(name)
