"""What a run starts from, by name."""

from __future__ import annotations

from dsdistill.config.initial_names import is_set_file


def test_words_are_no_paths() -> None:
    assert not any(map(is_set_file, ("real", "noise", "patches", "kmeans")))
    assert all(map(is_set_file, ("set.h5", "/home/anna/set", "~/set", "sets/dm.hdf5")))
