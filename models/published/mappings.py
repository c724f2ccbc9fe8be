"""Mapping of settings and weight names of the public DVAE code to ours: one `Family` for each of its models.

In the public code an MLP ``p`` has layers ``p.linear0``, ``p.linear1``, ...; an LSTM has PyTorch's names; a Gaussian
has two affine maps, for mean and log-variance, which are one here (`models.nn.layers.GaussianHead`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from models.published.ini import Ini

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["FAMILIES", "Family", "Place"]


class RunSettings(Protocol):
    """The sections of a run's settings that define the networks."""

    model: Any
    guide: Any


@dataclass(frozen=True)
class Place:
    """The counterpart of one published array: a parameter of model or guide, or one half of it.

    Attributes:
        name: name of the parameter, ``"model.…"`` or ``"guide.…"``.
        half: 0 for the first half of its rows, 1 for the second, None for all.
    """

    name: str
    half: int | None = None

    def of(self, model: nn.Module, guide: nn.Module) -> Tensor:
        """The parameter, or a view of its half."""
        part, _, name = self.name.partition(".")
        parameter: Tensor = (model if part == "model" else guide).get_parameter(name)
        return parameter if self.half is None else parameter.chunk(2)[self.half]


@dataclass(frozen=True)
class Family:
    """One model of the public code.

    Attributes:
        settings: maps the public config to our settings, by dotted key.
        places: maps our settings to the parameter of every array of the checkpoint.
    """

    settings: Callable[[Ini], dict[str, object]]
    places: Callable[[RunSettings], dict[str, Place]]


def _affine(theirs: str, ours: str, half: int | None = None) -> dict[str, Place]:
    return {f"{theirs}.{part}": Place(f"{ours}.{part}", half) for part in ("weight", "bias")}


def _mlp(theirs: str, ours: str, depth: int) -> dict[str, Place]:
    layers = [_affine(f"{theirs}.linear{i}", f"{ours}.{2 * i}") for i in range(depth)]
    return {name: place for layer in layers for name, place in layer.items()}


def _lstm(theirs: str, ours: str, layers: int, bidirectional: bool = False) -> dict[str, Place]:
    names = [
        f"{kind}_{gate}_l{layer}{direction}"
        for layer in range(layers)
        for direction in (("", "_reverse") if bidirectional else ("",))
        for kind in ("weight", "bias")
        for gate in ("ih", "hh")
    ]
    return {f"{theirs}.{name}": Place(f"{ours}.{name}") for name in names}


def _gaussian(mean: str, log_variance: str, ours: str) -> dict[str, Place]:
    return _affine(mean, f"{ours}.affine", 0) | _affine(log_variance, f"{ours}.affine", 1)


def _vae_settings(ini: Ini) -> dict[str, object]:
    widths = ini.widths("dense_x_z")
    return {"guide.x_z": widths, "model.z_x": widths[::-1]}


def _vae_places(settings: RunSettings) -> dict[str, Place]:
    return {
        **_mlp("mlp_x_z", "guide.x_z", len(settings.guide.x_z)),
        **_gaussian("inf_mean", "inf_logvar", "guide.head"),
        **_mlp("mlp_z_x", "model.z_x", len(settings.model.z_x)),
        **_affine("gen_logvar", "model.likelihood.affine"),
    }


def _dkf_settings(ini: Ini) -> dict[str, object]:
    return {
        "guide.x_g": ini.widths("dense_x_gx"),
        "guide.g_dim": ini.integer("Network", "dim_RNN_gx"),
        "guide.g_layers": ini.integer("Network", "num_RNN_gx", 1),
        "guide.bidirectional": ini.flag("Network", "bidir_gx", False),
        "guide.z_g": ini.widths("dense_ztm1_g"),
        "guide.g_z": ini.widths("dense_g_z"),
        "model.z_x": ini.widths("dense_z_x"),
    }


