"""What happened to the utterances of a split while they were read, for the reports."""

from __future__ import annotations

from collections import Counter

from corpora.loading.cache import Reading
from corpora.types import Corpus

__all__ = ["Tally"]


class Tally:
    """What happened to the utterances of a split, for the reports.

    Args:
        split: The split's name.
        total: Its utterances.
        rate: Sampling rate of the front end, in Hz.
    """

    def __init__(self, split: str, total: int, rate: int) -> None:
        self.split, self.total, self.rate = split, total, rate
        self.rates: Counter[int] = Counter()
        self.mixed = 0
        self.broken: list[str] = []
        self.short: list[str] = []
        self.odd: dict[str, list[str]] = {}

    def count(self, file: str, reading: Reading) -> None:
        """Take note of an utterance that can be used."""
        if reading.remark:
            self.odd.setdefault(reading.remark, []).append(file)
        if reading.rate not in (0, self.rate):
            self.rates[reading.rate] += 1
        self.mixed += reading.channels > 1

    def lines(self, sequence_frames: int | None, short: str) -> list[str]:
        """What to say, a line a kind."""
        found = []
        of = f"of {self.total} files"
        if self.rates:
            counts = ", ".join(f"{count} from {rate} Hz" for rate, count in sorted(self.rates.items()))
            found.append(f"{self.split}: resampled {self.rates.total()} {of} to {self.rate} Hz ({counts})")
        if self.mixed:
            found.append(f"{self.split}: mixed {self.mixed} {of} from several channels to mono")
        found += [f"{self.split}: of {len(files)} {of} {odd}: {', '.join(files)}" for odd, files in self.odd.items()]
        if self.short and short == "keep":
            found.append(
                f"{self.split}: {len(self.short)} {of} are shorter than a sequence of {sequence_frames} frames"
            )
        elif self.short:
            found.append(
                f"{self.split}: left out {len(self.short)} {of}, shorter than one sequence of "
                f"{sequence_frames} frames (set data.sequence_frames lower, or data.short_utterances=keep, to use "
                f"them; frames of "
                f"each in parentheses): {', '.join(self.short)}"
            )
        if self.broken:
            found.append(f"{self.split}: skipped {len(self.broken)} broken {of}: {', '.join(self.broken)}")
        return found

    def nothing_left(self, corpus: Corpus, sequence_frames: int | None) -> str:
        """The message where no utterance gave a sequence."""
        where = f"no sequence left in split {self.split!r} of corpus {corpus.name} {corpus.root}".rstrip()
        if self.total == 0:
            return f"{where}: it has no utterances."
        counts = f"{self.total} utterances, {len(self.broken)} broken, {len(self.short)} shorter than one sequence"
        if not self.short:
            return f"{where}: {counts}.\nMend the files; the lines above say what is wrong with each."
        remedy = "Set data.sequence_frames lower, or null for whole utterances."
        return f"{where}: {counts} of {sequence_frames} frames.\n{remedy}"
