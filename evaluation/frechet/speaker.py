"""The speaker encoder that the package `resemblyzer` ships, as features of sounds.

Only its weights are read, so the package may be installed without what it imports:
``pip install --no-deps resemblyzer``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from corpora.audio.io import resample
from dvae_pyro.errors import UserError

__all__ = ["SpeakerEncoder"]

RATE, WINDOW, HOP, BANDS, SIZE = 16000, 400, 160, 40, 256


class SpeakerEncoder(nn.Module):
    """Embeddings of speakers: an LSTM over mel bands, trained to tell speakers apart.

    Wan, Wang, Papir & Lopez Moreno, "Generalized end-to-end loss for speaker verification", 2018, with the weights of
    `resemblyzer`: power in 40 mel bands (windows of 25 ms every 10 ms at 16 kHz), three layers of LSTM(256), and of the
    last state h the embedding ReLU(W h + b), divided by its norm. The published code raises quiet recordings to
    -30 dBFS and averages windows of 1.6 s; here the level is set likewise and a sound is one window.

    Args:
        rate: sampling rate of the waveforms in Hz.
        device: device to compute on.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, rate: int, device: str) -> None:
        super().__init__()
        import librosa  # heavy, and only needed for its mel bands

        self.rate = rate
        self.lstm = nn.LSTM(BANDS, SIZE, num_layers=3, batch_first=True)
        self.linear = nn.Linear(SIZE, SIZE)
        self.bands: Tensor
        self.taper: Tensor
        self.register_buffer("bands", torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=WINDOW, n_mels=BANDS)), False)
        self.register_buffer("taper", torch.hann_window(WINDOW), False)
        weights = torch.load(_weights(), map_location="cpu", weights_only=True)["model_state"]
        own = {name: value for name, value in weights.items() if name.startswith(("lstm.", "linear."))}
        self.load_state_dict(own)
        self.to(device).requires_grad_(False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Waveforms (N, samples) to embeddings (N, 256)."""
        samples = [torch.from_numpy(resample(x.double().cpu().numpy(), self.rate, RATE)) for x in waveforms]
        sounds = torch.stack(samples).to(self.taper)
        level = sounds.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
        sounds = sounds * (10.0 ** (-30.0 / 20.0) / level).clamp_min(1.0)
        spectrum = torch.stft(sounds, WINDOW, HOP, window=self.taper, pad_mode="constant", return_complex=True)
        mel = (self.bands @ spectrum.abs().square()).transpose(1, 2)
        hidden = self.lstm(mel)[1][0][-1]
        return nn.functional.normalize(torch.relu(self.linear(hidden)), dim=1)


def _weights() -> Path:
    package = importlib.util.find_spec("resemblyzer")
    path = Path(next(iter(package.submodule_search_locations or []), "")) / "pretrained.pt" if package else Path()
    if not path.is_file():
        raise UserError("--features speaker needs the weights of resemblyzer: pip install --no-deps resemblyzer")
    return path