def _dkf_places(settings: RunSettings) -> dict[str, Place]:
    guide, model = settings.guide, settings.model
    return {
        **_mlp("mlp_x_gx", "guide.x_g", len(guide.x_g)),
        **_lstm("rnn_gx", "guide.g.net", guide.g_layers, guide.bidirectional),
        **_mlp("mlp_ztm1_g", "guide.z_g", len(guide.z_g)),
        **_affine("mlp_ztm1_g.linear_last", f"guide.z_g.{2 * len(guide.z_g)}"),
        **_mlp("mlp_g_z", "guide.g_z", len(guide.g_z)),
        **_gaussian("inf_mean", "inf_logvar", "guide.head"),
        **_affine("mlp_gate.linear1", "model.transition.gate.0"),
        **_affine("mlp_gate.linear2", "model.transition.gate.2"),
        **_affine("mlp_z_prop.linear1", "model.transition.proposal.0"),
        **_affine("mlp_z_prop.linear2", "model.transition.proposal.2"),
        **_affine("prior_mean", "model.transition.linear"),
        **_affine("prior_logvar.1", "model.transition.variance"),
        **_mlp("mlp_z_x", "model.z_x", len(model.z_x)),
        **_affine("gen_logvar", "model.likelihood.affine"),
    }


def _storn_settings(ini: Ini) -> dict[str, object]:
    return {
        "guide.x_g": ini.widths("dense_x_g"),
        "guide.g_dim": ini.integer("Network", "dim_RNN_g"),
        "guide.g_layers": ini.integer("Network", "num_RNN_g", 1),
        "guide.g_z": ini.widths("dense_g_z"),
        "model.z_h": ini.widths("dense_z_h"),
        "model.x_h": ini.widths("dense_xtm1_h"),
        "model.h_dim": ini.integer("Network", "dim_RNN_h"),
        "model.h_layers": ini.integer("Network", "num_RNN_h", 1),
        "model.h_x": ini.widths("dense_h_x"),
    }


def _storn_places(settings: RunSettings) -> dict[str, Place]:
    guide, model = settings.guide, settings.model
    return {
        **_mlp("mlp_x_g", "guide.x_g", len(guide.x_g)),
        **_lstm("rnn_g", "guide.g.net", guide.g_layers),
        **_mlp("mlp_g_z", "guide.g_z", len(guide.g_z)),
        **_gaussian("inf_mean", "inf_logvar", "guide.head"),
        **_mlp("mlp_z_h", "model.z_h", len(model.z_h)),
        **_mlp("mlp_xtm1_h", "model.x_h", len(model.x_h)),
        **_lstm("rnn_h", "model.h.net", model.h_layers),
        **_mlp("mlp_h_x", "model.h_x", len(model.h_x)),
        **_affine("gen_logvar", "model.likelihood.affine"),
    }


def _vrnn_settings(ini: Ini) -> dict[str, object]:
    return {
        "model.x": ini.widths("dense_x"),
        "model.z": ini.widths("dense_z"),
        "model.h_dim": ini.integer("Network", "dim_RNN"),
        "model.h_layers": ini.integer("Network", "num_RNN", 1),
        "model.h_z": ini.widths("dense_h_z"),
        "model.hz_x": ini.widths("dense_hz_x"),
        "guide.xh_z": ini.widths("dense_hx_z"),
    }


def _vrnn_places(settings: RunSettings) -> dict[str, Place]:
    guide, model = settings.guide, settings.model
    return {
        **_mlp("feature_extractor_x", "model.x", len(model.x)),
        **_mlp("feature_extractor_z", "model.z", len(model.z)),
        **_mlp("mlp_hx_z", "guide.xh_z", len(guide.xh_z)),
        **_gaussian("inf_mean", "inf_logvar", "guide.head"),
        **_mlp("mlp_h_z", "model.h_z", len(model.h_z)),
        **_gaussian("prior_mean", "prior_logvar", "model.prior_head"),
        **_mlp("mlp_hz_x", "model.hz_x", len(model.hz_x)),
        **_affine("gen_logvar", "model.likelihood.affine"),
        **_lstm("rnn", "model.h.net", model.h_layers),
    }


