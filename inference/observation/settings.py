"""Settings of the noise of an observation, and what they build."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from inference.observation.noise import Noise, NoiseParameters, initial_noise

__all__ = ["NoiseSettings", "build_noise", "fit_spectra", "time_span"]


@dataclass
class NoiseSettings:
    """What is known of the noise.

    Attributes:
        rank: K, spectra in W.
        gain: whether speech has a gain g_t in each frame, learned; else 1.
        shared: whether W is one for all recordings, those of one place.
        span: a stretch without speech, in seconds, ``"0:0.5"``: W is fitted to it and stays (``noise.from``).
        model: run folder of a DVAE trained on noise, in the place of WH.
        floor: variance added in every bin, of signals with a largest absolute value of 1.
        seed: of W and H at the start.
    """

    rank: int = 8
    gain: bool = True
    shared: bool = False
    span: str | None = None
    model: str | None = None
    floor: float = 1e-10
    seed: int = 0


def time_span(text: str, key: str) -> tuple[float, float]:
    """Seconds from and to, of ``"0:0.5"``.

    Raises:
        UserError: for anything else.

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
        raise UserError(f"{key}={text}: expected seconds from and to, such as {key}=0:0.5.")
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
        settings: what is known of the noise.
        y: the observed power (T, N, F).
        sources: of speech.
        spectra: W, if it is known, (N, F, K); H is then learned alone.
        present: which bins were observed.
        noisy: whether there is noise of a nonnegative matrix product at all.

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


def fit_spectra(y: Tensor, rank: int, steps: int = 200, floor: float = 1e-10) -> Tensor:
    """W (F, K) of noise alone, y (T, F): an Itakura-Saito factorisation, columns with a sum of one."""
    rank = max(1, min(rank, len(y)))
    noise = Noise(initial_noise(len(y), 1, y.shape[-1], rank, y), "wh", floor)
    silent = torch.zeros_like(y)[:, None]
    for _ in range(steps):
        noise.hear([silent], y[:, None], None, slice(None))
    return noise.parameters.w[0]
