# SPDX-License-Identifier: Apache-2.0
"""Kernels in several threads of one process: none enters numba's own threads, and all give what one thread gives."""

from __future__ import annotations

import ast
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import pytest
import torch

import usreg
from usreg import workers
from usreg.compiled import njit
from usreg.errors import ConfigError
from usreg.geometry import se3
from usreg.registration.levenberg import LevenbergConfig
from usreg.registration.local import LocalConfig
from usreg.registration.matchers import build_matcher
from usreg.registration.normal import views, world_T_ref
from usreg.similarity import SIMILARITIES

SOURCES = sorted(Path(usreg.__file__).parent.rglob("*.py"))
MATCHERS = (("ncc", "lm"), ("lncc", "lm"), ("lc2", "lm"), ("mi", "lbfgs"), ("lncc", "lbfgs"))


@pytest.fixture(autouse=True)
def fresh_pool():  # type: ignore[no-untyped-def]
    """Counts and pools are kept by the process: begin and end with none."""
    workers.thread_count.cache_clear()
    workers._pool.cache_clear()
    yield
    workers.thread_count.cache_clear()
    workers._pool.cache_clear()


def offences(text: str) -> list[str]:
    """Ways into numba's threads in a source."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.keyword) and node.arg == "parallel" and getattr(node.value, "value", True) is not False:
            found.append("parallel=")
        if isinstance(node, ast.Attribute | ast.Name | ast.alias):
            name = getattr(node, "attr", "") or getattr(node, "id", "") or getattr(node, "name", "")
            if name in ("prange", "guvectorize", "vectorize"):
                found.append(name)
    return found


def test_no_kernel_asks_for_numbas_threads() -> None:
    assert {str(path): offences(path.read_text(encoding="utf-8")) for path in SOURCES} == {str(p): [] for p in SOURCES}
    for bad in ("@njit(parallel=True)\ndef f(): pass", "from numba import prange", "for i in numba.prange(3): pass"):
        assert offences(bad)
    with pytest.raises(ConfigError, match="run_ranges"):
        njit(parallel=True)


def test_all_kernels_run_from_several_threads_at_once(bench) -> None:  # type: ignore[no-untyped-def]
    frames = (bench.frame(noise=6.0), bench.frame((2.0, 1.0, 8.0, 0.0, 0.1, 0.0), noise=6.0, seed=1))
    seen = views(frames, 2.0, 2.0)
    start = (
        se3.inverse(bench.world_T_ct) @ world_T_ref(frames) @ se3.translation(torch.tensor([1.0, 1.0, 1.0]).double())
    )
    starts = start.expand(4, 4, 4).contiguous()

    def work(job: int) -> list[torch.Tensor]:
        matcher = build_matcher(*MATCHERS[job % len(MATCHERS)], LocalConfig())
        level = matcher.level(bench.volume, 2.0, 0)
        poses, normal, _ = matcher.climb(level, seen, starts, 30.0, 0.4, LevenbergConfig(iterations=6))
        noise = matcher.noises(level, seen, poses[0])[0]
        return [poses, normal.score, matcher.compare(level, seen, poses), noise.matrix, noise.spread]

    alone = [work(job) for job in range(len(MATCHERS))]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(2 * len(MATCHERS))))
    for job, found in enumerate(together):
        for a, b in zip(found, alone[job % len(MATCHERS)], strict=True):
            assert torch.equal(a, b), MATCHERS[job % len(MATCHERS)]
    assert workers.foreign_layer() == "", "a kernel has entered numba's threads"


def test_all_similarities_run_from_several_threads_at_once() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 40, 40, generator=g), torch.rand(2, 2, 40, 40, generator=g)
    mask = torch.ones(2, 1, 40, 40, dtype=torch.bool)

    def work(name: str) -> torch.Tensor:
        return SIMILARITIES[name](a, b if name == "lc2" else b[:, :1], mask)

    names = sorted(SIMILARITIES) * 3
    with ThreadPoolExecutor(4) as pool:
        for name, found in zip(names, pool.map(work, names), strict=True):
            assert torch.equal(found, work(name))


def test_work_within_work_does_not_wait_for_its_own_pool(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(workers, "thread_count", lambda: 2)
    done = torch.zeros(8, 8)

    def inner(row: int) -> None:
        workers.run_ranges(lambda a, b: done[row, a:b].add_(1), 8, 1)

    workers.run_ranges(lambda a, b: [inner(row) for row in range(a, b)], 8, 1)  # type: ignore[arg-type, return-value]
    assert (done == 1).all()


def test_the_number_of_threads_is_checked(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    for wrong in ("two", "0", "-1", "1.5", "²"):
        workers.thread_count.cache_clear()
        monkeypatch.setenv("USREG_THREADS", wrong)
        with pytest.raises(ConfigError, match="USREG_THREADS"):
            workers.thread_count()
    for value, expected in (("3", 3), (" 2 ", 2), ("99", workers.MAX_THREADS)):
        workers.thread_count.cache_clear()
        monkeypatch.setenv("USREG_THREADS", value)
        assert workers.thread_count() == expected


def test_a_layer_that_would_abort_is_named_at_the_start(monkeypatch, caplog) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(numba, "threading_layer", lambda: "workqueue")
    with caplog.at_level(logging.WARNING):
        workers._pool(os.getpid())
    assert "workqueue" in caplog.text
