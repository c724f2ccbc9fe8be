"""Layouts of speech corpora: recognised from paths, a test set never in training, refusals in place of guesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from corpora.recipes.layouts.table import LAYOUTS, NONE, SPLITS_AT_TOP
from corpora.registry import check_data, open_corpus
from corpora.types import SPLITS, Corpus
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data


class Tree(NamedTuple):
    """A made tree: its audio files, the layout it has, what is said, and each split as {file: speaker}."""

    files: Sequence[str]
    line: str
    splits: Mapping[str, Mapping[str, str]]
    texts: Mapping[str, str] = {}


def _many(pattern: str, count: int) -> list[str]:
    return [pattern.format(n) for n in range(count)]


COMMON_VOICE = {
    "cv/en/train.tsv": 'client_id\tpath\tsentence\nanna\tcommon_voice_en_1.mp3\t"so\nben\tcommon_voice_en_2.mp3\t\n',
    "cv/en/dev.tsv": "client_id\tpath\ncarl\tcommon_voice_en_3.mp3\n",
    "cv/en/test.tsv": "client_id\tpath\ndora\tcommon_voice_en_4\n",
}
SPEECHOCEAN = {
    "train/utt2spk": "".join(f"{n:09d}\t{n:04d}\n" for n in range(10)),
    "test/utt2spk": "000000010\t0010\n",
}

TREES: dict[str, Tree] = {
    "librispeech": Tree(
        [
            "train-clean-100/19/198/19-198-0000.flac",
            "train-other-500/20/205/20-205-0000.flac",
            "dev-clean/84/121123/84-121123-0000.flac",
            "test-clean/61/70968/61-70968-0000.flac",
            "test-other/367/130732/367-130732-0000.flac",
        ],
        "layout LibriSpeech: train-* to train, dev-* to valid, test-* to test; speaker = second folder (5)",
        {
            "train": {
                "train-clean-100/19/198/19-198-0000.flac": "19",
                "train-other-500/20/205/20-205-0000.flac": "20",
            },
            "valid": {"dev-clean/84/121123/84-121123-0000.flac": "84"},
            "test": {
                "test-clean/61/70968/61-70968-0000.flac": "61",
                "test-other/367/130732/367-130732-0000.flac": "367",
            },
        },
    ),
    "libritts": Tree(
        [
            "LibriTTS/train-clean-100/19/198/19_198_000000_000001.wav",
            "LibriTTS/dev-clean/84/121123/84_121123_000007_000001.wav",
            "LibriTTS/test-other/61/70968/61_70968_000000_000000.WAV",
        ],
        "layout LibriTTS: train-* to train, dev-* to valid, test-* to test; speaker = third folder (3)",
        {
            "train": {"LibriTTS/train-clean-100/19/198/19_198_000000_000001.wav": "19"},
            "valid": {"LibriTTS/dev-clean/84/121123/84_121123_000007_000001.wav": "84"},
            "test": {"LibriTTS/test-other/61/70968/61_70968_000000_000000.WAV": "61"},
        },
    ),
    "mls": Tree(
        [
            "train/audio/1085/1101/1085_1101_000000.flac",
            "dev/audio/7/8/7_8_000000.opus",
            "test/audio/9/8/9_8_000000.opus",
        ],
        "layout Multilingual LibriSpeech: train to train, dev to valid, test to test; speaker = third folder (3)",
        {
            "train": {"train/audio/1085/1101/1085_1101_000000.flac": "1085"},
            "valid": {"dev/audio/7/8/7_8_000000.opus": "7"},
            "test": {"test/audio/9/8/9_8_000000.opus": "9"},
        },
    ),
    "aishell": Tree(
        [
            "data_aishell/wav/train/S0002/BAC009S0002W0122.wav",
            "data_aishell/wav/dev/S0724/BAC009S0724W0121.wav",
            "data_aishell/wav/test/S0764/BAC009S0764W0121.wav",
        ],
        "layout AISHELL-1: train to train, dev to valid, test to test; speaker = fourth folder (3)",
        {
            "train": {"data_aishell/wav/train/S0002/BAC009S0002W0122.wav": "S0002"},
            "valid": {"data_aishell/wav/dev/S0724/BAC009S0724W0121.wav": "S0724"},
            "test": {"data_aishell/wav/test/S0764/BAC009S0764W0121.wav": "S0764"},
        },
    ),
    "common_voice": Tree(
        [f"cv/en/clips/common_voice_en_{n}.mp3" for n in range(1, 6)],
        "layout Common Voice: train.tsv to train, dev.tsv to valid, test.tsv to test; speaker = from the lists (4); "
        "left out 1 files that are in no list of a split",
        {
            "train": {"cv/en/clips/common_voice_en_1.mp3": "anna", "cv/en/clips/common_voice_en_2.mp3": "ben"},
            "valid": {"cv/en/clips/common_voice_en_3.mp3": "carl"},
            "test": {"cv/en/clips/common_voice_en_4.mp3": "dora"},
        },
        COMMON_VOICE,
    ),
    "voxceleb": Tree(
        [
            *_many("wav/id1000{}/1zcIwhmdeo4/00001.wav", 10),
            "wav/id10270/x6uYqmx31kE/00001.wav",
            "wav/id10309/a/00001.wav",
        ],
        "layout VoxCeleb: all others to train, 10 % of the speakers of these to valid by seed 0, speakers of its test "
        "list to test; speaker = second folder (12)",
        {"test": {"wav/id10270/x6uYqmx31kE/00001.wav": "id10270", "wav/id10309/a/00001.wav": "id10309"}},
    ),
    "voxceleb, parts": Tree(
        [*_many("vox2_dev_wav/id0001{}/abc/00001.wav", 10), "vox2_test_wav/id00017/abc/00001.wav"],
        "layout VoxCeleb: vox2_dev_wav to train, 10 % of the speakers of these to valid by seed 0, vox2_test_wav to "
        "test; speaker = second folder (10)",
        {"test": {"vox2_test_wav/id00017/abc/00001.wav": "id00017"}},
    ),
    "speechocean762": Tree(
        [f"WAVE/SPEAKER{n:04d}/{n:09d}.WAV" for n in range(11)],
        "layout speechocean762: train/utt2spk to train, 10 % of the speakers of these to valid by seed 0, test/utt2spk "
        "to test; speaker = second folder (11)",
        {"test": {"WAVE/SPEAKER0010/000000010.WAV": "SPEAKER0010"}},
        SPEECHOCEAN,
    ),
    "splits": Tree(
        ["TRAIN/anna/1.wav", "train_si284/wav/ben/deep/1.wav", "Val/carl/1.wav", "test/2.wav", "noise/1.wav", "a.wav"],
        "layout splits: TRAIN, train_* to train, Val to valid, test to test; speaker = a folder, or the file's name "
        "if there is none (4); left out 1 files that are in no folder of a split; left out 1 files in noise/, which "
        "names no split",
        {
            "train": {"TRAIN/anna/1.wav": "anna", "train_si284/wav/ben/deep/1.wav": "ben"},
            "valid": {"Val/carl/1.wav": "carl"},
            "test": {"test/2.wav": "2"},
        },
    ),
    "splits, eval": Tree(
        ["train/a/1.wav", "dev/b/1.wav", "eval/c/1.wav"],
        "layout splits: train to train, dev to valid, eval to test; speaker = second folder (3)",
        {"train": {"train/a/1.wav": "a"}, "valid": {"dev/b/1.wav": "b"}, "test": {"eval/c/1.wav": "c"}},
    ),
    "splits, eval alone": Tree(
        ["train/a/1.wav", "eval/b/1.wav", "test/c/1.wav"],
        "layout splits: train to train, eval to valid, test to test; speaker = second folder (3)",
        {"train": {"train/a/1.wav": "a"}, "valid": {"eval/b/1.wav": "b"}, "test": {"test/c/1.wav": "c"}},
    ),
}


def _made(root: Path, files: Sequence[str], texts: Mapping[str, str] | None = None) -> Path:
    """A tree of empty files: paths alone are looked at."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    for file, text in (texts or {}).items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    return root


