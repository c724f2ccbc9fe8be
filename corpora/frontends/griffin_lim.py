"""A waveform from power spectra that came without a phase: Griffin and Lim's algorithm, many files at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from corpora.frontends.stft import Stft
from dvae_pyro.errors import UserError

__all__ = ["ITERATIONS", "MOMENTUM", "griffin_lim", "transform"]

ITERATIONS = 32
MOMENTUM = 0.99
FILES_AT_ONCE = 16
"""On a CPU: so that what an iteration works on stays in its cache, which takes a third off the time of 256 at once."""


def transform(waveform: Tensor, frontend: Stft) -> Tensor:
    """The transform (N, F, T), complex, of samples (N, num_samples), as a front end takes it after any pre-emphasis:
    `Stft.spectrum` in torch, frequencies first.
    """
    window = _taper(waveform, frontend)
    return torch.stft(
        waveform, frontend.window, frontend.hop, window=window, center=True, pad_mode="reflect", return_complex=True
    )


def _inverse(spectrum: Tensor, frontend: Stft) -> Tensor:
    window = _taper(spectrum, frontend)
    return torch.istft(spectrum, frontend.window, frontend.hop, window=window, center=True)


@torch.no_grad()
def griffin_lim(
    power: Tensor,
    frontend: Stft,
    iterations: int = ITERATIONS,
    momentum: float = MOMENTUM,
    seed: int = 0,
    length: int | None = None,
) -> Tensor:
    r"""Samples whose power spectra are as near to the given ones as alternating projections bring them.

    From random phases, and with S the given amplitude, every iteration takes the signal nearest to the present
    transform, and of its transform c the phase:

    .. math:: c_k = \mathrm{STFT}(\mathrm{STFT}^{-1}(S e^{i \phi_{k-1}})), \quad
        \phi_k = \arg\left(c_k - \frac{\alpha}{1 + \alpha} c_{k-1}\right)

    (Griffin & Lim, "Signal estimation from modified short-time Fourier transform", 1984; momentum alpha, as librosa
    takes it: Perraudin, Balazs & Soendergaard, "A fast Griffin-Lim algorithm", 2013.) The numbers are those of
    `librosa.griffinlim`, computed with torch for the sake of batches and devices. All files start from the same
    phases, so that what one becomes does not depend on the others.

    Args:
        power: power spectra (N, T, F), as `frontend.power` gives them, T at least 2.
        frontend: gives window, hop and centring, and undoes its pre-emphasis at the end.
        iterations: how many; 0 inverts the random phases.
        momentum: alpha; 0 is the algorithm of 1984.
        seed: of the phases at the start.
        length: samples of the signal that the spectra are of; by default (T - 1) * hop.

    Returns:
        Samples (N, length), on the device and of the type of `power`.

    Raises:
        UserError: for one frame, or values that no power has.
    """
    if power.shape[-2] < 2:
        raise UserError("one frame alone gives no waveform: expected at least 2 frames, two hops long.")
    if not bool((power >= 0).all()) or not bool(power.isfinite().all()):
        raise UserError(
            f"no power spectrum: values go from {float(power.min()):g} to {float(power.max()):g}, expected finite ones "
            "from 0 up, such as model.likelihood=power_spectrum gives."
        )
    if power.device.type == "cpu" and len(power) > FILES_AT_ONCE:
        parts = power.split(FILES_AT_ONCE)
        return torch.cat([griffin_lim(part, frontend, iterations, momentum, seed, length) for part in parts])
    amplitude = power.sqrt().transpose(-2, -1)
    turns = torch.rand(amplitude.shape[-2:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ones = torch.ones_like(turns)
    phase = torch.polar(ones, 2.0 * torch.pi * turns).to(device=power.device, dtype=amplitude.dtype.to_complex())
    before: Tensor | float = 0.0
    for _ in range(iterations):
        consistent = transform(_inverse(amplitude * phase, frontend), frontend)
        phase = consistent - (momentum / (1.0 + momentum)) * before
        phase = phase / phase.abs().clamp_min(torch.finfo(amplitude.dtype).tiny)
        before = consistent
    spectra = (amplitude * phase).transpose(-2, -1).cpu().numpy().astype(np.complex128)
    return torch.from_numpy(np.stack([frontend.waveform(spectrum, length) for spectrum in spectra])).to(power)


def _taper(like: Tensor, frontend: Stft) -> Tensor:
    return torch.from_numpy(frontend.taper).to(device=like.device, dtype=like.real.dtype)
