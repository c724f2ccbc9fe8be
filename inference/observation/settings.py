"""Settings of noise and reverberation, and construction of the observation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from dvae_pyro.fields import bounded
from inference.observation.noise import Noise, NoiseParameters, initial_noise
from inference.observation.reverb import Reverb, initial_reverb

__all__ = ["NoiseSettings", "ReverbSettings", "build_noise", "build_reverb", "fit_spectra", "time_span"]


@dataclass
class NoiseSettings:
    """Settings of the noise.

    Attributes:
        rank: K, the number of spectra in W.
        gain: whether a gain g_t of speech is learned for each frame; else it is 1.
        shared: whether all recordings share one W, such as recordings of one room.
        span: an interval without speech, in seconds, ``"0:0.5"``: W is fitted to it and then fixed (``noise.from``).
        model: run folder of a DVAE trained on noise, which replaces WH.
        floor: variance added in every bin, for signals with a largest absolute value of 1.
        seed: the seed of the initial W and H.
    """

    rank: int = 8
    gain: bool = True
    shared: bool = False
    span: str | None = None
    model: str | None = None
    floor: float = 1e-10
    seed: int = 0


@dataclass
class ReverbSettings:
    """Settings of the reverberation.

    Attributes:
        taps: P, the number of frames of the room's response in each band.
    """

    taps: int = bounded(20, at_least=1)


def time_span(text: str, key: str) -> tuple[float, float]:
    """Parse an interval in seconds such as ``"0:0.5"``.

    Raises:
        UserError: for another format.

    Example:
        >>> time_span("0.2:1", "noise.from")
        (0.2, 1.0)
    """
    start, colon, end = text.partition(":")
    try:
        span = float(start), float(end)
    except ValueError:
        span = (0.0, 0.0)
    if not colon or not 0.0 <= span[0] < span[1]:
        raise UserError(f"{key}={text}: expected start and end in seconds, such as {key}=0:0.5.")
    return span


def build_noise(
    settings: NoiseSettings,
    y: Tensor,
    *,
    sources: int = 1,
    spectra: Tensor | None = None,
    present: Tensor | None = None,
    noisy: bool = True,
) -> Noise:
    """The observation of a batch.

    Args:
        settings: settings of the noise.
        y: the observed power (T, N, F).
        sources: number of speech sources.
        spectra: W, (N, F, K), if it is known; only H (and the gain) is then learned.
        present: whether each bin was observed.
        noisy: whether there is noise with variance WH.

    Raises:
        UserError: for a rank below 1 or a negative floor.
    """
    if settings.rank < 1 or not settings.floor >= 0.0:
        raise UserError(
            f"noise.rank={settings.rank}, noise.floor={settings.floor:g}: expected a rank of at least 1, and a floor "
            "of 0 or more."
        )
    frames, sequences, bins = y.shape
    start = initial_noise(frames, sequences, bins, settings.rank, y, sources=sources, seed=settings.seed)
    learns = "g" if settings.gain else ""
    if not noisy:
        start = NoiseParameters(start.w[..., :1] * 0.0, start.h[:, :1] * 0.0, start.g)
    elif spectra is not None:
        start, learns = NoiseParameters(spectra, start.h[:, : spectra.shape[-1]], start.g), "h" + learns
    else:
        learns = "wh" + learns
    return Noise(start, learns, settings.floor, shared=settings.shared and noisy, present=present)


def build_reverb(settings: ReverbSettings, noise: NoiseSettings, spectrum: Tensor, lengths: Tensor) -> Reverb:
    """The observation of a batch of reverberant recordings, in stationary noise.

    Args:
        settings: settings of the reverberation.
        noise: settings of the noise; gain and floor are used.
        spectrum: the observed transform, complex, (T, N, F), zero beyond each length.
        lengths: frames of each sequence (N,).
    """
    start, taps = initial_reverb(spectrum.abs().square(), lengths, settings.taps)
    return Reverb(spectrum, start, taps, "hng" if noise.gain else "hn", noise.floor)


def fit_spectra(y: Tensor, rank: int, steps: int = 200, floor: float = 1e-10) -> Tensor:
    """Fit W (F, K) to pure noise y (T, F) by an Itakura-Saito factorisation; columns have a sum of one."""
    rank = max(1, min(rank, len(y)))
    noise = Noise(initial_noise(len(y), 1, y.shape[-1], rank, y), "wh", floor)
    silent = torch.zeros_like(y)[:, None]
    for _ in range(steps):
        noise.likelihood([silent], y[:, None], None, slice(None))
    return noise.parameters.w[0]