def _open(root: Path, needed: Sequence[str] = SPLITS, seed: int = 0, **settings: object) -> Corpus:
    return open_corpus(Data(corpus="folder", root=str(root), **settings), seed, needed)  # type: ignore[arg-type]  # settings by name


@pytest.mark.parametrize("name", TREES)
def test_a_layout_is_recognised_and_said(tmp_path: Path, name: str) -> None:
    tree = TREES[name]
    corpus = _open(_made(tmp_path / "root", tree.files, tree.texts))
    assert corpus.layout == tree.line
    for split, expected in tree.splits.items():
        assert {u.file: u.speaker for u in corpus.splits[split]} == expected
    together = [u.file for split in SPLITS for u in corpus.splits[split]]
    assert len(together) == len(set(together))
    chosen = _open(tmp_path / "root", layout=name.partition(",")[0])
    assert chosen.splits == corpus.splits and chosen.layout == corpus.layout


def test_a_test_set_trains_in_no_tree(tmp_path: Path) -> None:
    for name, tree in TREES.items():
        corpus = _open(_made(tmp_path / name, tree.files, tree.texts), ["train", "valid"])
        speakers = [{u.speaker for u in corpus.splits[split]} for split in ("train", "valid")]
        assert not any("test" in u.file.lower() for split in corpus.splits.values() for u in split)
        assert not speakers[0] & speakers[1]
        held = set(tree.splits["test"])
        assert not held & {u.file for split in corpus.splits.values() for u in split}


