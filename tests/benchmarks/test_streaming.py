"""The benchmark of streams: that it trains on as much as it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.streaming import main

pytest.importorskip("lhotse")


def test_shards_are_repeated_until_they_last_long_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from corpora.shard import main as shard

    for split, count in (("train", 4), ("valid", 1)):
        for n in range(count):
            path = tmp_path / "in" / split / f"s{n}" / f"{n}.wav"
            path.parent.mkdir(parents=True)
            soundfile.write(path, 0.1 * np.random.default_rng(n).standard_normal(32000), 16000)
    assert (
        shard(["--corpus", "folder", "--root", str(tmp_path / "in"), "--out", str(tmp_path / "s"), "--size", "2"]) == 0
    )
    arguments = ["--shards", str(tmp_path / "s"), "--hours", "0.0011", "0.004", "--steps", "3"]
    small = ["model.bins=17", "data.hop=32", "data.sequence_frames=50", "data.trim_db=null", "train.batch_size=4"]
    assert main([*arguments, "--json", str(tmp_path / "out"), *small]) == 0
    report = json.loads((tmp_path / "out").read_text())
    assert [(row["shards"], round(row["hours"] * 3600)) for row in report["trainings"]] == [(1, 4), (4, 16)]
    assert all(
        row["peak_mb"] > 10 and 0 <= row["data_wait"] <= 1 and row["startup_s"] > 0 for row in report["trainings"]
    )
    assert report["hours_per_cpu_second"] > 0
    assert "0.00444 h in 4 shards" in capsys.readouterr().out
    assert main(["--shards", str(tmp_path)]) == 2
    assert "no folders train/ and valid/" in capsys.readouterr().err
