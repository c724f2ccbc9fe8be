"""i-vectors, the baseline of speaker verification: MFCC, a Gaussian mixture as background model, total variability.

The steps of Hsu, Zhang & Glass (2017), appendix F, with default sizes for small corpora (the paper uses Kaldi's recipe
with 2048 full covariances): MFCC with first and second differences of the speech frames; a mixture of Gaussians trained
on all of them (the universal background model, UBM); the model of `evaluation.verification.ivector.total_variability`
trained on the statistics of each utterance; its posterior mean is the i-vector.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from corpora.audio.io import mix_to_mono, resample
from corpora.settings import DataSettings
from corpora.types import AudioFault, Corpus, Sound, refusal
from dvae_pyro.errors import UserError
from dvae_pyro.progress import progress_bar
from evaluation.disentanglement.embeddings import Embeddings
from evaluation.verification.ivector.total_variability import Statistics, posterior, start, step

__all__ = [
    "COVARIANCES",
    "Extractor",
    "IVectorOptions",
    "IVectors",
    "ivectors",
    "mfcc",
    "speech_frames",
    "statistics",
    "train",
]

COEFFICIENTS, MELS = 20, 40
WINDOW_S, HOP_S, LOWEST_HZ = 0.025, 0.010, 20.0
DIFFERENCE = 5
"""Frames that a first or second difference spans."""
QUIET_DB = 30.0
"""Level below the loudest frame at which a frame is not speech."""
SHORTEST = 10
"""Smallest number of speech frames of an utterance."""
MOST_FRAMES = 300_000
"""Largest number of frames that the mixture is trained on."""
FLOOR = 1e-3
"""Added to the variances of the mixture; the features have variance 1."""
COVARIANCES = ("diag", "full")

Array = NDArray[np.float64]


class IVectorOptions(NamedTuple):
    """Sizes of the baseline.

    Attributes:
        components: Gaussians of the background model.
        dim: R, dimension of an i-vector.
        covariance: "diag" or "full", covariance of each Gaussian.
        iterations: EM steps of the total variability model.
        cmn: Subtract its mean from each utterance, which removes the channel and some speaker information.
        seed: Seed of the mixture and the subspace.
    """

    components: int = 64
    dim: int = 100
    covariance: str = "diag"
    iterations: int = 20
    cmn: bool = False
    seed: int = 0

    def check(self) -> None:
        """Check the sizes.

        Raises:
            UserError: A size is below 1, or the covariance is unknown.
        """
        for name in ("components", "dim", "iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}: got {getattr(self, name)}, expected 1 or more.")
        if self.covariance not in COVARIANCES:
            raise UserError(f"--covariance: got {self.covariance!r}, expected one of {', '.join(COVARIANCES)}.")


class Extractor(NamedTuple):
    """A trained extractor of i-vectors.

    Attributes:
        mean: Mean of the training features (D,), which standardises features.
        scale: Their standard deviation (D,), likewise.
        mixture: The background model.
        T: The subspace (C, D, R), whitened by the covariances of the mixture.
        log_likelihood: That of the training utterances at each EM step, per frame, up to terms without T.
        notes: Remarks for the user.
    """

    mean: Array
    scale: Array
    mixture: GaussianMixture
    T: Array
    log_likelihood: tuple[float, ...]
    notes: tuple[str, ...]


class IVectors:
    """i-vectors of the splits of a corpus, by an extractor that is trained on split train once.

    Args:
        corpus: Contains the splits.
        data: The run's ``data`` settings, of which ``rate`` and ``on_error`` are read.
        options: Sizes.
        report: Receives remarks, a line at a time.
        progress: Draw progress bars on standard error.

    Raises:
        UserError: An utterance is broken (unless skipped), or training data are too few.
    """

    def __init__(
        self,
        corpus: Corpus,
        data: DataSettings,
        options: IVectorOptions,
        report: Callable[[str], None] = lambda line: None,
        progress: bool = False,
    ) -> None:
        options.check()
        self.corpus, self.data, self.options = corpus, data, options
        self.report, self.progress = report, progress
        self.frames: dict[str, dict[str, Array]] = {}
        self.extractor = train(list(self._read("train").values()), options, report)

    def __call__(self, split: str, parts: int = 1) -> Embeddings:
        """i-vectors of a split whose utterances are each divided into a number of equal parts."""
        frames = self._read(split)
        speaker = {utterance.file: utterance.speaker for utterance in self.corpus.splits[split]}
        cut = [(file, part) for file, whole in frames.items() for part in np.array_split(whole, parts)]
        vectors = ivectors(self.extractor, [part for _, part in cut])
        return Embeddings({"ivector": vectors}, [file for file, _ in cut], [speaker[file] for file, _ in cut])

    def _read(self, split: str) -> dict[str, Array]:
        """MFCC of the utterances of a split, by file."""
        if split not in self.frames:
            frames: dict[str, Array] = {}
            broken: list[str] = []
            utterances = self.corpus.splits[split]
            with progress_bar(f"MFCC of {split}", len(utterances), "file", shown=self.progress, leave=False) as bar:
                for utterance in utterances:
                    try:
                        frames[utterance.file] = mfcc(utterance.sound(), self.data.rate, cmn=self.options.cmn)
                    except AudioFault as fault:
                        if self.data.on_error == "error":
                            raise refusal(utterance.file, fault.fault) from None
                        broken.append(f"{utterance.file} ({fault.fault})")
                    bar.update()
            if broken:
                self.report(f"{split}: skipped {len(broken)} broken files: {', '.join(broken)}")
            if not frames:
                raise UserError(f"split {split} of corpus {self.corpus.name} {self.corpus.root} has no utterance left.")
            self.frames[split] = frames
        return self.frames[split]


def mfcc(sound: Sound, rate: int, *, cmn: bool = False) -> Array:
    """MFCC of a recording, with first and second differences (T, 60), of its speech frames.

    Windows of 25 ms every 10 ms, 40 mel bands from 20 Hz up, 20 coefficients. Differences are computed before other
    frames are removed.

    Args:
        sound: The recording.
        rate: Sampling rate of the analysis in Hz.
        cmn: Subtract the mean of these frames.

    Raises:
        AudioFault: The recording has fewer than ten speech frames.
    """
    import librosa  # slow to import, and only needed here

    samples = resample(mix_to_mono(sound.samples), sound.rate, rate)
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    keep = speech_frames(samples, window, hop)
    if keep.sum() < SHORTEST:
        raise AudioFault(f"has {int(keep.sum())} frames of speech of {hop / rate:g} s, i-vectors need {SHORTEST}")
    size = 1 << (window - 1).bit_length()
    padded = np.pad(samples, ((size - window) // 2, size))  # aligns the frames with those of speech_frames
    mel = librosa.feature.melspectrogram(
        y=padded, sr=rate, n_fft=size, win_length=window, hop_length=hop, center=False, n_mels=MELS, fmin=LOWEST_HZ
    )[:, : len(keep)]
    static = librosa.feature.mfcc(S=librosa.power_to_db(mel, amin=1e-10, top_db=None), n_mfcc=COEFFICIENTS)
    differences = [librosa.feature.delta(static, width=DIFFERENCE, order=order, mode="nearest") for order in (1, 2)]
    frames = np.concatenate([static, *differences]).T[keep]
    return np.asarray(frames - frames.mean(0) if cmn else frames, dtype=np.float64)


def speech_frames(samples: Array, window: int, hop: int) -> NDArray[np.bool_]:
    """Whether each frame (T,) is less than 30 dB below the loudest one and not digital silence."""
    if len(samples) < window:
        return np.zeros(0, dtype=bool)
    energy = np.square(np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]).sum(-1)
    loud: NDArray[np.bool_] = (energy > energy.max() * 10 ** (-QUIET_DB / 10)) & (energy > 0)
    return loud


def train(
    frames: Sequence[Array], options: IVectorOptions, progress: Callable[[str], None] = lambda line: None
) -> Extractor:
    """Train background model and total variability.

    Args:
        frames: MFCC of each utterance (T, D).
        options: Sizes.
        progress: Receives a line at the start of each step.

    Raises:
        UserError: There are too few utterances for these sizes.
    """
    options.check()
    total = sum(len(one) for one in frames)
    if total < 10 * options.components:
        raise UserError(
            f"{len(frames)} training utterances have {total} frames of speech, too few for {options.components} "
            f"Gaussians (10 for each): give --components {max(1, total // 10)} or fewer, or more training data."
        )
    pooled = np.concatenate(frames)
    mean, scale = pooled.mean(0), pooled.std(0) + 1e-12
    progress(f"background model: {options.components} Gaussians, {options.covariance}, on {total} frames")
    mixture, notes = _fit_mixture((pooled - mean) / scale, options)
    extractor = Extractor(mean, scale, mixture, np.zeros((0, 0, 0)), (), tuple(notes))
    counts = statistics(extractor, frames)
    progress(f"total variability: {options.dim} values, {options.iterations} steps on {len(frames)} utterances")
    T = start(options.components, pooled.shape[1], options.dim, options.seed)
    totals = []
    for _ in range(options.iterations):
        T, total_log = step(T, counts)
        totals.append(total_log / total)
    return extractor._replace(T=T, log_likelihood=tuple(totals))


def statistics(extractor: Extractor, frames: Sequence[Array]) -> Statistics:
    """Statistics of each utterance (`Statistics`) under the background model, centred and whitened."""
    mixture = extractor.mixture
    whiten = np.asarray(mixture.precisions_cholesky_)
    zeroth = np.zeros((len(frames), mixture.n_components))
    first = np.zeros((len(frames), *mixture.means_.shape))
    for u, one in enumerate(frames):
        x = (one - extractor.mean) / extractor.scale
        gamma = mixture.predict_proba(x)
        zeroth[u] = gamma.sum(0)
        centred = gamma.T @ x - zeroth[u][:, None] * mixture.means_
        first[u] = centred * whiten if whiten.ndim == 2 else np.einsum("cd,cde->ce", centred, whiten)
    return Statistics(zeroth, first)


def ivectors(extractor: Extractor, frames: Sequence[Array]) -> Array:
    """The i-vector of each utterance (U, R)."""
    rank, at_once = extractor.T.shape[2], 256
    means = [np.zeros((0, rank))]
    for begin in range(0, len(frames), at_once):
        means.append(posterior(extractor.T, statistics(extractor, frames[begin : begin + at_once])).mean)
    return np.concatenate(means)


def _fit_mixture(x: Array, options: IVectorOptions) -> tuple[GaussianMixture, list[str]]:
    """The background model on standardised frames (T, D)."""
    notes = []
    if len(x) > MOST_FRAMES:
        generator = torch.Generator().manual_seed(options.seed)
        x = x[torch.randperm(len(x), generator=generator)[:MOST_FRAMES].numpy()]
        notes.append(f"the background model is trained on {MOST_FRAMES} randomly chosen frames")
    mixture = GaussianMixture(
        options.components,
        covariance_type=options.covariance,
        random_state=options.seed,
        reg_covar=FLOOR,
        max_iter=50,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(x)
    if not mixture.converged_:
        notes.append("the background model has not converged after 50 EM steps, which is usual")
    return mixture, notes