def test_vctk_has_one_microphone_of_an_utterance(tmp_path: Path) -> None:
    both = [
        f"wav48_silence_trimmed/p{n}/p{n}_00{k}_mic{m}.flac" for n in range(225, 235) for k in (1, 2) for m in (1, 2)
    ]
    both.remove("wav48_silence_trimmed/p225/p225_001_mic1.flac")
    old = [f"VCTK-Corpus/wav48/p{n}/p{n}_001.wav" for n in range(225, 235)]
    corpus = _open(_made(tmp_path / "new", both))
    found = [u for split in SPLITS for u in corpus.splits[split]]
    assert corpus.layout == (
        "layout VCTK: no folders of splits: 10 % of the speakers to valid, 10 % to test by seed 0; speaker = second "
        "folder (10); left out 19 files that are another recording (microphone) of an utterance that is read"
    )
    assert len(found) == 20 and sum("mic2" in u.file for u in found) == 1
    assert {split: len({u.speaker for u in corpus.splits[split]}) for split in SPLITS} == {
        "train": 8,
        "valid": 1,
        "test": 1,
    }
    assert len({u.speaker for u in found}) == 10
    assert "layout VCTK" in _open(_made(tmp_path / "old", old)).layout


def test_one_speaker_is_split_by_files(tmp_path: Path) -> None:
    corpus = _open(_made(tmp_path, _many("LJSpeech-1.1/wavs/LJ001-00{:02d}.wav", 20)))
    assert {u.speaker for u in corpus.splits["train"]} == {""}
    assert {split: len(found) for split, found in corpus.splits.items()} == {"train": 16, "valid": 2, "test": 2}
    assert "10 % of the files to valid" in corpus.layout and "speaker = one for the whole corpus" in corpus.layout


def test_arctic_names_speakers_and_leaves_originals_out(tmp_path: Path) -> None:
    files = [
        f"cmu_us_{name}_arctic/{kind}/arctic_a0001.wav" for name in ("bdl", "slt", "rms") for kind in ("wav", "orig")
    ]
    corpus = _open(_made(tmp_path, files))
    assert {u.speaker for split in SPLITS for u in corpus.splits[split]} == {"bdl", "slt", "rms"}
    assert corpus.layout.endswith(
        "speaker = first folder (3); left out 3 files in orig/ (as recorded; wav/ has the same sentences)"
    )


@pytest.mark.parametrize("loader", ["timit", "voicebank", "wsj0"])
def test_a_corpus_with_a_loader_is_read_by_it(tmp_path: Path, loader: str) -> None:
    files = {
        "timit": ["TIMIT/TRAIN/DR1/FCJF0/SX217.WAV", "TIMIT/TRAIN/DR1/FCJF0/SA1.WAV", "TIMIT/TEST/DR1/FAKS0/SX223.WAV"],
        "voicebank": ["clean_trainset_28spk_wav/p226_001.wav", "clean_trainset_28spk_wav/p227_001.wav"],
        "wsj0": ["wsj0/si_tr_s/011/011c0201.wv1", "wsj0/si_dt_05/050/050c0101.wv1"],
    }[loader]
    corpus = _open(_made(tmp_path, files), ["train", "valid"])
    assert corpus.name == loader and corpus.layout.endswith(f"read by the loader of --corpus {loader}")
    same = open_corpus(Data(corpus=loader, root=str(tmp_path)), 0, ["train", "valid"])
    assert corpus.splits == same.splits and len(corpus.splits["train"]) == 1


def test_a_subset_alone_is_what_its_name_says(tmp_path: Path) -> None:
    files = [f"{n}/198/{n}-198-0000.flac" for n in range(10)]
    tested = _made(tmp_path / "LibriSpeech/test-clean", files)
    assert len(_open(tested, ["test"]).splits["test"]) == 10
    with pytest.raises(UserError, match=r" train .*test \(10 "):
        _open(tested, ["train"])
    trained = _open(_made(tmp_path / "LibriSpeech/train-clean-100", files), ["train", "valid"])
    assert {split: len(found) for split, found in trained.splits.items()} == {"train": 9, "valid": 1}
    assert "10 % of the speakers of these to valid" in trained.layout


def test_a_validation_set_is_taken_out_of_the_training_set_whatever_is_asked_for(tmp_path: Path) -> None:
    root = _made(tmp_path, [*_many("train/{}/1.wav", 20), "test/x/1.wav"])
    both, alone = _open(root, ["train", "valid"]), _open(root, ["train", "test"])
    assert len(both.splits["valid"]) == 2 and both.splits["train"] == alone.splits["train"]
    assert "split by seed 0: 2 of 20 files, 2 of 20 speakers (splits are speaker-disjoint)" in both.notes["valid"]


