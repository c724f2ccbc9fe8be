"""The built-in corpus: synthetic speech with known speakers and phones.

``python -m corpora.recipes.synthetic.corpus --picture FILE`` plots spectrograms of two speakers saying the same
sentence; ``python -m corpora.recipes.synthetic.corpus --out DIR`` writes the corpus as files, in the layout of corpus
``folder``.

Labels of an utterance: ``pitch_hz``, ``tract_length`` (cm) and ``breathiness`` of its speaker, and
``content``, the list of its phones as (name, start, end) in samples, end exclusive.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch

from corpora.frontends.stft import Stft
from corpora.recipes.synthetic.phones import Spoken, random_sentence
from corpora.recipes.synthetic.source_filter import Speaker, speak, step_samples
from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus, Sound, Utterance
from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError

__all__ = ["SIZES", "Placed", "Size", "draw_speakers", "make_splits", "open_synthetic", "place", "same_words"]


class Size(NamedTuple):
    """The size of a split."""

    speakers: int
    utterances_each: int


#: About 6 minutes of training data, 40 s each for validation and test.
SIZES: dict[str, Size] = {"train": Size(20, 4), "valid": Size(3, 3), "test": Size(3, 3)}

SHORTEST_CM, LONGEST_CM = 13.5, 18.5
LOWEST_HZ, OCTAVES = 88.0, 1.45


class Placed(NamedTuple):
    """A phone of an utterance, from sample `start` to sample `end` (exclusive)."""

    name: str
    start: int
    end: int


def open_synthetic(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Generate the corpus of a seed: speakers and sentences are drawn here, sound is synthesised on loading."""
    if settings.root is not None:
        raise UserError(
            f"corpus 'synthetic' is built in and reads no folder, got data.root={settings.root}.\n"
            "To read that folder give --corpus folder, else omit --root (data.root=null)."
        )
    splits = make_splits(settings.rate, seed)
    return Corpus("synthetic", "", {split: splits[split] for split in needed})


def make_splits(rate: int, seed: int, sizes: Mapping[str, Size] | None = None) -> dict[str, list[Utterance]]:
    """The utterances of all splits, or of those in `sizes`."""
    if rate < 4000:
        raise UserError(f"data.rate: got {rate} Hz, synthetic speech needs 4000 or more.")
    sizes = SIZES if sizes is None else sizes
    speakers = draw_speakers(seed, {split: size.speakers for split, size in sizes.items()})
    return {
        split: [
            _utterance(split, speaker, index, rate, seed)
            for speaker in speakers[split]
            for index in range(size.utterances_each)
        ]
        for split, size in sizes.items()
    }


def draw_speakers(seed: int, counts: Mapping[str, int]) -> dict[str, list[Speaker]]:
    """Draw speakers for each split; splits are speaker-disjoint, and each covers the voices evenly.

    Half of the variation of pitch follows the length of the vocal tract (shorter is higher), the other half is
    independent of it.
    """
    shift = torch.rand(3, generator=_generator(seed, "speakers"), dtype=torch.float64)
    # Steps of an additive recurrence that fills a cube evenly (powers of the root of x^4 = x + 1).
    strides = 1.2207440846057596 ** -torch.arange(1, 4, dtype=torch.float64)
    speakers: dict[str, list[Speaker]] = {}
    number = 0
    for split, count in counts.items():
        speakers[split] = []
        for _ in range(count):
            tract, own, breath = ((shift + number * strides) % 1.0).tolist()
            pitch = LOWEST_HZ * 2 ** (OCTAVES * (0.5 * (1 - tract) + 0.5 * own))
            length = SHORTEST_CM + (LONGEST_CM - SHORTEST_CM) * tract
            speakers[split].append(Speaker(f"s{number:03d}", pitch, length, breath))
            number += 1
    return speakers


def place(sentence: Sequence[Spoken], rate: int) -> list[Placed]:
    """The positions of a sentence's phones, in samples."""
    placed: list[Placed] = []
    start = 0
    for phone in sentence:
        end = start + phone.steps * step_samples(rate)
        placed.append(Placed(phone.name, start, end))
        start = end
    return placed


