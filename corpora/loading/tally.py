"""Counts of resampled, mixed, short and broken utterances of a split, for reports."""

from __future__ import annotations

from collections import Counter

from corpora.loading.cache import Reading
from corpora.types import Corpus

__all__ = ["Tally"]


class Tally:
    """Counts of resampled, mixed, short and broken utterances of a split.

    Args:
        split: The split's name.
        total: Number of its utterances.
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
        """Count a usable utterance."""
        if reading.remark:
            self.odd.setdefault(reading.remark, []).append(file)
        if reading.rate not in (0, self.rate):
            self.rates[reading.rate] += 1
        self.mixed += reading.channels > 1

    def lines(self, sequence_frames: int | None, short: str) -> list[str]:
        """The lines of the report, one for each kind of remark."""
        lines = []
        of_files = f"of {self.total} files"
        if self.rates:
            counts = ", ".join(f"{count} from {rate} Hz" for rate, count in sorted(self.rates.items()))
            lines.append(f"{self.split}: resampled {self.rates.total()} {of_files} to {self.rate} Hz ({counts})")
        if self.mixed:
            lines.append(f"{self.split}: mixed {self.mixed} {of_files} from several channels to mono")
        for odd, files in self.odd.items():
            lines.append(f"{self.split}: of {len(files)} {of_files} {odd}: {', '.join(files)}")
        if self.short and short == "keep":
            lines.append(
                f"{self.split}: {len(self.short)} {of_files} are shorter than a sequence of {sequence_frames} frames"
            )
        elif self.short:
            lines.append(
                f"{self.split}: left out {len(self.short)} {of_files}, shorter than one sequence of "
                f"{sequence_frames} frames (to use them, reduce data.sequence_frames or set "
                f"data.short_utterances=keep; frames of each in parentheses): {', '.join(self.short)}"
            )
        if self.broken:
            lines.append(f"{self.split}: skipped {len(self.broken)} broken {of_files}: {', '.join(self.broken)}")
        return lines

    def nothing_left(self, corpus: Corpus, sequence_frames: int | None) -> str:
        """The error message for a split without any sequence."""
        where = f"no sequence left in split {self.split!r} of corpus {corpus.name} {corpus.root}".rstrip()
        if self.total == 0:
            return f"{where}: it has no utterances."
        counts = f"{self.total} utterances, {len(self.broken)} broken, {len(self.short)} shorter than one sequence"
        if not self.short:
            return f"{where}: {counts}.\nRepair the files; the lines above list the fault of each."
        remedy = "Reduce data.sequence_frames, or set it to null for whole utterances."
        return f"{where}: {counts} of {sequence_frames} frames.\n{remedy}"
