"""Jobs of a cluster that work on one suite: options, command, and what becomes of those that are stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsdistill import UserError
from dsdistill.bench import cluster
from dsdistill.bench.cluster import SuiteJob, read_options, submit
from tests.helpers.cli import Captured, refused, succeed

submitit = pytest.importorskip("submitit")


def test_options_are_submitits_or_slurms() -> None:
    assert read_options("partition=gpu, timeout_min=240,slurm_array_parallelism=8,constraint=a100") == {
        "slurm_partition": "gpu",
        "timeout_min": 240,
        "slurm_array_parallelism": 8,
        "slurm_constraint": "a100",
    }
    assert read_options("") == {}
    with pytest.raises(UserError, match=r"--slurm takes options .* not 'gpu'"):
        read_options("gpu")


def test_a_job_runs_the_command_and_fails_as_it_does(tmp_path: Path) -> None:
    SuiteJob(["datasets"])()
    with pytest.raises(RuntimeError, match="dsdistill info none ended with exit code 2"):
        SuiteJob(["info", "none"])()


def test_a_job_that_is_stopped_stops_its_command_and_is_queued_again() -> None:
    job = SuiteJob(["bench", "digits"])
    job._process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    again = job.checkpoint()
    assert job._process.returncode == -15
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert again.function.words == ["bench", "digits"]
    assert again.function._process is None


def test_a_signal_in_the_middle_of_a_job_stops_its_command_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitit has a checkpoint made by the handler of a signal, while the job waits for its command."""
    job, took, start = SuiteJob(["-c", "import time; time.sleep(60)"]), [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda words: start([words[0], *words[3:]]))

    def stop(number: int, frame: object) -> None:
        since = time.monotonic()
        job.checkpoint()
        took.append(time.monotonic() - since)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(RuntimeError, match="ended with exit code -15"):
            job()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert took[0] < 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit leaves processes
def test_jobs_run_where_there_is_a_cluster(tmp_path: Path) -> None:
    numbers = submit(["datasets"], tmp_path / "r", "timeout_min=1", jobs=2, cluster="local")
    assert len(set(numbers)) == 2
    since = time.monotonic()
    while len(list((tmp_path / "r" / "jobs").glob("*_result.pkl"))) < 2:
        assert time.monotonic() - since < 60, list((tmp_path / "r" / "jobs").iterdir())
        time.sleep(0.1)
    logs = [path.read_text() for path in (tmp_path / "r" / "jobs").glob("*_log.out")]
    assert ["digits" in log for log in logs] == [True, True]


def test_the_command_queues_shared_work(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []

    def queue(words: list[str], folder: Path, options: str, jobs: int) -> list[str]:
        said.append([*words, options, str(jobs)])
        return ["17", "18"]

    monkeypatch.setattr(cluster, "submit", queue)
    options = ["--slurm", "partition=gpu", "--jobs", 2, "--only", "dm-"]
    out, _ = succeed(capsys, "bench", "digits", "-o", tmp_path / "r", *options)
    assert "17, 18" in out
    (words,) = said
    assert words == [
        *("bench", "digits", "--shared", "--quiet", "-o", str(tmp_path / "r")),
        *("--only", "dm-", "--workers", "auto", "partition=gpu", "2"),
    ]


def test_without_slurm_the_way_without_it_is_named(tmp_path: Path, capsys: Captured) -> None:
    said = refused(capsys, "bench", "digits", "-o", tmp_path / "r", "--slurm", "partition=gpu")
    assert "srun is not on the PATH" in said
    assert "--shared" in said


def test_jobs_divide_the_cells_themselves(tmp_path: Path, capsys: Captured) -> None:
    said = refused(
        capsys, "bench", "digits", "-o", tmp_path / "r", "--slurm", "partition=gpu", "--shard", "1/2"
    )
    assert "leave out --shard" in said
