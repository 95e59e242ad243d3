"""Threads by cores and quotas, on made-up systems."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

import processors


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four processors in two cores, all of which may be used."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processors, "SYSTEM", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        write(tmp_path / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", siblings + "\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_core_counts_once(system) -> None:
    assert processors.threads() == 2


@pytest.mark.parametrize("allowed, count", [({0, 2}, 1), ({0, 1}, 2), ({3}, 1)])
def test_only_what_may_be_used_counts(system, monkeypatch, allowed, count) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: allowed, raising=False)
    assert processors.threads() == count


@pytest.mark.parametrize(
    "quota, count",
    [
        ("max 100000", 2),
        ("400000 100000", 2),
        ("150000 100000", 2),
        ("100000 100000", 1),
        ("5000 100000", 1),
        ("nonsense", 2),
        ("100000 0", 2),
        ("", 2),
    ],
)
def test_the_quota_of_a_container_counts(system, quota, count) -> None:
    write(system / "fs/cgroup/cpu.max", quota + "\n")
    assert processors.threads() == count


@pytest.mark.parametrize("quota, count", [("-1", 2), ("100000", 1), ("90000", 1)])
def test_older_cgroups_are_read_too(system, quota, count) -> None:
    write(system / "fs/cgroup/cpu/cpu.cfs_quota_us", quota + "\n")
    write(system / "fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert processors.threads() == count


def test_processors_count_where_cores_are_not_told_apart(system) -> None:
    (system / "devices/system/cpu/cpu3/topology/thread_siblings_list").unlink()
    assert processors.threads() == 4


@pytest.mark.parametrize("cores, count", [(6, 6), (None, os.cpu_count())])
def test_a_system_without_affinity_tells_its_cores(system, monkeypatch, cores, count) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: cores)
    assert processors.threads() == count


def test_the_user_decides(system, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert processors.threads() is None


def test_this_machine_has_at_least_one(monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert 1 <= processors.threads() <= os.cpu_count()
