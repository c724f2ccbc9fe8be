"""d-separation against enumeration, and against the benchmark paper's Table 1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guides.registry import compliant
from models.dkf import DKFSettings
from models.structure.parents import FRAMES, Parents, frames_of, posterior_parents, verdict
from models.vae import VAESettings

MODELS: dict[str, Parents] = {
    "vae": {"z": (), "x": ("z[t]",)},
    "dkf": {"z": ("z[t-1]",), "x": ("z[t]",)},
    "storn": {"z": (), "x": ("x[:t]", "z[:t+1]")},
    "vrnn": {"z": ("x[:t]", "z[:t]"), "x": ("x[:t]", "z[:t+1]")},
    "srnn": {"z": ("x[:t]", "z[t-1]"), "x": ("x[:t]", "z[t]")},
    "rvae": {"z": (), "x": ("z[:t+1]",)},
    "rvae-noncausal": {"z": (), "x": ("z[:]",)},
    "dsae": {"v": (), "z": ("z[:t]",), "x": ("z[t]", "v")},
}
GUIDES: dict[str, Parents] = {
    "vae": {"z": ("x[t]",)},
    "dkf": {"z": ("z[t-1]", "x[t:]")},
    "storn": {"z": ("x[:t+1]",)},
    "vrnn": {"z": ("z[:t]", "x[:t+1]")},
    "srnn": {"z": ("z[t-1]", "x[:]")},
    "rvae": {"z": ("z[:t]", "x[t:]")},
    "rvae-noncausal": {"z": ("z[:t]", "x[:]")},
    "dsae": {"v": ("x[:]",), "z": ("x[:]", "v")},
}
COMPLY = {"vae", "rvae", "rvae-noncausal", "dkf", "srnn"}  # Bie et al. (2021), Table 1


@pytest.mark.parametrize("name", MODELS)
def test_which_guides_comply_in_the_benchmark_paper(name: str) -> None:
    found = verdict(MODELS[name], GUIDES[name], order=("z", "v"))
    assert (found.word != "fewer") == (name in COMPLY)


def test_the_dkf_needs_the_last_latent_and_the_future() -> None:
    t = FRAMES // 2
    assert posterior_parents(MODELS["dkf"]) == {("z", t - 1)} | {("x", s) for s in range(t, FRAMES)}
    assert posterior_parents(MODELS["vae"]) == {("x", t)}


@pytest.mark.parametrize("name", ["vae", "dkf", "storn", "vrnn", "srnn", "rvae", "rvae-noncausal"])
def test_d_separation_agrees_with_enumeration(name: str) -> None:
    """A network of binary variables with random tables, over three frames: what its posterior moves with."""
    frames, t = 3, 1
    torch.manual_seed(0)
    nodes = [(v, s) for s in range(frames) for v in ("z", "x")]
    if name == "rvae-noncausal":
        nodes.sort(key=lambda node: node[0] == "x")
    joint = torch.ones((2,) * len(nodes), dtype=torch.float64)
    for node in nodes:
        above = [n for parent in MODELS[name][node[0]] for n in frames_of(parent, node[1], frames)]
        table = torch.rand((2,) * (len(above) + 1), dtype=torch.float64) + 0.1
        table = table / table.sum(-1, keepdim=True)
        joint = joint * _spread(table, [*above, node], nodes)
    later = [nodes.index(("z", s)) for s in range(t + 1, frames)]
    joint = joint.sum(later, keepdim=True)
    target = nodes.index(("z", t))
    posterior = (joint / joint.sum(target, keepdim=True)).select(target, 1)
    kept = [n for n in nodes if n != ("z", t)]
    moved = {
        node
        for i, node in enumerate(kept)
        if posterior.shape[i] == 2 and not torch.allclose(posterior.select(i, 0), posterior.select(i, 1), atol=1e-9)
    }
    middle = FRAMES // 2
    expected = {(v, s - middle + t) for v, s in posterior_parents(MODELS[name]) if 0 <= s - middle + t < frames}
    assert moved == expected


def _spread(table: Tensor, of: list[tuple[str, int]], nodes: list[tuple[str, int]]) -> Tensor:
    order = sorted(range(len(of)), key=lambda i: nodes.index(of[i]))
    shape = [2 if node in of else 1 for node in nodes]
    return table.permute(order).reshape(shape)


def test_frames_of_a_parent() -> None:
    assert frames_of("x[t:]", 2, 4) == [("x", 2), ("x", 3)]
    assert frames_of("x[:t+1]", 2, 4) == [("x", 0), ("x", 1), ("x", 2)]
    assert frames_of("x[:]", 0, 2) == [("x", 0), ("x", 1)] and frames_of("v", 0, 2) == [("v", -1)]
    assert all(frames_of("z[t-1]", t, 4) == [("z", t - 1)] for t in range(1, 4))
    for wrong in ("z[t", "z(t)", "z[1]", ""):
        with pytest.raises(ValueError, match="parent '"):
            frames_of(wrong, 0, 3)


def test_the_compliant_guide_of_models_whose_own_complies_is_their_own() -> None:
    assert compliant(VAESettings()) == "paper" and compliant(DKFSettings()) == "paper"


def test_seeing_more_is_richer_and_less_is_poorer() -> None:
    assert verdict(MODELS["vae"], {"z": ("x[:]",)}).word == "more"
    assert verdict(MODELS["vae"], {"z": ()}).word == "fewer"
    assert verdict(MODELS["dkf"], {"z": ("x[:]",)}).missing == (("z", FRAMES // 2 - 1),)
