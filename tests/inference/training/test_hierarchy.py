"""Training with a table of utterances: resumed bit for bit, its rows known by name, and K utterances at a time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from corpora.loading.sequences import Prepared
from dvae_pyro.errors import UserError
from guides.fhvae import s_vectors
from inference.checkpoints.files import load_checkpoint
from inference.runs import load_run
from inference.settings.resolve import resolve
from inference.settings.tree import OptimSettings
from inference.training.optimisers import build_optimiser, forget_rows
from inference.training.reading.batches import UtteranceIndex
from inference.training.sequence_table import Blocks, slow_table
from inference.training.session import resume, start

SMALL = [
    "data.frontend=fbank",
    "data.rate=16000",
    "data.hop=16",
    "data.window=64",
    "data.sequence_frames=10",
    "model.segment=10",
    "model.bins=5",
    "model.z_dim=2",
    "model.h_dim=6",
    "guide.h_dim=6",
    "train.batch_size=20",
    "train.tensorboard=false",
    "data.corpus=folder",
]


def small(corpus: Path, run: Path, *more: str) -> Any:
    return resolve("fhvae", None, None, [*SMALL, f"data.root={corpus}", f"run={run}", *more])


def segments(counts: list[int]) -> list[Prepared]:
    return [Prepared(torch.zeros(2, 1), f"file{f}", "s", 2 * k) for f, n in enumerate(counts) for k in range(n)]


def quiet(line: str) -> None:
    """Say nothing."""


def lines(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("frames_per_second", "data_wait")} for line in found]


BLOCKS, PLAIN = "train.discriminative.sequences=2", "train.discriminative=0"
RANDOM = ("data.segment_starts=random", BLOCKS)


@pytest.mark.parametrize("more", [(), (BLOCKS,), (PLAIN,), (PLAIN, BLOCKS), RANDOM])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    tiny_corpus: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start(small(tiny_corpus, whole, "train.steps=12", *more), quiet)
    start(small(tiny_corpus, parts, "train.steps=7", *more), quiet)
    resume(parts, ["train.steps=12"], quiet)
    one, other = (load_checkpoint(run / "last.pt") for run in (whole, parts))
    for part in ("model", "guide"):
        assert all(torch.equal(one[part][name], value) for name, value in other[part].items())
    assert one["guide"]["table.weight"].shape == (5, 2) and not torch.equal(
        one["guide"]["table.weight"], load_checkpoint(parts / "best.pt")["guide"]["table.weight"] * 0
    )
    trained = [line for line in lines(whole) if line["split"] == "train"]
    assert trained == [line for line in lines(parts) if line["split"] == "train"]
    told = [line.get("discriminative") for line in trained]
    assert all(t is None for t in told) if PLAIN in more else all(t < 0.0 for t in told if t)
    assert {"kl_mu2", "kl_z2", "kl_z1"} <= set(trained[0])
    assert resolve(config_path=whole / "config.yaml").guide.sequences == 5


def test_random_starts_train_on_other_segments_of_the_same_utterances(tiny_corpus: Path, tmp_path: Path) -> None:
    """The first loss differs, what is validated and the counts of segments do not."""
    for name in ("fixed", "random"):  # without blocks, whose rows are computed from segments too
        start(small(tiny_corpus, tmp_path / name, "train.steps=1", f"data.segment_starts={name}"), quiet)
    fixed, random = (load_checkpoint(tmp_path / name / "last.pt") for name in ("fixed", "random"))
    assert fixed["guide"]["table.weight"].shape == random["guide"]["table.weight"].shape
    assert fixed["data"] != random["data"]
    (one, _), (other, _) = (lines(tmp_path / name) for name in ("fixed", "random"))
    assert one["epoch"] == other["epoch"] and one["loss"] != other["loss"]
    assert load_run(tmp_path / "random").settings.data.segment_starts == "random"
    with pytest.raises(UserError, match=r"data\.segment_starts=random .* data\.sequence_frames"):
        resolve("dkf", overrides=["data.segment_starts=random", "data.sequence_frames=null"])


def test_a_table_is_of_its_utterances_alone(tiny_corpus: Path, tmp_path: Path) -> None:
    start(small(tiny_corpus, tmp_path / "run", "train.steps=2"), quiet)
    other = tmp_path / "other"
    for split in ("train", "valid"):
        for k, file in enumerate(sorted((tiny_corpus / split).rglob("*.wav"))):
            place = other / split / f"someone{k}" / file.name
            place.parent.mkdir(parents=True)
            place.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="mu2.* 5 "):
        resume(tmp_path / "run", [f"data.root={other}", "train.steps=4"], quiet)


def test_validation_is_of_the_closed_form_and_its_bound_adds_up(tiny_corpus: Path, tmp_path: Path) -> None:
    start(small(tiny_corpus, tmp_path / "run", "train.steps=5"), quiet)
    valid = [line for line in lines(tmp_path / "run") if line["split"] == "valid"][-1]
    kl = valid["kl_mu2"] + valid["kl_z1"] + valid["kl_z2"]
    assert valid["elbo"] == pytest.approx(valid["reconstruction"] - kl, rel=1e-6)
    assert valid["loss"] == pytest.approx(-valid["elbo"], rel=0.05) and "discriminative" not in valid  # one sample
    assert load_run(tmp_path / "run").settings.guide.sequences == 5


def test_blocks_hold_every_segment_once_and_the_sequences_they_say() -> None:
    members = UtteranceIndex.of(segments([3, 1, 4, 2, 5]))
    blocks = Blocks(segments([3, 1, 4, 2, 5]), 4, 0, members, 2)
    for epoch in (0, 1):
        batches = blocks.epoch(epoch)
        assert sorted(n for batch in batches for n in batch) == list(range(15))
        seen: list[int] = []
        firsts = 0
        for number, batch in enumerate(batches):
            block, first = blocks.first_of(epoch, number)
            firsts += first
            seen += block.rows.tolist() if first else []
            assert set(members.row[batch].tolist()) <= set(block.rows.tolist())
            assert len(block.rows) <= 2 and len(batch) <= 4
        assert sorted(seen) == [0, 1, 2, 3, 4] and firsts == 3
    assert blocks.epoch(0) != blocks.epoch(1) and len(blocks) == len(blocks.epoch(0))


def test_members_know_whose_segments_are_whose() -> None:
    members = UtteranceIndex.of(segments([2, 1]))
    rows = members.rows([2, 0])
    assert (rows.row.tolist(), rows.counts.tolist(), rows.sequences, rows.segments) == ([1, 0], [1, 2], 2, 3)
    assert rows.share == pytest.approx(2 / 3)


def test_rows_drawn_are_the_closed_form_of_the_encoder_as_it_is(tiny_corpus: Path, tmp_path: Path) -> None:
    from inference.checkpoints.state import TrainState
    from inference.runs import create
    from inference.training.sequence_table import training_rows
    from inference.training.session import _prepare

    settings = small(tiny_corpus, tmp_path / "run", "train.discriminative.sequences=2", "dtype=float64")
    model, guide = create(settings)
    job: Any = _prepare(settings, tmp_path / "run", model, guide, quiet)
    before = job.guide.table.weight.detach().clone()
    moments = {name: torch.ones_like(before) for name in ("exp_avg", "exp_avg_sq")}
    job.optimizer.parts[1].state[job.guide.table.weight] = {"step": 9, **moments}
    order = job.train.batches.epoch(0)
    rows = training_rows(job, TrainState(), order[0])
    assert rows is not None and rows.active is not None and len(rows.active) == 2
    x = torch.stack([item.x for item in job.train.sequences], 1).double()
    means = job.guide.z2_mean(x, torch.full((x.shape[1],), 10))
    expected = s_vectors(means, job.train.members.row, 5, 0.25)
    torch.testing.assert_close(job.guide.table.weight[rows.active], expected[rows.active])
    others = [row for row in range(5) if row not in rows.active.tolist()]
    assert torch.equal(job.guide.table.weight[others], before[others])
    assert all((m[rows.active] == 0.0).all() and (m[others] == 1.0).all() for m in moments.values())


def test_sparse_updates_are_adams_where_every_row_is_in_every_step() -> None:
    tables = [torch.nn.Embedding(3, 2, sparse=sparse).double() for sparse in (True, False)]
    tables[1].load_state_dict(tables[0].state_dict())
    settings = OptimSettings(lr=0.1, weight_decay=0.5)
    target = torch.tensor([[1.0, -1.0], [0.5, 2.0], [0.0, 3.0]], dtype=torch.float64)
    for table in tables:
        layer = torch.nn.Sequential(table, torch.nn.Linear(2, 2).double())
        optimiser = build_optimiser(settings, layer)
        for _ in range(5):
            optimiser.zero_grad()
            (table(torch.arange(3)) - target).pow(2).sum().backward()
            optimiser.step()
    torch.testing.assert_close(tables[0].weight, tables[1].weight)


def test_rows_that_were_set_anew_are_updated_as_by_a_new_optimiser() -> None:
    def step(optimiser: Any, table: torch.nn.Embedding, rows: list[int]) -> None:
        optimiser.zero_grad()
        (table(torch.tensor(rows)) - 1.0).pow(2).sum().backward()
        optimiser.step()

    table = torch.nn.Embedding(4, 2, sparse=True).double()
    rest = torch.nn.Linear(1, 1)
    optimiser: Any = build_optimiser(OptimSettings(lr=0.1), torch.nn.Sequential(table, rest))
    for rows in ([0, 1, 2], [1, 2], [0, 2]):
        step(optimiser, table, rows)
    again = torch.nn.Embedding(4, 2, sparse=True).double()
    with torch.no_grad():
        table.weight[[1, 3]] = torch.randn(2, 2).double()
        again.weight.copy_(table.weight)
    forget_rows(optimiser, table, torch.tensor([1, 3]))
    fresh: Any = build_optimiser(OptimSettings(lr=0.1), torch.nn.Sequential(again, rest))
    for rows in ([1, 3], [1]):
        step(optimiser, table, rows)
        step(fresh, again, rows)
    torch.testing.assert_close(table.weight, again.weight)


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        ("dkf", ["train.discriminative=1"], "train.discriminative .*model 'dkf'"),
        ("beta_vae", ["train.discriminative.sequences=5"], "train.discriminative .*model 'beta_vae'"),
        ("fhvae", ["train.objective=iwae", "train.particles=4"], "train.objective=iwae: .*model 'fhvae'"),
        ("fhvae", ["data.sequence_frames=30"], r"data\.sequence_frames=30.*model\.segment=20"),
        ("fhvae", ["train.discriminative.alpha=-1"], r"train\.discriminative\.alpha=-1"),
    ],
)
def test_settings_that_say_nothing_are_refused(model: str, given: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve(model, None, None, given)


@pytest.mark.parametrize(
    ("rate", "blocks", "warned"), [("1e-3", "null", True), ("5e-1", "null", False), ("1e-3", "2", False)]
)
def test_rows_that_cannot_leave_where_chance_put_them_are_told_of(
    tiny_corpus: Path, tmp_path: Path, rate: str, blocks: str, warned: bool
) -> None:
    said: list[str] = []
    more = (f"optim.lr={rate}", f"train.discriminative.sequences={blocks}", "train.steps=2")
    start(small(tiny_corpus, tmp_path / "run", *more), said.append)
    assert any("train.discriminative.sequences=5000" in line for line in said) == warned


def test_the_default_run_is_long_enough_for_its_table() -> None:
    few: Any = SimpleNamespace(files=[""] * 80)
    many: Any = SimpleNamespace(files=[""] * 2832)
    assert slow_table(resolve("fhvae"), few, 800) == ""
    assert "updated about 90 times" in slow_table(resolve("fhvae"), many, 1000)


def test_on_a_gpu_the_update_is_fused() -> None:
    with FakeTensorMode():
        there = torch.nn.ParameterList([torch.zeros(2, device="cuda")])
    here = torch.nn.ParameterList([torch.zeros(2)])
    defaults = [build_optimiser(OptimSettings(), module).param_groups[0]["fused"] for module in (there, here)]
    assert defaults == [True, None]
