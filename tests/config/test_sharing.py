"""What is passed on names files and data without their folders."""

from __future__ import annotations

import pytest

from dsdistill.config.sharing import (
    file_name,
    shared,
    toml_without_folders,
    values_without_folders,
    without_folders,
)

RUN = {
    "method": "/home/anna/mine.toml",
    "protocol": "dm",
    "network": "/home/anna/net.py:MyNet",
    "init": "/home/anna/set.h5",
    "ipc": 1,
    "data": {"name": "folder:/home/anna/pets", "root": "/home/anna", "download": True, "size": 8},
    "engine": {"kind": "distribution", "supply": {"kind": "pool", "path": "/home/anna/pool.h5"}},
}
SHARED = {
    "method": "mine.toml",
    "protocol": "dm",
    "network": "net.py:MyNet",
    "init": "set.h5",
    "ipc": 1,
    "data": {"name": "folder:pets", "size": 8},
    "engine": {"kind": "distribution", "supply": {"kind": "pool", "path": "pool.h5"}},
}


def test_names_lose_their_folders() -> None:
    assert [file_name(name) for name in ("dm", "a/b.toml")] == ["dm", "b.toml"]


def test_options_are_shared_without_folders() -> None:
    assert shared(RUN) == SHARED
    assert shared(SHARED) == SHARED
    assert shared({}) == {}
    assert shared({"recipe": "/a/b.toml", "data": {}}) == {"recipe": "b.toml", "data": {}}
    assert "data" not in shared({"ipc": 1})


def test_configs_of_earlier_versions_are_told_without_folders() -> None:
    text = 'method = "dm"\n\n[data]\nname = "folder:/srv/anna/pets"\nroot = "/srv/anna"\n'
    assert toml_without_folders(text) == 'method = "dm"\n\n[data]\nname = "folder:pets"\n'
    assert toml_without_folders("data = 3\n") == "data = 3\n"
    assert toml_without_folders("no TOML: /srv/anna/x") == "no TOML: x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cannot read /home/anna/a b/c.h5", "cannot read ~/a b/c.h5"),
        ("/Users/anna is full", "~ is full"),
        ("no such file: /data/anna/x.npz; write npz:PATH", "no such file: x.npz; write npz:PATH"),
        ("in 'folder:/data/anna/pets'", "in 'folder:pets'"),
        ("digits/dm-ipc1-seed0/set.h5 at 3/s and/or 1/2", "digits/dm-ipc1-seed0/set.h5 at 3/s and/or 1/2"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_sentences_lose_folders_and_users(text: str, said: str) -> None:
    assert without_folders(text) == said


def test_the_own_home_is_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/people/anna smith")
    assert without_folders("no folder /srv/people/anna smith/pets here") == "no folder ~/pets here"
    assert values_without_folders("/srv/people/anna smith") == "~"


def test_every_text_of_a_table_is_told() -> None:
    table = {"a": ["folder:/srv/anna/my pets", "hf:/srv/pets", "--root", "/srv/my data"], "b": {"c": 1.5}}
    assert values_without_folders(table) == {
        "a": ["folder:my pets", "hf:./pets", "--root", "my data"],
        "b": {"c": 1.5},
    }
