"""Plugs: names that are added, loaded from files, and left alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dsdistill import plugs
from dsdistill.errors import UserError
from dsdistill.plugs import Registry, load, load_file
from tests.helpers.packages import install

GROUP = "dsdistill.things"


def registry() -> Registry[object]:
    return Registry("thing", GROUP, {"own": 1})


def test_what_is_added_is_found_and_may_be_defined_anew() -> None:
    things, before = registry(), Registry.generation

    def define() -> object:
        class Thing:
            pass

        return Thing

    first, again = define(), define()
    things.add("mine", first)
    things.add("mine", again)
    assert things.find("mine") is again
    assert things.names() == ["mine", "own"]
    assert Registry.generation == before + 2
    assert things.find("other") is None


def test_a_name_that_is_taken_is_refused() -> None:
    things = registry()
    things.add("mine", len)
    for name in ("mine", "own"):
        with pytest.raises(UserError, match=f"there is another thing named '{name}'; choose another name"):
            things.add(name, print)
    things.add("mine", print, replace=True)
    assert things.find("mine") is print


def test_an_installed_package_adds_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "thing = 'loaded'", GROUP, "new = addition:thing\nold = addition:gone")
    things = registry()
    assert things.names() == ["new", "old", "own"]
    assert dict(things.added())["new"] == "of the installed package addition"
    assert "addition" not in sys.modules
    assert things.find("new") == "loaded"
    with pytest.raises(
        UserError, match=r"the thing 'old' of an installed package \(addition:gone\) cannot be"
    ):
        things.find("old")


def test_a_file_runs_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text("thing = []")
    assert load(f"{file}:thing", "thing") is load(f"{file}:thing", "thing")
    file.write_text("thing = 2")
    assert load(f"{file}:thing", "thing") == 2
    monkeypatch.chdir(tmp_path)
    assert load_file("mine.py") is load_file(file)


def test_modules_beside_a_file_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_it.py").write_text("value = 7")
    (tmp_path / "mine.py").write_text("from beside_it import value")
    before = list(sys.path)
    assert load(f"{tmp_path / 'mine.py'}:value", "thing") == 7
    assert sys.path == before
    monkeypatch.delitem(sys.modules, "beside_it")


def test_a_folder_that_was_on_the_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("value = 7")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.path)
    load_file(tmp_path / "mine.py")
    assert sys.path == before


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def broken(:", "mine.py cannot be loaded: SyntaxError: "),
        ("raise ValueError('first line\\nsecond')", "mine.py cannot be loaded: ValueError: first line$"),
        ("import sys\nsys.exit(3)", "mine.py cannot be loaded: SystemExit: 3"),
        ("import nowhere_at_all", "mine.py cannot be loaded: ModuleNotFoundError: "),
        ("class Things: pass", "unknown thing in .*mine.py: 'Thing'; did you mean 'Things'?"),
        ("import os", "mine.py defines no thing 'Thing', nor any other"),
        (None, "cannot read .*mine.py: "),
    ],
)
def test_files_that_cannot_be_loaded(tmp_path: Path, code: str | None, said: str) -> None:
    file = tmp_path / "mine.py"
    if code is not None:
        file.write_text(code)
    with pytest.raises(UserError, match=said) as caught:
        load(f"{file}:Thing", "thing")
    assert "\n" not in str(caught.value)


def test_a_file_that_fails_is_run_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import os\nif not os.path.exists(__file__ + '.ok'):\n    raise ValueError")
    with pytest.raises(UserError, match=r"cannot be loaded: ValueError$"):
        load_file(file)
    (tmp_path / "mine.py.ok").touch()
    load_file(file)


def test_modules_that_cannot_be_imported() -> None:
    with pytest.raises(
        UserError, match=re.escape("thing 'no.such:Thing': there is no module 'no.such'; install")
    ):
        load("no.such:Thing", "thing")
    with pytest.raises(UserError, match=r"unknown thing in dsdistill.text: 'plane'; did you mean 'plain'"):
        load("dsdistill.text:plane", "thing")
    assert load("dsdistill.text:plain", "thing") is sys.modules["dsdistill.text"].plain


def test_references_name_files_with_and_without_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert plugs.absolute_reference("a/net.py:Net") == str(tmp_path / "a" / "net.py:Net")
    assert plugs.absolute_reference("~/net.py:Net") == str(Path.home() / "net.py:Net")
    for name in ("convnet3", "package.net:Net", "torchvision:resnet18"):
        assert plugs.absolute_reference(name) == plugs.without_folder(name) == name


def test_what_is_registered_can_be_taken_back() -> None:
    things = registry()
    with things.restored():
        things.add("mine", 2)
    assert things.names() == ["own"]
