"""i-vectors, the baseline of speaker verification: MFCC, a Gaussian mixture as background model, total variability.

The steps of Hsu, Zhang & Glass (2017), appendix F, with sizes for small corpora by default (theirs: Kaldi's recipe with
2048 full covariances): MFCC with first and second differences of the frames that hold speech; a mixture of Gaussians
trained on all of them (the universal background model, UBM); the model of
`evaluation.verification.ivector.total_variability` trained on the statistics of each utterance; its posterior mean is
the i-vector.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.audio.io import mix_to_mono, resample
from corpora.settings import DataSettings
from corpora.types import AudioFault, Corpus, Sound
from dvae_pyro.errors import UserError
from evaluation.verification.ivector.total_variability import Statistics, posterior, start, step
from evaluation.verification.trials import Embedded

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

__all__ = [
    "COVARIANCES",
    "Extractor",
    "IVectors",
    "Options",
    "ivectors",
    "mfcc",
    "speech_frames",
    "statistics",
    "train",
]

COEFFICIENTS, MELS = 20, 40
WINDOW_S, HOP_S, LOWEST_HZ = 0.025, 0.010, 20.0
DIFFERENCE = 5  # frames that a first or second difference spans
QUIET_DB = 30.0  # below the loudest frame: no speech
SHORTEST = 10  # frames of speech that an utterance needs
MOST_FRAMES = 300_000  # that the mixture is trained on
FLOOR = 1e-3  # added to variances of the mixture, the features having variance 1
COVARIANCES = ("diag", "full")

Array = NDArray[np.float64]


class Options(NamedTuple):
    """Sizes of the baseline.

    Attributes:
        components: Gaussians of the background model.
        dim: R, values of an i-vector.
        covariance: "diag" or "full", of each Gaussian.
        iterations: Steps of EM of the total variability model.
        cmn: Subtract from each utterance its mean, which takes away the channel, and something of the speaker.
        seed: Of all that is left to chance.
    """

    components: int = 64
    dim: int = 100
    covariance: str = "diag"
    iterations: int = 20
    cmn: bool = False
    seed: int = 0

    def check(self) -> None:
        """Refuse sizes that nothing can be built from."""
        for name in ("components", "dim", "iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}: got {getattr(self, name)}, expected 1 or more.")
        if self.covariance not in COVARIANCES:
            raise UserError(f"--covariance: got {self.covariance!r}, expected one of {', '.join(COVARIANCES)}.")


class Extractor(NamedTuple):
    """What `train` learned.

    Attributes:
        mean, scale: Of the features (D,), which are standardised with them.
        mixture: The background model.
        T: The subspace (C, D, R), whitened by the covariances of the mixture.
        log_likelihood: Of the training utterances at each step of EM, per frame, up to terms without T.
        notes: What the user should know.
    """

    mean: Array
    scale: Array
    mixture: GaussianMixture
    T: Array
    log_likelihood: tuple[float, ...]
    notes: tuple[str, ...]


class IVectors:
    """i-vectors of the splits of a corpus; what makes them is trained on split train, once.

    Args:
        corpus: Holds the splits.
        data: The run's ``data`` settings, of which ``rate`` and ``on_error`` are read.
        options: Sizes.
        report: Is told, a line at a time, what is being done.
        progress: Draw progress bars on standard error.

    Raises:
        UserError: An utterance is broken (unless skipped), or training data are too few.
    """

    def __init__(
        self,
        corpus: Corpus,
        data: DataSettings,
        options: Options,
        report: Callable[[str], None] = lambda line: None,
        progress: bool = False,
    ) -> None:
        options.check()
        self.corpus, self.data, self.options = corpus, data, options
        self.report, self.progress = report, progress
        self.frames: dict[str, dict[str, Array]] = {}
        self.extractor = train(list(self._read("train").values()), options, report)

    def __call__(self, split: str, parts: int = 1) -> Embedded:
        """i-vectors of a split, of each utterance cut into this many parts of one length."""
        frames = self._read(split)
        speaker = {utterance.file: utterance.speaker for utterance in self.corpus.splits[split]}
        cut = [(file, part) for file, whole in frames.items() for part in np.array_split(whole, parts)]
        vectors = ivectors(self.extractor, [part for _, part in cut])
        return Embedded({"ivector": vectors}, [file for file, _ in cut], [speaker[file] for file, _ in cut])

    def _read(self, split: str) -> dict[str, Array]:
        """MFCC of the utterances of a split, by file."""
        from tqdm import tqdm

        if split not in self.frames:
            found: dict[str, Array] = {}
            broken: list[str] = []
            utterances = self.corpus.splits[split]
            seldom = 0.2 if sys.stderr.isatty() else 30.0
            bar = tqdm(
                utterances,
                f"MFCC of {split}",
                unit="file",
                disable=not self.progress,
                leave=False,
                mininterval=seldom,
            )
            for utterance in bar:
                try:
                    found[utterance.file] = mfcc(utterance.sound(), self.data.rate, cmn=self.options.cmn)
                except AudioFault as fault:
                    if self.data.on_error == "error":
                        raise UserError(
                            f"cannot use {utterance.file}: it {fault.fault}.\n"
                            "Mend or remove the file, or leave out all broken files with data.on_error=skip."
                        ) from None
                    broken.append(f"{utterance.file} ({fault.fault})")
            if broken:
                self.report(f"{split}: skipped {len(broken)} broken files: {', '.join(broken)}")
            if not found:
                raise UserError(f"split {split} of corpus {self.corpus.name} {self.corpus.root} has no utterance left.")
            self.frames[split] = found
        return self.frames[split]


def mfcc(sound: Sound, rate: int, *, cmn: bool = False) -> Array:
    """MFCC of a recording, with first and second differences (T, 60), of the frames that hold speech.

    Windows of 25 ms every 10 ms, 40 mel bands from 20 Hz up, 20 coefficients. Differences are taken before frames are
    left out.

    Args:
        sound: The recording.
        rate: The rate to work at, in Hz.
        cmn: Subtract the mean of these frames.

    Raises:
        AudioFault: Fewer than ten frames hold speech.
    """
    import librosa

    samples = resample(mix_to_mono(sound.samples), sound.rate, rate)
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    keep = speech_frames(samples, window, hop)
    if keep.sum() < SHORTEST:
        raise AudioFault(f"holds {int(keep.sum())} frames of speech of {hop / rate:g} s, i-vectors need {SHORTEST}")
    size = 1 << (window - 1).bit_length()
    padded = np.pad(samples, ((size - window) // 2, size))  # so that frame t of both analyses has the same centre
    mel = librosa.feature.melspectrogram(
        y=padded, sr=rate, n_fft=size, win_length=window, hop_length=hop, center=False, n_mels=MELS, fmin=LOWEST_HZ
    )[:, : len(keep)]
    static = librosa.feature.mfcc(S=librosa.power_to_db(mel, amin=1e-10, top_db=None), n_mfcc=COEFFICIENTS)
    differences = [librosa.feature.delta(static, width=DIFFERENCE, order=order, mode="nearest") for order in (1, 2)]
    frames = np.concatenate([static, *differences]).T[keep]
    return np.asarray(frames - frames.mean(0) if cmn else frames, dtype=np.float64)


def speech_frames(samples: Array, window: int, hop: int) -> NDArray[np.bool_]:
    """Which frames (T,) are less than 30 dB below the loudest; digital silence never is."""
    if len(samples) < window:
        return np.zeros(0, dtype=bool)
    energy = np.square(np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]).sum(-1)
    loud: NDArray[np.bool_] = (energy > energy.max() * 10 ** (-QUIET_DB / 10)) & (energy > 0)
    return loud


def train(frames: Sequence[Array], options: Options, progress: Callable[[str], None] = lambda line: None) -> Extractor:
    """Learn background model and total variability from utterances.

    Args:
        frames: MFCC of each utterance (T, D).
        options: Sizes.
        progress: Is told, a line at a time, what is being done.

    Raises:
        UserError: The utterances are too few for these sizes.
    """
    options.check()
    total = sum(len(one) for one in frames)
    if total < 10 * options.components:
        raise UserError(
            f"{len(frames)} training utterances hold {total} frames of speech, too few for {options.components} "
            f"Gaussians (10 for each): give --components {max(1, total // 10)} or fewer, or more training data."
        )
    together = np.concatenate(frames)
    mean, scale = together.mean(0), together.std(0) + 1e-12
    progress(f"background model: {options.components} Gaussians, {options.covariance}, on {total} frames")
    mixture, notes = _fit_mixture((together - mean) / scale, options)
    extractor = Extractor(mean, scale, mixture, np.zeros((0, 0, 0)), (), tuple(notes))
    counts = statistics(extractor, frames)
    progress(f"total variability: {options.dim} values, {options.iterations} steps on {len(frames)} utterances")
    T = start(options.components, together.shape[1], options.dim, options.seed)
    totals = []
    for _ in range(options.iterations):
        T, total_log = step(T, counts)
        totals.append(total_log / total)
    return extractor._replace(T=T, log_likelihood=tuple(totals))


def statistics(extractor: Extractor, frames: Sequence[Array]) -> Statistics:
    """What the background model's components have seen of each utterance, centred and whitened."""
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
    found = [np.zeros((0, rank))]
    for begin in range(0, len(frames), at_once):
        found.append(posterior(extractor.T, statistics(extractor, frames[begin : begin + at_once])).mean)
    return np.concatenate(found)


def _fit_mixture(x: Array, options: Options) -> tuple[GaussianMixture, list[str]]:
    """The background model on standardised frames (T, D)."""
    import torch
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    notes = []
    if len(x) > MOST_FRAMES:
        generator = torch.Generator().manual_seed(options.seed)
        x = x[torch.randperm(len(x), generator=generator)[:MOST_FRAMES].numpy()]
        notes.append(f"the background model is trained on {MOST_FRAMES} frames drawn from all")
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
        notes.append("the background model was still changing after 50 steps of EM, as it may")
    return mixture, notes
