"""The benchmark of reading: that it prepares what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.preparation import main


def test_recordings_are_repeated_until_they_last_long_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "speaker").mkdir(parents=True)
    for name in ("a", "b"):
        noise = np.random.default_rng(0).standard_normal(16000)
        soundfile.write(tmp_path / "in" / "speaker" / f"{name}.wav", 0.1 * noise, 16000)
    arguments = ["--root", str(tmp_path / "in"), "--hours", "0.00125", "--bins", "17", "--json", str(tmp_path / "out")]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "out").read_text())
    assert report["files"] == 5 and report["hours"] == pytest.approx(5 / 3600)
    assert report["megabytes"] == pytest.approx(5 * 1001 * 17 * 4 / 1e6, rel=0.05)
    assert 0 < report["computed_cpu_s"] and 0 < report["kept_s"]
    assert "h in 5 files" in capsys.readouterr().out


@pytest.mark.parametrize(("more", "message"), [(["--hours", "0"], "more than 0"), ([], "no recordings below")])
def test_mistakes_give_one_message(
    tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tmp_path), *more]) == 2
    assert message in capsys.readouterr().err