def same_words(speakers: Sequence[Speaker], rate: int, seed: int = 0) -> list[Utterance]:
    """One sentence said by several speakers: utterances with the same phones at the same times."""
    sentence = random_sentence(_generator(seed, "same words"), 2.2, 2.6)
    return [_labelled(f"{speaker.name}.wav", speaker, sentence, rate, seed) for speaker in speakers]


def _generator(*key: object) -> torch.Generator:
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _utterance(split: str, speaker: Speaker, index: int, rate: int, seed: int) -> Utterance:
    file = f"{split}/{speaker.name}/{speaker.name}-{index:03d}.wav"
    return _labelled(file, speaker, random_sentence(_generator(seed, file, "content")), rate, seed)


def _labelled(file: str, speaker: Speaker, sentence: Sequence[Spoken], rate: int, seed: int) -> Utterance:
    labels = {
        "pitch_hz": speaker.pitch_hz,
        "tract_length": speaker.tract_length,
        "breathiness": speaker.breathiness,
        "content": place(sentence, rate),
    }
    source = (speaker, tuple(sentence), rate, seed, file)
    return Utterance(file, speaker.name, functools.partial(_say, *source), labels, source)


def _say(speaker: Speaker, sentence: Sequence[Spoken], rate: int, seed: int, file: str) -> Sound:
    return Sound(speak(speaker, sentence, rate, _generator(seed, file, "sound"))[:, None], rate)


def draw(path: Path, rate: int = 16000, seed: int = 0) -> None:
    """Plot spectrograms of the speakers with the highest and lowest pitch saying the same sentence, with phones."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    voices = sorted(draw_speakers(seed, {"train": SIZES["train"].speakers})["train"], key=lambda s: s.pitch_hz)
    frontend = Stft(rate, 2 * round(0.016 * rate), round(0.004 * rate), trim_db=None)
    figure, axes = plt.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained")
    for axis, utterance in zip(axes, same_words([voices[0], voices[-1]], rate, seed), strict=True):
        level = 10 * np.log10(frontend.features(frontend.prepare(utterance.sound())).T + 1e-10)
        top, seconds = float(level.max()), level.shape[1] * frontend.hop / rate
        extent = (0.0, seconds, 0.0, rate / 2000)
        image = axis.imshow(level, origin="lower", aspect="auto", extent=extent, vmin=top - 70, vmax=top, cmap="magma")
        for name, start, end in cast("list[Placed]", utterance.labels["content"]):
            axis.axvline(end / rate, color="white", linewidth=0.3)
            axis.text((start + end) / 2 / rate, rate / 2000 * 0.96, name, color="white", ha="center", va="top")
        pitch, length = utterance.labels["pitch_hz"], utterance.labels["tract_length"]
        axis.set_title(f"pitch {pitch:.0f} Hz, vocal tract {length:.1f} cm")
        axis.set_ylabel("kHz")
        figure.colorbar(image, ax=axis, label="dB", pad=0.01)
    axes[-1].set_xlabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=75)
    plt.close(figure)


def write(folder: Path, rate: int = 16000, seed: int = 0) -> int:
    """Write the corpus as WAV files below `folder`; returns the number of files."""
    import soundfile

    splits = make_splits(rate, seed)
    utterances = [utterance for split in splits.values() for utterance in split]
    for utterance in utterances:
        path = folder / utterance.file
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, utterance.sound().samples, rate, subtype="PCM_16")
    return len(utterances)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: plot spectrograms, or write the corpus as files."""
    parser = Parser("corpora.recipes.synthetic.corpus", "The built-in speech.")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw two speakers saying the same sentence")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the corpus as WAV files")
    parser.add_argument("--rate", type=int, default=16000, metavar="HZ", help="sampling rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the corpus (default: %(default)s)")

    def command() -> None:
        args = parser.parse(argv)
        if args.picture is None and args.out is None:
            parser.error("nothing to do: give --picture FILE or --out DIR")
        try:
            if args.picture is not None:
                draw(args.picture, args.rate, args.seed)
                print(f"wrote {args.picture}")
            if args.out is not None:
                print(f"wrote {write(args.out, args.rate, args.seed)} files below {args.out}")
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"cannot write {error.filename}: {error.strerror}; give another path.") from error

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