def _srnn_settings(ini: Ini) -> dict[str, object]:
    return {
        "model.x_h": ini.widths("dense_x_h"),
        "model.h_dim": ini.integer("Network", "dim_RNN_h"),
        "model.h_layers": ini.integer("Network", "num_RNN_h", 1),
        "model.hz_z": ini.widths("dense_hz_z"),
        "model.hz_x": ini.widths("dense_hz_x"),
        "guide.hx_g": ini.widths("dense_hx_g"),
        "guide.g_dim": ini.integer("Network", "dim_RNN_g"),
        "guide.g_layers": ini.integer("Network", "num_RNN_g", 1),
        "guide.gz_z": ini.widths("dense_gz_z"),
    }


def _srnn_places(settings: RunSettings) -> dict[str, Place]:
    guide, model = settings.guide, settings.model
    return {
        **_mlp("mlp_x_h", "model.x_h", len(model.x_h)),
        **_lstm("rnn_h", "model.h.net", model.h_layers),
        **_mlp("mlp_hx_g", "guide.hx_g", len(guide.hx_g)),
        **_lstm("rnn_g", "guide.g.net", guide.g_layers),
        **_mlp("mlp_gz_z", "guide.gz_z", len(guide.gz_z)),
        **_gaussian("inf_mean", "inf_logvar", "guide.head"),
        **_mlp("mlp_hz_z", "model.hz_z", len(model.hz_z)),
        **_gaussian("prior_mean", "prior_logvar", "model.prior_head"),
        **_mlp("mlp_hz_x", "model.hz_x", len(model.hz_x)),
        **_affine("gen_logvar", "model.likelihood.affine"),
    }


def _rvae_settings(ini: Ini) -> dict[str, object]:
    both_ways, noncausal = (ini.flag("Network", key, False) for key in ("bidir_g_x", "bidir_h"))
    family = "all-memory" if both_ways else "future-memory"
    return {
        "model.causal": not noncausal,
        "guide.name": "paper" if both_ways == noncausal else family,
        "guide.x_g": ini.widths("dense_x_gx"),
        "guide.g_dim": ini.integer("Network", "dim_RNN_g_x"),
        "guide.g_layers": ini.integer("Network", "num_RNN_g_x", 1),
        "guide.z_k": ini.widths("dense_z_gz"),
        "guide.k_dim": ini.integer("Network", "dim_RNN_g_z"),
        "guide.k_layers": ini.integer("Network", "num_RNN_g_z", 1),
        "guide.g_z": ini.widths("dense_g_z"),
        "model.z_h": ini.widths("dense_z_h"),
        "model.h_dim": ini.integer("Network", "dim_RNN_h"),
        "model.h_layers": ini.integer("Network", "num_RNN_h", 1),
        "model.h_x": ini.widths("dense_h_x"),
    }


def _rvae_places(settings: RunSettings) -> dict[str, Place]:
    guide, model = settings.guide, settings.model
    both_ways = guide.name == "all-memory" or (guide.name == "paper" and not model.causal)
    return {
        **_mlp("mlp_x_gx", "guide.x_g", len(guide.x_g)),
        **_lstm("rnn_g_x", "guide.g.net", guide.g_layers, both_ways),
        **_mlp("mlp_z_gz", "guide.z_k", len(guide.z_k)),
        **_lstm("rnn_g_z", "guide.k.net", guide.k_layers),
        **_mlp("mlp_g_z", "guide.g_z", len(guide.g_z)),
        **_gaussian("inf_mean", "inf_logvar", "guide.head"),
        **_mlp("mlp_z_h", "model.z_h", len(model.z_h)),
        **_lstm("rnn_h", "model.h.net", model.h_layers, not model.causal),
        **_mlp("mlp_h_x", "model.h_x", len(model.h_x)),
        **_affine("gen_logvar", "model.likelihood.affine"),
    }


FAMILIES = {
    "vae": Family(_vae_settings, _vae_places),
    "dkf": Family(_dkf_settings, _dkf_places),
    "storn": Family(_storn_settings, _storn_places),
    "vrnn": Family(_vrnn_settings, _vrnn_places),
    "srnn": Family(_srnn_settings, _srnn_places),
    "rvae": Family(_rvae_settings, _rvae_places),
}
