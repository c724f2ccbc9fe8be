"""IAM-OnDB, on a small tree made in its layout: lines, splits, writers, and every fault by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_sequences
from corpora.registry import open_corpus
from corpora.types import Frames
from dvae_pyro.errors import UserError
from inference.settings.resolve import resolve
from inference.settings.tree import DataSettings as Data

FORMS = {"a01-000u": "10066", "a01-001w": "10066", "b02-100": "10007", "h07-012z": "10151"}
LISTS = {"trainset.txt": ["a01-000u", "a01-001w"], "testset_v.txt": ["b02-100"], "testset_f.txt": ["h07-012z"]}
STROKES = [[(1073, 1058), (1072, 1085), (1080, 1090)], [(1176, 1237)], [(1200, 1200), (1210, 1190)]]


def line(strokes: Sequence[Sequence[tuple[object, object]]]) -> str:
    def points(stroke: Sequence[tuple[object, object]]) -> str:
        return "".join(f'<Point x="{x}" y="{y}" time="1.5"/>' for x, y in stroke)

    inside = "".join(f'<Stroke colour="black" start_time="1" end_time="2">{points(s)}</Stroke>' for s in strokes)
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<WhiteboardCaptureSession><WhiteboardDescription>'
        '<SensorLocation corner="top_left"/></WhiteboardDescription>'
        f"<StrokeSet>{inside}</StrokeSet></WhiteboardCaptureSession>"
    )


def original(writer: str) -> str:
    general = f'<General><Form id="a" writerID="{writer}" saveTime="1"/></General>'
    return f"<WhiteboardCaptureSession>{general}<StrokeSet/></WhiteboardCaptureSession>"


def tree(root: Path, writers: Mapping[str, str] = FORMS, task: str = "task1") -> Path:
    """Two lines of each form."""
    for form in FORMS:
        folder = root / "lineStrokes" / form[:3] / form[:7]
        folder.mkdir(parents=True, exist_ok=True)
        for number in (1, 2):
            (folder / f"{form}-{number:02d}.xml").write_text(line(STROKES[number - 1 :]), encoding="latin-1")
    for form, writer in writers.items():
        folder = root / "original" / form[:3] / form[:7]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"strokes{form[7:]}.xml").write_text(original(writer))
    (root / task).mkdir(exist_ok=True)
    for name, forms in LISTS.items():
        (root / task / name).write_text("".join(f" {form} \n" for form in forms))
    return root


def data(root: Path, noise: Any = None, on_error: Any = "error") -> Data:
    given: dict[str, Any] = {"frontend": "frames", "trim_db": None, "sequence_frames": None, "dequantise": noise}
    return Data(corpus="iam_ondb", root=str(root), on_error=on_error, **given)


def test_lines_go_where_their_form_is_listed_with_who_wrote_it(tmp_path: Path) -> None:
    corpus = open_corpus(data(tree(tmp_path)), 0)
    found = {split: [(u.file, u.speaker) for u in utterances] for split, utterances in corpus.splits.items()}
    assert found["train"] == [
        ("lineStrokes/a01/a01-000/a01-000u-01.xml", "10066"),
        ("lineStrokes/a01/a01-000/a01-000u-02.xml", "10066"),
        ("lineStrokes/a01/a01-001/a01-001w-01.xml", "10066"),
        ("lineStrokes/a01/a01-001/a01-001w-02.xml", "10066"),
    ]
    assert {speaker for _, speaker in found["valid"]} == {"10007"}, "a form without a letter"
    assert {speaker for _, speaker in found["test"]} == {"10151"}
    assert not any(corpus.notes.values())


def test_a_line_is_how_the_pen_moves_with_y_upwards(tmp_path: Path) -> None:
    recording = open_corpus(data(tree(tmp_path)), 0).splits["train"][0].load()
    assert isinstance(recording, Frames)
    assert recording.x.tolist() == [[-1, -27, 0], [8, -5, 1], [96, -147, 1], [24, 37, 0], [10, 10, 1]]
    noisy = open_corpus(data(tmp_path, "all"), 0).splits["train"][0].load()
    assert isinstance(noisy, Frames)
    moved = np.abs(noisy.x - recording.x)
    assert 0 < moved[:, :2].min() and moved[:, :2].max() < 1 and (moved[:, 2] == 0).all()


def test_it_implies_what_drawings_imply(tmp_path: Path) -> None:
    settings = resolve("vrnn", overrides=["data.corpus=iam_ondb", f"data.root={tree(tmp_path)}"])
    assert (settings.data.dequantise, settings.model.likelihood, settings.model.normalise) == ("all", "pen", True)
    corpus = open_corpus(settings.data, 0, ["valid"])
    items = load_sequences(corpus, "valid", open_frontend(settings.data, 3), sequence_frames=None)
    assert [tuple(item.x.shape) for item in items] == [(5, 3), (2, 3)]


def test_writers_of_two_splits_and_unknown_ones_are_told(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    corpus = open_corpus(data(tree(tmp_path / "two", FORMS | {"h07-012z": "10066"})), 0)
    assert corpus.notes["test"] == ["1 writers are also in trainset.txt: 10066"]
    assert corpus.notes["train"] == ["1 writers are also in testset_f.txt: 10066"] and not corpus.notes["valid"]
    (tmp_path / "none").mkdir()
    corpus = open_corpus(data(tree(tmp_path / "none", {})), 0)
    assert {u.speaker for u in corpus.splits["train"]} == {"a01-000u", "a01-001w"}
    assert "the writer of 2 of 2 forms is unknown" in corpus.notes["train"][0]


def test_one_split_needs_its_list_alone_and_lists_may_lie_anywhere(tmp_path: Path) -> None:
    tree(tmp_path, task="lists")
    for name in ("trainset.txt", "testset_v.txt"):
        (tmp_path / "lists" / name).unlink()
    assert len(open_corpus(data(tmp_path), 0, ["test"]).splits["test"]) == 2
    with pytest.raises(UserError, match=r"trainset\.txt .* train"):
        open_corpus(data(tmp_path), 0)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lineStrokes/"):
        open_corpus(data(tmp_path), 0)
    root = tree(tmp_path)
    (root / "task1" / "testset_v.txt").write_text("b02-100\nc03-000a\n")
    assert (
        open_corpus(data(root), 0, ["valid"]).notes["valid"][0]
        == "1 of 2 forms of testset_v.txt have no line: c03-000a"
    )
    (root / "task1" / "testset_v.txt").write_text("c03-000a\n")
    with pytest.raises(UserError, match="testset_v.txt"):
        open_corpus(data(root), 0)
    (root / "original" / "a01" / "a01-000" / "strokesu.xml").write_text("<White")
    with pytest.raises(UserError, match=r"strokesu\.xml"):
        open_corpus(data(root), 0, ["train"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (line(STROKES)[:200], "XML"),
        ("<a/>", "StrokeSet .*Stroke .*Point"),
        (line([[("left", 3), (4, 5)]]), "Point.*left"),
        (line(STROKES).replace(' y="', ' z="'), "Point.*'y'"),
        (line([[(1, 2)]]), r" 1 point"),
        (line([[("nan", 2), (4, 5)]]), "NaN"),
    ],
)
def test_faults_of_a_line_name_the_file(tmp_path: Path, text: str, fault: str) -> None:
    root = tree(tmp_path)
    (root / "lineStrokes" / "b02" / "b02-100" / "b02-100-01.xml").write_text(text, encoding="latin-1")
    said: list[str] = []

    def load(on_error: str) -> int:
        corpus = open_corpus(data(root, on_error=on_error), 0, ["valid"])
        frontend = open_frontend(data(root), 3)
        given: dict[str, Any] = {"sequence_frames": None, "on_error": on_error, "report": said.append}
        return len(load_sequences(corpus, "valid", frontend, **given))

    with pytest.raises(UserError, match=rf"b02-100-01\.xml .*iam_ondb.*{fault}"):
        load("error")
    assert load("skip") == 1 and any("b02-100-01.xml" in text for text in said)