def test_fewer_than_ten_files_are_not_parted(tmp_path: Path) -> None:
    root = _made(tmp_path, _many("train/{}/1.wav", 9))
    assert len(_open(root, ["train"]).splits["train"]) == 9
    with pytest.raises(UserError, match=r" valid .*train \(9 "):
        _open(root, ["train", "valid"])


def test_speakers_of_two_splits_are_said(tmp_path: Path) -> None:
    corpus = _open(_made(tmp_path, ["train/anna/1.wav", "train/ben/1.wav", "dev/anna/2.wav"]), ["train", "valid"])
    assert corpus.notes["train"] == ["1 of 2 speakers are also in another split, such as anna"]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["clips/train/anna/1.wav", "clips/test/ben/1.wav"], "clips/test/, clips/train/"),
        (["my_train/anna/1.wav", "my_test/ben/1.wav"], "my_test/, my_train/"),
        (["train/anna/1.wav", "train/testing/2.wav"], "train/testing/"),
        (["anna/dev/1.wav", "ben/2.wav"], "anna/dev/"),
        (["train/a/1.wav", "dev/b/1.wav", "eval/c/1.wav", "test/d/1.wav"], "eval is valid or test"),
    ],
)
def test_what_would_be_a_guess_is_refused_with_the_choices(tmp_path: Path, files: list[str], named: str) -> None:
    root = _made(tmp_path / "root", files)
    with pytest.raises(UserError) as refused:
        _open(root, ["train"])
    assert named in str(refused.value) and "ambiguous" in str(refused.value)
    if "eval/c/1.wav" not in files:
        assert all(f"data.layout={word}" in str(refused.value) for word in ("NAME", NONE))


def test_a_mixture_of_corpora_is_refused_and_can_be_read_in_part(tmp_path: Path) -> None:
    files = [f"{part}/{n}/1/{n}-1-0000.flac" for n in range(5) for part in ("train-clean-100", "dev-clean")]
    root = _made(tmp_path, [*files, "train-more/anna/1.wav"])
    with pytest.raises(UserError, match=r"10 of 11 .*LibriSpeech.*train-more/anna/1\.wav"):
        _open(root, ["train"])
    corpus = _open(root, ["train"], layout="librispeech")
    assert len(corpus.splits["train"]) == 5
    assert corpus.layout.endswith("left out 1 files that do not have the layout of LibriSpeech")
    assert len(_open(root, ["train"], layout=SPLITS_AT_TOP).splits["train"]) == 6


def test_no_layout_takes_the_speaker_from_a_level(tmp_path: Path) -> None:
    root = _made(tmp_path, [f"train/{accent}/{n}{accent}/x.wav" for accent in "ab" for n in range(10)])
    for level, speakers in ((1, 1), (2, 2), (3, 20)):
        corpus = _open(root, layout=NONE, speaker_level=level)
        assert len({u.speaker for split in SPLITS for u in corpus.splits[split]}) == speakers
    assert len({u.speaker for u in _open(root, ["train"], speaker_level=3).splits["train"]}) == 18
    with pytest.raises(UserError, match="data.speaker_level="):
        _open(_made(tmp_path / "libri", TREES["librispeech"].files), speaker_level=3)


def test_what_cannot_be_chosen(tmp_path: Path) -> None:
    root = _made(tmp_path, ["train/a/1.wav", "dev/b/1.wav"])
    with pytest.raises(UserError, match=r"data\.layout=librispech\b.*'librispeech'"):
        _open(root, layout="librispech")
    with pytest.raises(UserError, match=r"data\.layout=vctk\b.*VCTK.* dev/b/1\.wav"):
        _open(root, layout="vctk")
    for key in ("layout", "speaker_level"):
        with pytest.raises(UserError, match=f"data.{key}=.*corpus 'timit'"):
            check_data(Data(corpus="timit", **{key: 1 if key == "speaker_level" else "vctk"}))  # type: ignore[arg-type]  # settings by name


@pytest.mark.parametrize("title", ["common_voice", "speechocean762"])
def test_lists_that_are_missing_are_named(tmp_path: Path, title: str) -> None:
    tree = TREES[title]
    with pytest.raises(UserError, match=r" t[a-z/0-9]+\.?[a-z]*.* splits"):
        _open(_made(tmp_path, tree.files))
    if title == "common_voice":
        _made(tmp_path, [], {"cv/en/train.tsv": "speaker\tfile\na\tb\n"})
        with pytest.raises(UserError, match="client_id"):
            _open(tmp_path)


def test_every_row_fits_its_own_example_and_no_other() -> None:
    for name, layout in LAYOUTS.items():
        fitting = [other for other, row in LAYOUTS.items() if row.pattern.fullmatch(layout.example)]
        assert fitting == [name]
