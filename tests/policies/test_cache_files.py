"""The content of files as a part of keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.cached import CACHED, COMPLETED, hits, states
from raysched import (
    FILES,
    INPUTS,
    StateType,
    flow,
    task,
)


@pytest.mark.usefixtures("here")
class TestFiles:
    def test_content_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "data.csv"
        path.write_text("a")
        assert hits(INPUTS + FILES, (path,), (path,)) == [False, True]

        @task(cache_policy=INPUTS + FILES)
        def size(paths: dict[str, list[Path]]) -> str:
            return "".join(each.read_text() for each in paths["all"])

        @flow
        def run() -> str:
            return size({"all": [path]})

        assert run() == run() == "a"
        path.write_text("b")
        assert run() == "b"

    def test_a_path_that_a_task_returns_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "made"

        @task
        def make(text: str) -> Path:
            path.write_text(text)
            return path

        @task(cache_policy=INPUTS + FILES)
        def read(file: Path) -> str:
            return file.read_text()

        @flow
        def run(text: str) -> str:
            return read.submit(make.submit(text)).result()

        @flow
        def run_map(text: str) -> list[str]:
            return read.map(make.map([text])).result()

        assert [run("1"), run("1"), run("2")] == ["1", "1", "2"]
        assert [run_map("3"), run_map("4")] == [["3"], ["4"]]

    def test_directories_count_by_all_that_is_in_them(self, tmp_path: Path) -> None:
        def state() -> bool:
            return hits(FILES, (tmp_path / "tree",))[0]

        @task(cache_policy=FILES)
        def f(tree: Path) -> int:
            return 1

        @flow
        def is_hit() -> bool:
            return states(f.submit(tmp_path / "tree")) == [CACHED]

        (tmp_path / "tree" / "sub").mkdir(parents=True)
        (tmp_path / "tree" / "sub" / "a").write_text("1")
        assert [is_hit(), is_hit()] == [False, True]
        (tmp_path / "tree" / "sub" / "a").write_text("2")
        assert [is_hit(), is_hit()] == [False, True]
        (tmp_path / "tree" / "sub" / "a").rename(tmp_path / "tree" / "b")
        assert [is_hit(), is_hit()] == [False, True]
        (tmp_path / "tree" / "link").symlink_to("b")
        assert [is_hit(), is_hit()] == [False, True]
        (tmp_path / "tree" / "link").unlink()
        assert is_hit()

    def test_what_is_missing_counts_as_missing(self, tmp_path: Path) -> None:
        @task(cache_policy=INPUTS + FILES - "out")
        def convert(source: Path, out: Path) -> None:
            out.write_text(source.read_text())

        @task(cache_policy=FILES)
        def size(path: Path) -> int:
            return path.stat().st_size if path.exists() else -1

        source, out = tmp_path / "in", tmp_path / "out"
        source.write_text("1")

        @flow
        def run() -> tuple[StateType, int]:
            done = states(convert.submit(source, out))
            return done[0], size(tmp_path / "later")

        assert run() == (COMPLETED, -1)
        (tmp_path / "later").write_text("xx")
        # It has come to be there, but does not count.
        assert run() == (CACHED, 2)

    def test_the_path_itself_need_not_count(self, tmp_path: Path) -> None:
        @task(cache_policy=INPUTS - "path" + FILES)
        def read(path: Path) -> str:
            return path.read_text()

        @flow
        def is_hit(name: str) -> bool:
            (tmp_path / name).write_text("same")
            return states(read.submit(tmp_path / name)) == [CACHED]

        assert [is_hit("a"), is_hit("b")] == [False, True]
