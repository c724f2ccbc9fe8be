"""The suite rehearsed on a CPU, its archive and its table."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_suite.__main__ import main
from benchmarks.gpu_suite.packing import pack
from benchmarks.gpu_suite.parts.agreement import Figures
from benchmarks.gpu_suite.results import append, read
from benchmarks.gpu_suite.table import table


def test_a_rehearsal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    stages = ["--stages", "machine,constants,checks"]
    assert main(["--device", "cpu", "--minutes", "4", "--models", "vae", *stages, "--out", str(out)]) == 0
    found: dict[str, dict[str, object]] = {}
    for line in read(out / "results.jsonl"):
        found.setdefault(line["part"], {}).update(line)
    assert found["machine"]["card"] == "cpu" and float(str(found["constants"]["bytes_per_second"])) > 0
    assert found["agreement/vae"]["float64"] == 0.0 and 0 < float(str(found["agreement/vae"]["float32"])) < 1e-4
    assert {line["status"] for line in found.values()} == {"done"}
    assert capfd.readouterr().out.endswith((out / "table.txt").read_text())
    assert {file.name for file in out.iterdir()} == {"results.jsonl", "log.txt", "table.txt", "runs.tar.gz.0"}
    assert main(["--device", "cpu", "--out", str(out)]) == 2
    assert "already holds results" in capfd.readouterr().err


def test_a_minute_of_everything_ends_in_time_and_nothing_fails(tmp_path: Path) -> None:
    """All stages; what does not fit is omitted or ended, which is not a failure."""
    out, started = tmp_path / "out", time.monotonic()
    assert main(["--device", "cpu", "--minutes", "1", "--models", "vae,dkf", "--out", str(out)]) == 0
    assert time.monotonic() - started < 100  # GRACE and the archive, on a machine that does other work
    status = {line["part"]: line["status"] for line in read(out / "results.jsonl") if "status" in line}
    assert {name.split("/")[0] for name in status} >= {
        "machine",
        "constants",
        "agreement",
        "timing",
        "loops",
        "training",
    }
    assert {name for name, end in status.items() if end == "failed"} == set()
    assert "parts are done" in (out / "table.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "--minutes 0"),
        (["--models", "vaee"], "--models vaee"),
        (["--device", "tpu"], "--device tpu"),
    ],
)
def test_mistakes_give_one_message(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_the_archive_is_cut_into_pieces_and_small_files_come_first(tmp_path: Path) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    out.mkdir()
    weights = torch.randint(256, (3, 30_000), dtype=torch.uint8).numpy()
    for n, content in enumerate(weights):
        (scratch / "runs" / f"{n}").mkdir(parents=True)
        (scratch / "runs" / f"{n}" / "best.pt").write_bytes(content.tobytes())
        (scratch / "runs" / f"{n}" / "metrics.jsonl").write_text("{}\n")
    (scratch / "runs" / "0" / "best.pt").rename(scratch / "runs" / "0" / "last.pt")  # stopped before it validated
    (scratch / "runs" / "1" / "last.pt").write_bytes(b"not needed beside best.pt")
    assert pack(scratch, out, piece=20_000, pieces=4) == ["runs/2/best.pt"]
    pieces = sorted(out.iterdir())
    assert 1 < len(pieces) <= 4 and all(piece.stat().st_size <= 20_000 for piece in pieces)
    with tarfile.open(fileobj=io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))) as tar:
        assert sorted(tar.getnames())[:2] == ["runs/0/last.pt", "runs/0/metrics.jsonl"]
        assert len(tar.getnames()) == 5


def test_the_table_tells_missing_failed_and_what_did_not_end_well(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append(file, {"part": "machine", "card": "some card", "torch": "2", "status": "done"})
    append(file, {"part": "timing/vae", "eager_ms": 12.345, "recorded_ms_error": "CUDA error"})
    append(file, {"part": "timing/vae", "status": "failed", "end": "a\nlast line\n"})
    append(file, {"part": "agreement/vae", "float64": float("nan"), "status": "done"})
    text = table(read(file))
    (row,) = [line.split() for line in text.splitlines() if line.strip().startswith("vae")]
    assert row[:5] == ["vae", "-", "12.35", "!", "-"] and "nan" in row
    assert "some card" in text and "timing/vae: failed: last line" in text and "2 of 3 parts are done" in text


def test_the_largest_difference_is_told_with_its_name() -> None:
    one = Figures({"loss": torch.tensor(2.0), "w": torch.tensor([3.0, 4.0])})
    other = Figures({"loss": torch.tensor(2.0), "w": torch.tensor([3.0, 4.5])})
    assert one.differ(one) == (0.0, "loss")
    largest, where = one.differ(other)
    assert largest == pytest.approx(0.1) and where == "w"
    assert one.differ(Figures({"loss": torch.tensor(float("nan")), "w": torch.tensor([3.0, 4.0])}))[1] == "loss"
