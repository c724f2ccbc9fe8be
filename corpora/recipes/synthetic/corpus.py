"""The built-in corpus: synthetic speech whose speakers and words are known.

``python -m corpora.recipes.synthetic.corpus --picture FILE`` draws two speakers saying the same sentence;
``python -m corpora.recipes.synthetic.corpus --audio DIR`` writes the corpus as files, in the layout of corpus
``folder``.

Labels of an utterance: ``pitch_hz``, ``tract_length`` (cm) and ``breathiness`` of its speaker, and
``content``, the list of its phones as (name, start, end) in samples, end exclusive.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch

from corpora.recipes.synthetic.phones import Spoken, random_sentence
from corpora.recipes.synthetic.source_filter import Speaker, speak, step_samples
from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus, Sound, Utterance
from dvae_pyro.errors import UserError

__all__ = ["SIZES", "Placed", "Size", "draw_speakers", "make_splits", "open_synthetic", "place", "same_words"]


class Size(NamedTuple):
    """How large a split is."""

    speakers: int
    utterances_each: int


#: About 6 minutes to train, 40 s to validate and to test.
SIZES: dict[str, Size] = {"train": Size(20, 4), "valid": Size(3, 3), "test": Size(3, 3)}

SHORTEST_CM, LONGEST_CM = 13.5, 18.5
LOWEST_HZ, OCTAVES = 88.0, 1.45


class Placed(NamedTuple):
    """A phone in an utterance: from sample `start` to before sample `end`."""

    name: str
    start: int
    end: int


def open_synthetic(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Make the corpus of a seed: who says what is settled here, the sound is made when it is loaded."""
    if settings.root is not None:
        raise UserError(
            f"corpus 'synthetic' is built in and reads no folder, got root {settings.root}.\n"
            "To read that folder give --corpus folder, else leave out --root (data.root=null)."
        )
    splits = make_splits(settings.rate, seed)
    return Corpus("synthetic", "", {split: splits[split] for split in needed})


def make_splits(rate: int, seed: int, sizes: Mapping[str, Size] | None = None) -> dict[str, list[Utterance]]:
    """Utterances of every split, or of those that `sizes` names."""
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
    """Speakers for each split, none in two of them, each split spread evenly over all voices.

    Shorter vocal tracts go with higher pitch, as in people, but only by half: the rest is the speaker's own.
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
    """Where the phones of a sentence lie, in samples."""
    placed: list[Placed] = []
    start = 0
    for phone in sentence:
        end = start + phone.steps * step_samples(rate)
        placed.append(Placed(phone.name, start, end))
        start = end
    return placed


def same_words(speakers: Sequence[Speaker], rate: int, seed: int = 0) -> list[Utterance]:
    """One sentence said by several speakers: utterances that share their content, phone by phone in time."""
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
    """Draw the longest and the shortest vocal tract saying the same sentence, with its phones."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    from corpora.frontends.stft import Stft

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
    """Write the corpus as WAV files below `folder`; the number of files."""
    import soundfile

    splits = make_splits(rate, seed)
    utterances = [utterance for split in splits.values() for utterance in split]
    for utterance in utterances:
        path = folder / utterance.file
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, utterance.sound().samples, rate, subtype="PCM_16")
    return len(utterances)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: draw the corpus, or write it out."""
    parser = argparse.ArgumentParser(
        prog="python -m corpora.recipes.synthetic.corpus", description="The built-in speech."
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw two speakers saying the same words")
    parser.add_argument("--audio", type=Path, metavar="DIR", help="write the corpus as WAV files")
    parser.add_argument("--rate", type=int, default=16000, metavar="HZ", help="sampling rate (16000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another corpus (0)")
    given = parser.parse_args(arguments)
    if given.picture is None and given.audio is None:
        parser.error("nothing to do: give --picture FILE or --audio DIR")
    try:
        if given.picture is not None:
            draw(given.picture, given.rate, given.seed)
            print(f"drew {given.picture}")
        if given.audio is not None:
            print(f"wrote {write(given.audio, given.rate, given.seed)} files below {given.audio}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write {error.filename}: {error.strerror}; give another path.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
