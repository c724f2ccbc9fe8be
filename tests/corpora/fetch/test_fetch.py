"""Downloads from a local server: what is said, asked, checked, cut, kept and gone on with."""

from __future__ import annotations

import functools
import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.fetch import download
from corpora.fetch.__main__ import main
from corpora.fetch.recipes import RECIPES, Excerpt, excerpts
from corpora.registry import open_corpus
from corpora.settings import DataSettings
from corpora.types import SPLITS

RATE = 16000
CUTS = {"train/1/1-a.flac": ("clean/1-a.flac", 700, 5000), "test/2/2-b.flac": ("other/2/2-b.flac", 0, 8000)}


class Served:
    """A folder behind a local server, and what was asked of it."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url
        self.requests: list[str] = []


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    root = tmp_path / "served"
    items = []
    for number, (file, (source, start, count)) in enumerate(CUTS.items()):
        samples = np.random.RandomState(number).randint(-9000, 9000, 8000).astype(np.int16)
        (root / source).parent.mkdir(parents=True)
        soundfile.write(root / source, samples, RATE, subtype="PCM_16")
        content = (root / source).read_bytes()
        kept = hashlib.sha256(samples[start : start + count].tobytes()).hexdigest()
        items.append(Excerpt(file, source, len(content), hashlib.sha256(content).hexdigest(), start, count, kept))
    monkeypatch.setattr(download, "excerpts", lambda recipe: items)
    monkeypatch.setattr(download, "TRIES", 1)
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, form: str, *args: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    result = Served(root, f"http://127.0.0.1:{server.server_address[1]}")
    result.requests = asked
    yield result
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(served: Served, out: Path, *more: str) -> int:
    return main(["librispeech-mini", "--out", str(out), "--url", served.url, *more])


def files_in(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_a_corpus_is_downloaded_cut_and_readable(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data" / "mini"
    assert fetched(served, out, "--yes") == 0
    said = capsys.readouterr().out
    for part in (
        "download 2 files, 0 MB",
        f"to       {out}",
        "CC BY 4.0",
        "Vassil Panayotov",
        f"from     {served.url}/",
    ):
        assert part in said
    assert files_in(out) == ["LICENSE.txt", *sorted(CUTS)] and not (out / ".sources").exists()
    for file, (source, start, count) in CUTS.items():
        whole, _ = soundfile.read(served.root / source, dtype="int16")
        samples, rate = soundfile.read(out / file, dtype="int16")
        assert rate == RATE and np.array_equal(samples, whole[start : start + count])
    corpus = open_corpus(DataSettings(corpus="folder", root=str(out)), 0, ["train", "test"])
    assert [u.speaker for u in corpus.splits["train"]] == ["1"]
    before = len(served.requests)
    assert fetched(served, out, "--yes") == 0
    assert "is complete" in capsys.readouterr().out and len(served.requests) == before


def test_an_interrupted_download_goes_on(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, (first, second) = tmp_path / "out", CUTS
    hidden = served.root / CUTS[second][0]
    hidden.rename(tmp_path / "hidden")
    assert fetched(served, out, "--yes") == 2
    error = capsys.readouterr().err
    assert f"cannot download {served.url}/{CUTS[second][0]}: 404" in error and "continues from here" in error
    assert files_in(out) == [first]
    (tmp_path / "hidden").rename(hidden)
    served.requests.clear()
    assert fetched(served, out, "--yes") == 0
    assert served.requests == [f"/{CUTS[second][0]}"]
    damaged = out / first
    damaged.write_bytes(damaged.read_bytes()[:2000])
    assert fetched(served, out, "--yes") == 0
    assert "download 1 files" in capsys.readouterr().out
    assert len(soundfile.read(damaged)[0]) == CUTS[first][2]


def test_a_changed_source_is_refused(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = served.root / CUTS["train/1/1-a.flac"][0]
    soundfile.write(source, np.zeros(8000, dtype=np.int16), RATE, subtype="PCM_16")
    assert fetched(served, tmp_path / "out", "--yes") == 2
    assert "clean/1-a.flac has another checksum than expected, and was not kept" in capsys.readouterr().err
    assert files_in(tmp_path / "out") == []


def test_nothing_is_downloaded_unasked(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    assert fetched(served, out) == 2
    assert "Add --yes" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert fetched(served, out) == 0
    assert "nothing was downloaded" in capsys.readouterr().out
    assert not out.exists() and not served.requests
    monkeypatch.setattr("builtins.input", lambda question: "yes")
    assert fetched(served, out) == 0 and files_in(out) == ["LICENSE.txt", *sorted(CUTS)]


def test_a_server_that_is_not_there(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["librispeech-mini", "--out", str(tmp_path / "out"), "--url", "http://127.0.0.1:9", "--yes"]) == 2
    assert "cannot download http://127.0.0.1:9/clean/1-a.flac" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "minutes", "speakers"),
    [("librispeech-mini", [15.79, 3.58, 5.10], [188, 3, 4]), ("speechocean-mini", [89.4, 15.0, 25.2], [59, 8, 16])],
)
def test_lists_have_the_speech_that_the_pages_say(name: str, minutes: list[float], speakers: list[int]) -> None:
    items = excerpts(RECIPES[name])
    assert len(items) == len({item.file for item in items}) == len({item.source for item in items})
    found = [sum(i.samples for i in items if i.file.startswith(s)) / RATE / 60 for s in SPLITS]
    assert found == pytest.approx(minutes, rel=0.02)
    sets = [{i.file.split("/")[1] for i in items if i.file.startswith(s)} for s in SPLITS]
    assert [len(each) for each in sets] == speakers and len(set.union(*sets)) == sum(speakers)


@pytest.mark.parametrize(("name", "every"), [("librispeech-mini", 4), ("speechocean-mini", 40)])
def test_the_shared_copy_is_what_would_be_downloaded(name: str, every: int, shared: Path) -> None:
    assert all(download._complete(shared / "corpora" / name / i.file, i) for i in excerpts(RECIPES[name])[::every])
