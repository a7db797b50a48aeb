"""The page of `raysched why --html`: whole, alone, and with no text taken for markup."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from raysched import flow, task
from raysched.cli.markup import VOID, Markup, element, join
from why import stories
from why.around import run, told

NASTY = "<script>alert('x')</script> \" & \x1b[2J \ud800 </style>"


class Reader(HTMLParser):
    """Reads a page; complains of elements that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


@task(owner=NASTY, runbook="javascript:alert(1)")
def nasty(text: str) -> None:
    raise ValueError(text)


@task(task_run_name=NASTY.replace("{", "{{"))
def named(before: None) -> None:
    """Never runs."""


@flow
def nasties() -> None:
    _ = named.submit(nasty.submit(NASTY))


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def page(home: Path) -> Reader:
    run(stories.several)
    assert told("last", "--html", str(home / "why.html")) == f"{home / 'why.html'} written\n"
    return read(home / "why.html")


class TestPage:
    def test_says_what_the_terminal_says(self, page: Reader) -> None:
        for text in ("4 root failures of 3 kinds", "RuntimeError: cannot read <x>", "3 not run"):
            assert text in page.text
        assert 'return {"a": "b"}[path]' in page.text

    def test_needs_nothing_from_elsewhere_and_no_script(self, page: Reader) -> None:
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        assert not any(name in attrs for _, attrs in page.elements for name in ("src", "onclick"))

    def test_has_a_picture_of_the_part_of_the_graph(self, page: Reader) -> None:
        assert [tag for tag, _ in page.elements].count("rect") == 5
        assert [attrs.get("class") for tag, attrs in page.elements if tag == "g"] == [
            "failed",
            "followed",
            "failed",
            "followed",
            "failed",
        ]

    def test_opens_the_first_causes(self, page: Reader) -> None:
        causes = [attrs for _, attrs in page.elements if attrs.get("class") == "cause"]
        assert ["open" in attrs for attrs in causes] == [True, True, True]

    @pytest.mark.usefixtures("page")
    def test_suits_light_and_dark(self, home: Path) -> None:
        assert "prefers-color-scheme: dark" in (home / "why.html").read_text(encoding="utf-8")

    def test_links_a_runbook(self, home: Path) -> None:
        run(stories.nightly)
        told("last", "--html", str(home / "why.html"))
        links = [attrs for tag, attrs in read(home / "why.html").elements if tag == "a"]
        assert links == [{"href": "https://wiki.example/load", "rel": "noreferrer"}]


class TestEscapes:
    def test_nothing_of_a_user_is_markup(self, home: Path) -> None:
        run(nasties)
        told("last", "--html", str(home / "why.html"))
        reader = read(home / "why.html")
        tags = [tag for tag, _ in reader.elements]
        assert "script" not in tags
        # Neither is a link made of another scheme than that of the web.
        assert "a" not in tags
        assert "<script>alert('x')</script>" in reader.text
        assert "\x1b" not in reader.text

    def test_nothing_of_a_user_commands_the_terminal(self) -> None:
        run(nasties)
        text = told("last")
        assert "\x1b[2J" not in text
        assert "\\x1b[2J" in text

    def test_text_is_escaped_where_it_is_put_in(self) -> None:
        assert element("p", "a < b", class_='"') == '<p class="&quot;">a &lt; b</p>'
        assert join("<", Markup("<br/>"), None, "\x00") == "&lt;<br/>\N{REPLACEMENT CHARACTER}"


class TestUsage:
    def test_of_a_place_that_cannot_be_written(self, home: Path) -> None:
        run(stories.fine)
        with pytest.raises(AssertionError, match=r"--html .*: Is a directory"):
            told("last", "--html", str(home))

    def test_of_a_page_of_what_waits(self) -> None:
        run(stories.fine)
        with pytest.raises(AssertionError, match="leave --waiting out"):
            told("last", "--waiting", "--html", "why.html")
