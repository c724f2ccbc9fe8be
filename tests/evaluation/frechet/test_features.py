"""Features of sounds: what log-mel statistics are, and networks from files."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dvae_pyro.errors import UserError
from evaluation.frechet.features import Extractor, extract, open_extractor
from tests.sounds import RATE


class Net(nn.Module):
    """Chunks of 8 samples, times 2: (N, t, 8)."""

    def forward(self, waveforms: Tensor) -> Tensor:
        return 2.0 * waveforms.reshape(waveforms.shape[0], -1, 8)


def sounds() -> Tensor:
    return torch.randn(3, 1600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def expected() -> Any:
    return 2.0 * sounds().reshape(3, -1, 8).mean(1).numpy()


def test_a_network_in_torchscript(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(Net(), torch.zeros(2, 1600)), tmp_path / "net.pt")
    extractor = open_extractor(str(tmp_path / "net.pt"), RATE, "cpu")
    assert extractor.name == "net.pt"
    np.testing.assert_allclose(extract(extractor, [sounds()]), expected(), rtol=1e-5, atol=1e-6)


def test_an_exported_network_in_batches(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(Net(), (torch.zeros(2, 1600),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    extractor = open_extractor(str(tmp_path / "net.pt2"), RATE, "cpu")
    found = extract(extractor, [sounds()[:2], sounds()[2:]])
    np.testing.assert_allclose(found, expected(), rtol=1e-5, atol=1e-6)


def test_a_network_in_onnx_needs_its_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"network")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="net.onnx.*pip install onnxruntime"):
        open_extractor(str(tmp_path / "net.onnx"), RATE, "cpu")

    class Session:
        def __init__(self, path: str, providers: list[str]) -> None:
            assert path.endswith("net.onnx") and providers == ["CPUExecutionProvider"]

        def get_inputs(self) -> list[Any]:
            return [types.SimpleNamespace(name="wave")]

        def run(self, outputs: None, feeds: dict[str, Any]) -> list[Any]:
            return [Net()(torch.from_numpy(feeds["wave"])).numpy()]

    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
    extractor = open_extractor(str(tmp_path / "net.onnx"), RATE, "cpu")
    np.testing.assert_allclose(extract(extractor, [sounds()]), expected(), rtol=1e-5, atol=1e-6)


def test_log_mel_statistics_are_of_level_and_change() -> None:
    extractor = open_extractor("log_mel", RATE, "cpu")
    assert "log-mel" in extractor.name and "FDSD" not in extractor.name
    time = torch.arange(RATE) / RATE
    tones = torch.stack([a * torch.sin(2 * torch.pi * f * time) for f in (500.0, 2000.0) for a in (1.0, 0.1)])
    found = extract(extractor, [tones])
    assert found.shape == (4, 320)
    level, spread, change, _ = np.split(found, 4, axis=1)
    low, high = level[0].argmax(), level[2].argmax()
    assert 5 < low < high < 75 and level[1].argmax() == low
    assert level[0, low] - level[1, low] == pytest.approx(np.log(100.0), abs=0.01)  # 20 dB
    assert spread[0, low] < 0.2 and abs(change[0, low]) < 0.01
    fading = tones[:1] * torch.exp(-3.0 * time)
    _, _, change, _ = np.split(extract(extractor, [fading, fading]), 4, axis=1)
    assert change[0, low] == pytest.approx(-6.0 * 0.010, rel=0.1)  # power falls by exp(-6 t), a frame every 10 ms


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.pt", "none.pt"), ("deepspeech", "deepspeech.*log_mel"), ("x.pth", "x.pth.*.pt2")],
)
def test_files_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_extractor(name, RATE, "cpu")


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_files_that_are_no_network(suffix: str, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / f"weights{suffix}")
    with pytest.raises(UserError, match=f"weights{suffix}"):
        open_extractor(str(tmp_path / f"weights{suffix}"), RATE, "cpu")


def test_what_is_no_vector_for_each_sound_is_refused() -> None:
    with pytest.raises(UserError, match=r"\(3,\) .*\(3, 1600\)"):
        extract(Extractor("net", lambda waveforms: waveforms.mean(1)), [sounds()])
    with pytest.raises(UserError, match="0 pieces"):
        extract(Extractor("net", lambda waveforms: waveforms), [], "pieces")
