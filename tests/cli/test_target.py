import subprocess
import sys
from pathlib import Path

import pytest

from raysched.cli.target import load_target
from raysched.define.targets import target_of
from raysched.errors import TargetError
from raysched.graph.payload import dumps

pytestmark = pytest.mark.usefixtures("own_imports", "here")

ONE = "from raysched import flow, task\n@flow\ndef {0}(): return 7\n@task\ndef work(): return 7\n"


def write(path: str, text: str = ONE.format("main")) -> Path:
    file = Path(path).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


class TestFiles:
    def test_only_flow_is_found_and_siblings_are_imported(self, here: Path) -> None:
        target = load_target("sums.py")
        assert target.flow.name == "adding"
        assert target.text == f"{here}/sums.py:adding"
        assert target.code_path == here
        assert target.flow.fn.__module__ == "sums"

    def test_flow_is_found_by_name(self) -> None:
        write("two_flows.py", ONE.format("first") + ONE.format("second"))
        assert load_target("two_flows.py:second").flow.name == "second"

    def test_flow_of_the_file_wins_over_imported_ones(self) -> None:
        write("children.py", ONE.format("child"))
        write("parents.py", "from children import child\n" + ONE.format("parent"))
        assert load_target("parents.py").flow.name == "parent"

    def test_imported_flow_is_found_if_there_is_no_other(self) -> None:
        write("inner.py", ONE.format("child"))
        write("outer.py", "from inner import child\n")
        assert load_target("outer.py").flow.name == "child"

    def test_directory_elsewhere(self, here: Path) -> None:
        file = write("deep/er/nested_flow.py", "import nested_help\n" + ONE.format("nested"))
        write("deep/er/nested_help.py", "")
        assert load_target("deep/er/nested_flow.py").code_path == file.parent
        assert file.parent != here

    @pytest.mark.parametrize("name", ["platform", "my.flow", "__main__"])
    def test_file_named_as_another_module_travels_by_value(self, name: str) -> None:
        """Another process unpickles its functions, and the other module stays what it is."""
        write(f"strange/{name}.py", "import strange_help\n" + ONE.format("main"))
        write("strange/strange_help.py", "")
        before = sys.modules.get(name)
        target = load_target(f"strange/{name}.py")
        assert sys.modules.get(name) is before
        probe = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())())"
        done = subprocess.run(
            [sys.executable, "-c", probe],
            input=dumps(target.flow.fn),
            capture_output=True,
            check=True,
            cwd="/",
        )
        assert done.stdout == b"7\n"


class TestModules:
    def test_module_of_a_package(self, here: Path) -> None:
        write("shop/__init__.py", "")
        write("shop/helpers.py", "")
        write("shop/flows.py", "from . import helpers\n" + ONE.format("sale"))
        target = load_target("shop.flows:sale")
        assert target.text == f"{here}/shop.flows:sale"
        assert target.code_path == here
        assert target.flow.fn.__module__ == "shop.flows"

    @pytest.mark.usefixtures("own_imports")
    def test_a_kept_target_is_found_from_another_directory(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write("mart/__init__.py", "")
        write("mart/helpers.py", "")
        write("mart/flows.py", "from . import helpers\n" + ONE.format("sale"))
        monkeypatch.chdir("/")
        target = load_target(f"{here}/mart.flows:sale")
        assert (target.text, target.code_path) == (f"{here}/mart.flows:sale", here)
        assert target_of(target.flow.fn) == target.text

    def test_flow_of_a_class(self) -> None:
        write("classes.py", "from raysched import flow\nclass A:\n  @flow\n  def go(): return 1\n")
        assert load_target("classes:A.go").flow.fn.__qualname__ == "A.go"


class TestRefusals:
    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("missing.py", "there is no file"),
            ("missing.py:main", "there is no file"),
            ("nowhere/module:main", "there is no module 'module' in .*/nowhere"),
            ("nowhere.module:main", "there is no module 'nowhere.module'"),
            ("sums.deeper:main", "there is no module 'sums.deeper'"),
            ("not a module:main", "there is no module 'not a module'"),
            ("my-flow", r"did you mean my-flow\.py\?"),
            ("", "there is no module ''"),
            ("none.py", "has no flow: put @flow above"),
            ("many.py", r"has 2 flows, name one of them:\n.*many\.py:first\n.*many\.py:second"),
            ("many.py:frist", r"has no 'frist'; did you mean first\?"),
            ("many.py:xyz", "has no 'xyz'; flows there: first, second"),
            ("none.py:xyz", "there is no flow at all"),
            ("many.py:work", "is a task, not a flow: put @flow above"),
            ("many.py:flow", "is of type function, not a flow"),
        ],
    )
    def test_names_the_thing_and_the_way_out(self, target: str, message: str) -> None:
        write("my-flow.py")
        write("none.py", "x = 1\n")
        write("many.py", ONE.format("first") + ONE.format("second"))
        with pytest.raises(TargetError, match=message):
            load_target(target)

    @pytest.mark.parametrize("target", ["broken.py", "broken:main"])
    def test_import_that_raises_shows_the_users_traceback(self, target: str) -> None:
        write("broken.py", "def load():\n    return 1 / 0\nload()\n")
        with pytest.raises(TargetError) as caught:
            load_target(target)
        text = str(caught.value)
        assert "line 3, in <module>" in text
        assert "line 2, in load" in text
        assert text.endswith("ZeroDivisionError: division by zero")
        assert "importlib" not in text

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("def (:\n", "SyntaxError"),
            ("import not_there_at_all\n", "No module named 'not_there_at_all'"),
            ("raise SystemExit(3)\n", "SystemExit: 3"),
            ("from . import x\n", "TARGET package.module:flow"),
            ("from raysched import task\ntask(retires=3)(print)\n", "retires"),
        ],
    )
    def test_import_that_cannot_work(self, source: str, message: str) -> None:
        write("cannot.py", source)
        with pytest.raises(TargetError, match=message):
            load_target("cannot.py")
