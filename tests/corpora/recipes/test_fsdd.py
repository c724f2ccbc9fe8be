"""fsdd: splits by takes, strings of one speaker, and a rate of its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from corpora.frontends.registry import open_frontend
from corpora.recipes.fsdd import PASSES
from corpora.registry import open_corpus
from corpora.types import Corpus
from dvae_pyro.errors import UserError
from inference.settings.resolve import resolve
from inference.settings.tree import DataSettings

SPEAKERS = ("ann", "bob")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers, 12 takes of three digits, each of a length and value of its own."""
    root = tmp_path_factory.mktemp("fsdd")
    for s, speaker in enumerate(SPEAKERS):
        (root / speaker).mkdir()
        for digit in range(3):
            for take in range(12):
                value = (100 * s + 20 * digit + take + 1) / 256
                samples = np.full(400 + 10 * take + digit, value)
                soundfile.write(root / speaker / f"{digit}_{speaker}_{take}.wav", samples, 8000)
    (root / "readme.wav").touch()
    return root


def opened(root: Path, **more: Any) -> Corpus:
    return open_corpus(DataSettings(corpus="fsdd", root=str(root), rate=8000, **more), more.get("seed", 0))


def said(labels: Any) -> list[str]:
    return list(labels["transcript"])


def test_takes_decide_the_split_and_names_the_labels(tree: Path) -> None:
    corpus = opened(tree)
    takes = {split: {int(u.file[:-4].split("_")[-1]) for u in found} for split, found in corpus.splits.items()}
    assert takes == {"train": {10, 11}, "valid": {5, 6, 7, 8, 9}, "test": {0, 1, 2, 3, 4}}
    for found in corpus.splits.values():
        assert [u.file for u in found] == sorted(u.file for u in found)
        assert all(u.file.startswith(f"{u.speaker}/{said(u.labels)[0]}_") for u in found)
    assert len(corpus.splits["test"]) == 30


def test_strings_join_digits_of_one_speaker_and_split_each_as_often(tree: Path) -> None:
    single, strings = opened(tree), opened(tree, subset="strings")
    for split, found in strings.splits.items():
        parts: dict[float, Any] = {u.sound().samples[0, 0]: u for u in single.splits[split]}
        seen: Counter[str] = Counter()
        for string in found:
            samples = string.sound().samples[:, 0]
            starts = np.flatnonzero(np.diff(samples, prepend=-1.0))
            digits = [parts[samples[start]] for start in starts]
            assert [said(d.labels)[0] for d in digits] == said(string.labels) and 3 <= len(digits) <= 9
            assert {d.speaker for d in digits} == {string.speaker}
            assert string.source == tuple(path for d in digits for path in d.source)
            lengths = [len(d.sound().samples) for d in digits]
            assert np.diff([*starts, len(samples)]).tolist() == lengths and string.sound().rate == 8000
            seen.update(d.file for d in digits)
        assert dict(seen) == {u.file: PASSES for u in single.splits[split]}
    assert [u.file for u in strings.splits["test"]] == [u.file for u in opened(tree, subset="strings").splits["test"]]
    assert [u.file for u in strings.splits["test"]] != [
        u.file for u in opened(tree, subset="strings", seed=1).splits["test"]
    ]


def test_the_shared_copy_has_its_splits(shared: Path) -> None:
    corpus = opened(shared / "corpora/fsdd")
    counts = {split: Counter(u.speaker for u in found) for split, found in corpus.splits.items()}
    assert {split: set(count.values()) for split, count in counts.items()} == {
        **{"train": {300}, "valid": {50}, "test": {50}},
    }
    assert all(len(count) == 6 for count in counts.values())


def test_it_is_read_at_its_own_rate_with_mel_bands_to_4_khz() -> None:
    settings = resolve("fhvae", overrides=["data.corpus=fsdd", "data.root=nowhere", "model.bins=40"])
    frontend: Any = open_frontend(settings.data, 40)
    assert (settings.data.rate, settings.data.short_utterances, frontend.hop) == (8000, "keep", 80)
    tone = np.sin(2 * np.pi * 3900 * np.arange(8000) / 8000)
    assert set(frontend.features(tone)[5:-5].argmax(1)) <= {38, 39}
    assert resolve("fhvae", overrides=["data.corpus=fsdd", "data.rate=16000"]).data.rate == 16000


def test_what_cannot_be_read_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.subset=string\b.*null"):
        opened(tree, subset="string")
    with pytest.raises(UserError, match=r" 10 .* train.*george/7_george_10"):
        opened(tmp_path)
