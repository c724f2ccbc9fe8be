"""Metrics in other processes: the same figures, and what a dying process costs."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from evaluation.resynthesis.metrics import score
from evaluation.resynthesis.worker_pool import Pair, score_all
from tests.sounds import RATE, noise, voice


def pair(seconds: float) -> Pair:
    s = voice(seconds)
    return Pair(s, s + noise(s.size), RATE)


def test_workers_find_what_this_process_finds() -> None:
    pairs = [(f"{seconds} s", pair(seconds)) for seconds in (0.6, 0.9)]
    here, there = dict(score_all(pairs, jobs=0)), dict(score_all(pairs, jobs=1))
    assert here.keys() == there.keys() == {"0.6 s", "0.9 s"}
    for tag, scores in here.items():
        # pystoi adds noise of 1e-16 of its own.
        assert there[tag] == pytest.approx(scores, rel=1e-9), tag


def test_a_signal_that_kills_pesq_costs_its_pesq_alone() -> None:
    piece = np.r_[voice(0.25), np.zeros(5000)]
    s = np.tile(piece, 65)  # stretches of speech; the C code of PESQ has room for 50
    long = Pair(s, s + noise(s.size, 0.01), RATE)
    scores = dict(score_all([("short", pair(0.9)), ("long", long)], jobs=1))
    assert scores["short"].pesq_wb == pytest.approx(score(*pair(0.9)[:3]).pesq_wb)
    assert math.isfinite(scores["long"].estoi)


def test_workers_do_not_load_torch() -> None:
    code = "import sys, evaluation.resynthesis.__main__\n"
    code += "import evaluation.resynthesis.worker_pool as s; s._score; print('torch' in sys.modules)\n"
    code += "import evaluation.resynthesis.metrics; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
