"""The command that is named after a distillation works as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from dsdistill.cli.next_step import after_distilling
from tests.conftest import THREADS
from tests.helpers.cli import Captured, succeed

QUICK = ("--repeats", "1", "--epochs", "1", "--baselines", "")


def words_after(out: str) -> list[str]:
    (line,) = (line for line in out.splitlines() if line.startswith("next "))
    return shlex.split(line)[2:]


def distilled(capsys: Captured, output: Path, method: str, teachers: str, *more: str) -> str:
    networks = ",".join(Path(file).stem for file in teachers.split(","))
    words = ("--dataset", "digits", "--method", method, "--iterations", "1", "--device", "cpu")
    words += ("--network", networks, "--experts", teachers, "--set", THREADS, *more)
    return succeed(capsys, "distill", *words, "-o", output)[0]


def test_an_online_teacher_is_named(capsys: Captured, two_teachers: str, tmp_path: Path) -> None:
    teacher, _ = two_teachers.split(",")
    words = words_after(distilled(capsys, tmp_path / "set.h5", "sre2l", teacher, "--ipc", "1"))
    assert words == ["evaluate", str(tmp_path / "set.h5"), "--teacher", teacher]
    succeed(capsys, *words, *QUICK)


@pytest.mark.parametrize(
    ("method", "ipc", "options"),
    [
        ("infer", "2", []),
        ("wmdd", "1", ["--views", "300", "--batch-size", "100"]),
        ("cv-dd", "1", ["--views", "300", "--batch-size", "16", "--mode", "train", "--parts", "2"]),
    ],
)
def test_stored_labels_are_made_first(
    method: str, ipc: str, options: list[str], capsys: Captured, two_teachers: str, tmp_path: Path
) -> None:
    teachers = two_teachers if method != "wmdd" else two_teachers.split(",")[0]
    out = distilled(capsys, tmp_path / "set.h5", method, teachers, "--ipc", ipc)
    assert ("10 images and 2 compensators" in out) == (method == "infer")
    target = str(tmp_path / "set-labelled.h5")
    words = words_after(out)
    assert words == ["label", str(tmp_path / "set.h5"), "--teacher", teachers, *options, "-o", target]
    if "--views" in words:
        words[words.index("300")] = "2"
    words = words_after(succeed(capsys, *words)[0])
    assert words == ["evaluate", target]
    succeed(capsys, *words, *QUICK)


def test_hard_labels_need_neither(capsys: Captured, two_teachers: str, tmp_path: Path) -> None:
    teacher, _ = two_teachers.split(",")
    out = distilled(
        capsys,
        tmp_path / "set.h5",
        "sre2l",
        teacher,
        "--ipc",
        "1",
        "--set",
        "protocol=dm",
        "--iterations",
        "0",
    )
    assert words_after(out) == ["evaluate", str(tmp_path / "set.h5")]
    assert "peak memory" not in out


def test_a_set_for_pretraining_needs_data_to_learn(tmp_path: Path) -> None:
    """Which data these are is the user's to say."""
    summary = SimpleNamespace(path=tmp_path / "set.h5", run_dir=tmp_path)
    lines = [
        'protocol = "krr-st"',
        "ipc = 3",
        "[data]",
        'name = "digits"',
        "[engine.supply]",
        'path = "ssl.h5"',
    ]
    (tmp_path / "config.toml").write_text("\n".join(lines))
    words = shlex.split(after_distilling(summary))  # type: ignore[arg-type]
    teacher = ["--teacher", "ssl.h5", "--transfer", "DATA"]
    assert words == ["dsdistill", "evaluate", str(tmp_path / "set.h5"), *teacher]
