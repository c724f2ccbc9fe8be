"""Mean opinion scores without a reference, by DNSMOS P.835 (package `speechmos`, extra ``[mos]``)."""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings

import numpy as np
from numpy.typing import NDArray

from corpora.audio.io import resample
from dvae_pyro.errors import UserError

__all__ = ["dnsmos", "require_dnsmos"]

RATE = 16000
"""Sampling rate in Hz of the network; other signals are resampled."""


def require_dnsmos() -> None:
    """Check that the package is installed.

    Raises:
        UserError: it is not.
    """
    for package in ("onnxruntime", "speechmos"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--mos: package {package} is not installed: pip install -e '.[mos]'.")


def dnsmos(samples: NDArray[np.float64], rate: int) -> float:
    """The overall quality that a network trained on human ratings predicts, from 1 (bad) to 5 (excellent).

    DNSMOS P.835, OVRL (Reddy, Gopal & Cutler, "DNSMOS P.835: A non-intrusive perceptual objective speech quality metric
    to evaluate noise suppressors", 2022), as package `speechmos` computes it: the mean over windows of 9.01 s, one
    second apart; a shorter signal is repeated. It was trained on noisy and denoised speech, not on generated speech:
    compare it with the value of real speech of the same corpus.

    Args:
        samples: the signal (num_samples,); signals that exceed 1 are scaled down.
        rate: its sampling rate in Hz.

    Returns:
        The score; NaN where the signal is silent or not finite.
    """
    if not np.isfinite(samples).all() or not samples.any():
        return math.nan
    signal = resample(np.asarray(samples, np.float64), rate, RATE)
    signal = signal / max(1.0, float(np.abs(signal).max()))
    package = importlib.import_module("speechmos.dnsmos")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of librosa, on window lengths
        return float(package.run(signal, RATE)["ovrl_mos"])
