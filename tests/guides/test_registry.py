"""Guides by name: the family, the refusals, and that names do what they say."""

from __future__ import annotations

import pytest

from dvae_pyro.errors import UserError
from guides.core.family import REMEMBERS, SEES, RecurrentGuide
from guides.registry import build_guide, compare, guide_class, guide_names
from models.dvae import DVAE, ModelSettings
from models.registry import MODELS, build_model, model_class, model_names
from models.structure.parents import Parents


def test_the_family_has_every_combination() -> None:
    assert guide_names()[:2] == ["paper", "compliant"]
    assert guide_names()[2:-2] == [f"{sees}-{remembers}" for sees in SEES for remembers in REMEMBERS]


def test_krishnans_guides_see_what_he_says() -> None:
    parents = {
        name: set(RecurrentGuide.parents(RecurrentGuide.Settings(name=name))["z"]) for name in guide_names()[2:-2]
    }
    assert parents["future-markov"] == {"x[t:]", "z[t-1]"}  # DKS
    assert parents["past-markov"] == {"x[:t+1]", "z[t-1]"}  # ST-L
    assert parents["all-markov"] == {"x[:]", "z[t-1]"}  # ST-LR
    assert parents["all-meanfield"] == {"x[:]"}  # MF-LR


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'dfk'.*'dkf'"):
        model_class("dfk")
    with pytest.raises(UserError, match="'past-markow'.*'past-markov'"):
        guide_class("dkf", "past-markow")


class TwoLatents(DVAE):
    latents = ("z1", "z2")
    paper_guide = "guides.core.family:RecurrentGuide"

    @classmethod
    def parents(cls, settings: ModelSettings) -> Parents:
        return {"z1": ("z1[t-1]",), "z2": ("z1[t]",), "x": ("z2[t]",)}


def test_a_guide_that_draws_other_latents_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "two", f"{__name__}:TwoLatents")
    with pytest.raises(UserError, match="'all-markov' .*'two'.* 'z1', 'z2'"):
        guide_class("two", "all-markov")


def test_compliant_is_built() -> None:
    model = build_model(model_class("dkf").Settings(name="dkf", bins=5, z_dim=2))
    guide = build_guide(model, "dkf", guide_class("dkf", "compliant").Settings(name="compliant"))
    assert type(guide) is guide_class("dkf", "paper")


@pytest.mark.parametrize("name", [name for name in model_names() if name not in ("fhvae", "stcn")])  # they have none
def test_the_compliant_guide_is_never_poorer(name: str) -> None:
    assert all(one.word != "fewer" for one in compare(name, "compliant").values())
