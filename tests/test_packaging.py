"""What is shipped: the wheel runs elsewhere, the configs are the papers', README and checks agree."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from inference.runs import create
from inference.settings.overrides import config_names
from inference.settings.resolve import resolve, to_yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("configs", "corpora", "dvae_pyro", "evaluation", "guides", "inference", "models")
PUBLISHED = {
    "benchmark2021/vae": 220_385,
    "benchmark2021/dkf": 397_729,
    "benchmark2021/dkf_equal_kl": 397_729,
    "benchmark2021/storn": 673_249,
    "benchmark2021/vrnn": 453_729,
    "benchmark2021/vrnn_equal_kl": 453_729,
    "benchmark2021/srnn": 688_129,
    "benchmark2021/srnn_equal_kl": 688_129,
    "benchmark2021/rvae": 586_305,
    "light2023/vae_wsj0": 138_273,
    "light2023/vae_vb": 138_273,
    "light2023/dkf_wsj0": 516_641,
    "light2023/dkf_vb": 516_641,
    "light2023/srnn_tf_wsj0": 884_993,
    "light2023/srnn_tf_vb": 884_993,
    "light2023/srnn_ss_wsj0": 884_993,
    "light2023/srnn_ss_vb": 884_993,
    **{f"light2023/hit_{row}": 21_747_841 for row in ("wsj0", "vb", "inv_s_vb", "inv_s_nr_vb")},
    **{f"light2023/light_{row}": 17_455_745 for row in ("wsj0", "vb", "inv_s_vb", "inv_s_nr_vb")},
}
"""Of the released weights at 257 bins, of the authors' corrected benchmark at 513."""


def _mlp(*widths: int) -> int:
    return sum(a * b + b for a, b in itertools.pairwise(widths))


def _lstm(given: int, width: int) -> int:
    return 4 * width * (given + width + 2)


def _wavenet(given: int, width: int, blocks: int, taps: int, stride: int) -> int:
    def block(given: int) -> int:
        return _mlp(taps * given, 2 * width) + width**2 + (_mlp(given, width) if given != width else 0)

    return block(given) + (blocks - 1) * block(width) + (stride * 2 * width if stride > 1 else 0)


def _kvae(modes: int, z: int, a: int, lstm: int) -> int:
    """A, C and a_0 of the KVAE, and the LSTM that weighs its modes."""
    return modes * (z * z + a * z) + a + 4 * lstm * (a + lstm + 2) + _mlp(lstm, modes)


def _ladder(x: int, widths: list[int], strides: list[int], z: list[int], out: int) -> int:
    """MS-STCN with 4 blocks upwards, 2 downwards, latents seen by the first of them, and its guide."""
    total = _mlp(widths[0], out)
    for i, (width, stride, n) in enumerate(zip(widths, strides, z, strict=True)):
        below, top = widths[max(i - 1, 0)], i == len(widths) - 1
        total += _wavenet(widths[i - 1] if i else x, width, 4, 2, stride)
        total += _wavenet(width if top else 2 * width, width, 2, 1, 1) + _wavenet(width + n, below, 2, 1, stride)
        total += _mlp(width, 2 * n) + _mlp(2 * width, 2 * n)
    return total


def _light(x: int, width: int, ff: int, layers: int, lstm: int, decoders: int) -> int:
    """LigHT-DVAE with one decoder, HiT-DVAE with two: z 16, w 32, 513 bins; features x of model and guide."""
    attention, feed, norm = 4 * _mlp(width, width), _mlp(width, ff, width), 2 * width
    encoder, decoder = layers * (attention + feed + 2 * norm), layers * (2 * attention + feed + 3 * norm)
    guide = _mlp(513, x) + 2 * _lstm(x, lstm) + 2 * _lstm(2 * lstm, lstm) + _mlp(2 * lstm, 64)
    guide += _mlp(x + 32, width) + encoder + _mlp(width, 32)
    model = _mlp(513, x) + _mlp(x, width) + _mlp(48, width) + decoder + _mlp(width, 32) + _mlp(width, 513)
    return guide + model + (decoders - 1) * (_mlp(x + 32, width) + _mlp(16, width) + decoder)


def _rvae(bins: int, *g_z: int) -> int:
    """No layers between the recurrent networks: over x, over z_{t-1}, over z."""
    guide = _lstm(bins, 128) + _lstm(16, 128) + _mlp(256, *g_z, 32)
    return guide + _lstm(16, 128) + _mlp(128, bins)


def _fhvae(z: int, bins: int = 80, width: int = 256) -> int:
    """Encoders of z2 and z1, and the decoder."""
    encoders = sum(_lstm(bins + given, width) + _mlp(width, 2 * z) for given in (0, z))
    return encoders + _lstm(2 * z, width) + _mlp(width, 2 * bins)


def _block(given: int, width: int, condition: int = 0, taps: int = 1, stride: int = 1) -> int:
    """A gated block of a WaveNet: its convolution, its maps, and learned weights of a change of rate."""
    identity = _mlp(given, width) if given != width else 0
    return _mlp(taps * (given + condition), 2 * width) + width**2 + identity + (2 * stride * width if stride > 1 else 0)


def _mixture(components: int) -> int:
    """Numbers that a mixture over frames of 200 samples is made of."""
    return components + 2 * components * 200


def _stcn(width: int, z: list[int], components: int) -> int:
    """STCN-dense and its guide: 25 blocks over the past, 5 over the latents, latents by two hidden layers."""
    past = _block(200, width, taps=2) + 24 * _block(width, width, taps=2)
    heads = sum(_mlp(width + above, width, width, n) for n, above in zip(z, [*z[1:], 0], strict=True))
    decoder = _block(sum(z), width, taps=2) + 4 * _block(width, width, taps=2) + _mlp(width, _mixture(components))
    return past + 4 * heads + decoder  # mean and deviation, in prior and posterior


def _rnn(h: int, m: int, out: int) -> int:
    return _mlp(200, m) + _lstm(m, h) + _mlp(h, m, out)


def _vrnn(h: int, m: int, z: int, out: int) -> int:
    model = _mlp(200, m) + _mlp(z, m) + _lstm(2 * m, h) + _mlp(h, m, 2 * z) + _mlp(m + h, m, out)
    return model + _mlp(m + h, m, 2 * z)


def _srnn(h: int, m: int, z: int) -> int:
    model = _mlp(200, m) + _lstm(m, h) + _mlp(h + z, m, 2 * z) + _mlp(h + z, m, 400)
    return model + _mlp(h + 200, m) + _lstm(m, h) + _mlp(h + z, m, 2 * z)


def _z_forcing(h: int, m: int, z: int) -> int:
    """With the network that tells the backward states from z."""
    model = _mlp(200, m) + _mlp(z, m) + _lstm(2 * m, h) + _mlp(h, m, 2 * z) + _mlp(h, 400)
    return model + _lstm(m, h) + _mlp(2 * h, m, 2 * z) + _mlp(z, m, 2 * h)


def _ms_stcn(
    frame: int, widths: list[int], strides: list[int], z: list[int], top: int = 4, blocks: int = 4, out: int = 0
) -> int:
    """MS-STCN with two Gaussians for each sample, or `out` numbers; without latents where z are zero."""
    total = _mlp(widths[0], out or 2 + 4 * frame)
    below = [frame, *widths]
    for i, (width, stride, n) in enumerate(zip(widths, strides, z, strict=True)):
        last = i == len(widths) - 1
        total += _block(below[i], width, taps=2, stride=stride)
        total += ((top if last else blocks) - 1) * _block(width, width, taps=2)
        total += _block(width if last else 2 * width, width) + _block(width, width)
        fallen = widths[max(i - 1, 0)]
        total += _block(width, fallen, n) + _block(fallen, fallen, n, stride=stride)
        total += _mlp(width, 2 * n) + _mlp(2 * width, 2 * n)
    return total


_STEPS, _ALIKE = [1, 2, 2, 2, 1], [1] * 5
_LADDERS = {
    200: ([256] * 5, [64] * 5, _STEPS),
    25: ([128, 192, 256, 384, 384], [8, 16, 32, 64, 64], _STEPS),
    2: ([26, 58, 128, 256, 256], [1, 5, 25, 64, 64], [1, 5, 5, 4, 1]),
}
_SMALL_LADDERS = {200: ([32] * 5, [8] * 5), 25: ([16, 24, 32, 48, 48], [2, 4, 8, 12, 12])}
_DSAE = (
    (_mlp(257, 256) + 2 * _lstm(256, 128) + _mlp(256, 64, 32, 32))  # features, v
    + (_mlp(272, 256) + 2 * _lstm(256, 128) + _mlp(256, 64) + 32 * (64 + 32 + 2) + _mlp(32, 32))  # z
    + (_lstm(16, 32) + _mlp(32, 32) + _mlp(32, 32, 64, 128, 256, 257))  # prior, decoder
)
_TRANSITION = 2 * _mlp(50, 100, 50) + 2 * _mlp(50, 50)
_DKF = _TRANSITION + _mlp(50, 100, 88) + _lstm(88, 200) + _mlp(50, 200)
COUNTED = {
    "polyphonic/jsb_dkf": _DKF + _mlp(200, 100),
    "polyphonic/jsb_guides": _DKF + _mlp(400, 100),
    "polyphonic/jsb_vrnn": _mlp(88, 100)
    + (_mlp(32, 100) + _lstm(200, 32) + _mlp(32, 100, 64) + _mlp(132, 100, 88) + _mlp(132, 100, 64)),
    "polyphonic/jsb_srnn": (_mlp(88, 100) + _lstm(100, 32) + _mlp(64, 100, 64) + _mlp(64, 100, 88))
    + (_mlp(120, 100) + _lstm(100, 64) + _mlp(96, 100, 64)),
    "polyphonic/jsb_storn": (_mlp(32, 100) + 2 * _mlp(88, 100) + _lstm(200, 32) + _mlp(32, 100, 88))
    + (_lstm(100, 64) + _mlp(64, 100, 64)),
    # The paper's Table 4 has 1,060,064, 809,440 and 308,192, with one bias vector in each of three cells, not two.
    "fhvae2017/cell_lstm": 1_060_064 + 3 * 4 * 256,
    "fhvae2017/cell_gru": 809_440 + 3 * 3 * 256,
    "fhvae2017/cell_rnn": 308_192 + 3 * 256,
    "fhvae2017/cell_fc": 3_338_944,
    **{f"fhvae2017/verification16_alpha{alpha}": _fhvae(16) for alpha in ("0", "01", "1", "10")},
    **{f"fhvae2017/{row}": _fhvae(32) for row in ("verification32_alpha10", "aurora4_alpha10", "aurora4_alpha0")},
    **{
        f"fhvae2017/beta_vae{beta}": _lstm(80, 512) + _mlp(512, 128) + _lstm(64, 256) + _mlp(256, 160)
        for beta in (1, 2, 4, 8)
    },
    **{f"fhvae2017/fsdd_alpha{alpha}": _fhvae(16, 40, 128) for alpha in ("0", "10")},
    "fhvae2017/fsdd_beta_vae": _lstm(40, 256) + _mlp(256, 64) + _lstm(32, 128) + _mlp(128, 80),
    **{f"ms_stcn2021/fw{w}": _ms_stcn(w, c, s, z, 5, 5) for w, (c, z, s) in _LADDERS.items()},
    **{f"ms_stcn2021/fw{w}_no_multiscale": _ms_stcn(w, c, _ALIKE, z, 5, 5) for w, (c, z, _) in _LADDERS.items()},
    "ms_stcn2021/fw2_no_latents": _ms_stcn(2, _LADDERS[2][0], _LADDERS[2][2], [0] * 5, 5, 5),
    **{f"ms_stcn2021/small_fw{w}": _ms_stcn(w, c, _STEPS, z) for w, (c, z) in _SMALL_LADDERS.items()},
    **{f"ms_stcn2021/small_fw{w}_no_multiscale": _ms_stcn(w, c, _ALIKE, z) for w, (c, z) in _SMALL_LADDERS.items()},
    **{f"ms_stcn2021/small_fw{w}_no_latents": _ms_stcn(w, c, _STEPS, [0] * 5) for w, (c, _) in _SMALL_LADDERS.items()},
    "ms_stcn2021/stcn_moderate": _stcn(256, [256, 128, 64, 32, 16], 20),  # 7,680 below the public code, see its page
    "ms_stcn2021/stcn_large": _stcn(512, [256, 128, 64, 32, 16], 20),
    "ms_stcn2021/wavenet_gmm": _ms_stcn(200, [256] * 5, _ALIKE, [0] * 5, 5, 5, _mixture(20)),
    "ms_stcn2021/rnn_gmm": _rnn(1408, 512, _mixture(20)),
    "ms_stcn2021/vrnn_gmm": _vrnn(1024, 512, 256, _mixture(20)),
    "ms_stcn2021/srnn": _srnn(1024, 512, 256),
    "ms_stcn2021/zforcing": _z_forcing(896, 512, 256),
    "ms_stcn2021/small_stcn_moderate": _stcn(30, [30, 15, 8, 4, 2], 2),
    "ms_stcn2021/small_wavenet_gmm": _ms_stcn(200, [29] * 5, _ALIKE, [0] * 5, 5, 5),
    "ms_stcn2021/small_rnn_gmm": _rnn(120, 100, _mixture(2)),
    "ms_stcn2021/small_vrnn_gmm": _vrnn(112, 64, 16, _mixture(2)),
    "ms_stcn2021/small_srnn": _srnn(104, 64, 16),
    "ms_stcn2021/small_zforcing": _z_forcing(92, 64, 16),
    "benchmark2021/dsae": _DSAE,
    "benchmark2021/dsae_equal_kl": _DSAE,
    "benchmark2021/original_rvae": _rvae(257),
    "light2023/rvae_wsj0": _rvae(513, 128),  # a run log of the authors has 0.58 million
    "light2023/rvae_vb": _rvae(513, 128),
    "ms_stcn2021/iamondb_ms_stcn": _ladder(3, [64, 64, 64, 32, 16], [1, 2, 2, 2, 1], [8, 8, 8, 4, 2], 7),
    "ms_stcn2021/strokes_small": _ladder(3, [64, 64, 64, 32, 16], [1, 2, 2, 2, 1], [8, 8, 8, 4, 2], 61),
    **{f"light2023/small_light{row}": _light(128, 128, 256, 2, 32, 1) for row in ("", "_inv_s", "_inv_s_nr")},
    **{f"light2023/small_hit{row}": _light(128, 128, 256, 2, 32, 2) for row in ("", "_inv_s", "_inv_s_nr")},
}
"""Where no exact count is published: from the sizes of the networks."""
COUNTED["kvae2017/bouncing_ball"] = (
    _kvae(modes=3, z=4, a=2, lstm=50) + _mlp(2, 64, 128, 256, 1024) + _mlp(1024, 256, 128, 64, 2 * 2)
)
PARAMETERS = PUBLISHED | COUNTED
CORPORA = {
    "kvae2017": ("bouncing_ball",),
    "benchmark2021": ["wsj0"],
    "light2023": ["wsj0", "voicebank"],
    "polyphonic": ["polyphonic"],
    "ms_stcn2021": ["strokes", "iam_ondb", "folder", "blizzard2013"],
    "fhvae2017": ["timit", "aurora4", "fsdd"],
}
HISTORICAL: dict[str, tuple[float, dict[str, float]]] = {
    "dkf": (1 / 4800, {}),
    "vrnn": (1 / 4800, {}),
    "srnn": (1 / 4800, {}),
    "dsae": (1 / 4800, {"v": 150.0}),
}
"""KL weights behind Table 2 of the benchmark paper; 1 for the rest."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy so that nothing is left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "tests", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    run = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return folder / run.stdout.split()[-1]


def test_wheel_holds_the_packages_typed_and_the_configs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"{package}/py.typed" for package in PACKAGES}
    expected |= {str(f.relative_to(ROOT)) for p in PACKAGES for f in (ROOT / p).rglob("*.py")}
    expected |= {str(f.relative_to(ROOT)) for f in (ROOT / "configs").rglob("*.yaml")}
    expected |= {str(f.relative_to(ROOT)) for f in (ROOT / "corpora" / "fetch").glob("*.csv")}
    page = ROOT / "evaluation" / "report"
    expected |= {str(f.relative_to(ROOT)) for kind in ("j2", "bib", "css", "js") for f in page.rglob(f"*.{kind}")}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("LICENSE") for name in names)


def test_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    command = [sys.executable, "-W", "error", "-m", "inference.svi", "--print-config"]
    run = subprocess.run(
        [*command, "--config", "benchmark2021/dkf"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == to_yaml(resolve(config_path="benchmark2021/dkf"))


@pytest.mark.parametrize("name", config_names())
def test_config_gives_the_published_number_of_parameters_and_names_its_corpus(name: str) -> None:
    settings = resolve(config_path=name)
    modules = create(settings)
    unique = {id(p): p.numel() for module in modules for p in module.parameters()}
    assert sum(unique.values()) == PARAMETERS[name]
    paper, _, row = name.partition("/")
    if row.startswith("small_"):
        assert settings.data.corpus == "folder" and settings.data.root is None, "the corpus is the user's own"
        return
    assert settings.data.corpus in CORPORA[paper] and settings.data.root is None, "the root is the user's to give"
    if paper == "ms_stcn2021":
        assert settings.model.normalise
        assert (settings.model.likelihood == "pen") == (settings.data.frame_width is None)
        return
    if paper == "kvae2017":
        assert settings.data.corpus == "bouncing_ball" and settings.model.bins == 1024
        return
    if paper == "polyphonic":
        assert settings.data.subset == "JSB_Chorales" and settings.model.bins == 88
        return
    assert (settings.data.corpus == "voicebank") == row.endswith("_vb")
    assert settings.train.kl_warmup_steps == 0 and settings.model.input == "raw", "as published"
    if paper == "fhvae2017":
        assert (settings.data.frontend, settings.data.window, settings.model.segment) == ("fbank", None, 20)
        return
    assert settings.data.window == 2 * (settings.model.bins - 1)


def test_every_config_has_its_row() -> None:
    assert sorted(PARAMETERS) == config_names()


@pytest.mark.parametrize("model", HISTORICAL)
def test_historical_and_equal_kl_weights_differ_in_nothing_else(model: str) -> None:
    historical = resolve(config_path=f"benchmark2021/{model}")
    equal = resolve(config_path=f"benchmark2021/{model}_equal_kl")
    beta, own = HISTORICAL[model]
    assert historical.train.beta == pytest.approx(beta, rel=1e-12) and historical.train.beta_sites == own
    assert (equal.train.beta, equal.train.beta_sites) == (1.0, {})
    historical.train.beta, historical.train.beta_sites = equal.train.beta, equal.train.beta_sites
    assert historical == equal


def test_papers_train_with_closed_form_kls_as_their_public_codes() -> None:
    """All but reduced settings measured otherwise (docs/reference/configs.md), models without latents, and the
    KVAE, whose public code has log q(a) at the sample.
    """
    other = {name for name in config_names() if resolve(config_path=name).train.objective != "analytic"}
    reduced = {f"light2023/small_{m}{v}" for m in ("hit", "light") for v in ("", "_inv_s", "_inv_s_nr")}
    reduced |= {f"fhvae2017/fsdd_{row}" for row in ("alpha0", "alpha10", "beta_vae")}
    reduced.add("kvae2017/bouncing_ball")
    assert other - reduced == {f"ms_stcn2021/{size}{m}_gmm" for size in ("", "small_") for m in ("rnn", "wavenet")}


def test_rows_whose_kl_was_weighted_equally_stand_alone() -> None:
    for name in config_names():
        if name.startswith("benchmark2021/") and name.partition("/")[2].partition("_equal")[0] not in HISTORICAL:
            assert resolve(config_path=name).train.beta == 1.0


def test_the_two_corpora_of_a_row_differ_in_nothing_but_what_the_paper_says() -> None:
    for row in ("vae", "dkf", "rvae", "srnn_tf", "srnn_ss", "hit", "light"):
        wsj0, vb = (resolve(config_path=f"light2023/{row}_{corpus}") for corpus in ("wsj0", "vb"))
        assert (wsj0.data.sequence_frames, vb.data.sequence_frames) == (150, 100)
        assert wsj0.evaluation == vb.evaluation and wsj0.evaluation.mode == (
            "gt" if row in ("vae", "dkf", "rvae") else "gen"
        )
        wsj0.data = vb.data
        wsj0.train.scheduled_sampling = vb.train.scheduled_sampling
        assert wsj0 == vb


def test_teacher_forcing_and_scheduled_sampling_differ_in_nothing_else() -> None:
    for corpus in ("wsj0", "vb"):
        forced, scheduled = (resolve(config_path=f"light2023/srnn_{way}_{corpus}") for way in ("tf", "ss"))
        assert (
            forced.train.scheduled_sampling.schedule is None and scheduled.train.scheduled_sampling.schedule == "linear"
        )
        assert (scheduled.train.scheduled_sampling.mix, scheduled.train.scheduled_sampling.coin) == ("h", "batch")
        forced.train.scheduled_sampling = scheduled.train.scheduled_sampling
        assert forced == scheduled


def test_ablations_differ_in_nothing_but_the_decoder_of_x() -> None:
    for name in ("hit", "light"):
        for variant in ("inv_s", "inv_s_nr"):
            standard, ablated = (resolve(config_path=f"light2023/{name}{row}_vb") for row in ("", f"_{variant}"))
            assert (standard.model.variant, ablated.model.variant) == ("standard", variant)
            standard.model.variant = variant
            assert standard == ablated


def test_reduced_settings_differ_in_model_and_variant_alone() -> None:
    reduced = [resolve(config_path=name) for name in config_names() if name.startswith("light2023/small_")]
    assert len({(s.model.name, s.model.variant) for s in reduced}) == 6
    for settings in reduced:
        settings.model = {k: v for k, v in vars(settings.model).items() if k not in ("name", "variant")}
    assert all(settings == reduced[0] for settings in reduced)


def test_reduced_ladders_differ_in_frames_widths_strides_and_latents_alone() -> None:
    reduced = [resolve(config_path=name) for name in config_names() if name.startswith("ms_stcn2021/small_fw")]
    assert len({(s.data.frame_width, tuple(s.model.strides), s.model.latent) for s in reduced}) == 6
    varied = ("bins", "strides", "latent", "widths", "z_dims")
    for settings in reduced:
        assert settings.data.sequence_frames == 8000 // (settings.data.frame_width or 1)
        settings.data.sequence_frames = settings.data.frame_width = None
        settings.train.free_bits.threshold = settings.train.free_bits.halve_every = None
        settings.model = {k: v for k, v in vars(settings.model).items() if k not in varied}
    assert all(settings == reduced[0] for settings in reduced)


def test_the_rows_on_polyphonic_music_differ_in_model_and_guide_alone() -> None:
    """But for those that are fed the past of x: they learn it by heart, and are held back, all three alike."""
    rows = {name: resolve(config_path=name) for name in config_names() if name.startswith("polyphonic/")}
    dkf = rows["polyphonic/jsb_dkf"]
    vrnn = rows["polyphonic/jsb_vrnn"]
    for name, row in rows.items():
        alike = dkf if row.model.name == "dkf" else vrnn
        assert (row.data, row.optim, row.train) == (dkf.data, alike.optim, alike.train), name
    assert rows["polyphonic/jsb_guides"].model == dkf.model
    for guide in ("past-markov", "all-markov", "all-meanfield"):
        other = resolve(guide=guide, config_path="polyphonic/jsb_guides")
        other.guide.name = "future-markov"
        assert other == rows["polyphonic/jsb_guides"]


def test_readme_begins_with_two_commands_and_the_checks_run_the_second() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = readme.split("```")[1].splitlines()[1:]
    assert len(lines) == 2, "the first fenced block is two commands, one line each"
    first, second = lines
    assert "python -m inference.svi --model dkf" in first and "-m evaluation.resynthesis" in first
    install, _, test = second.rpartition(" && ")
    assert "pip install -c constraints.txt" in install and ".[dev]" in install
    assert re.fullmatch(r"\.venv/bin/python -m pytest( -n \d+)?", test)
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "README.md | sed -n 2p" in checks, ".ci/run takes the second command from README.md"
    script = checks[checks.index("readme=") : checks.index("\n\n", checks.index("readme="))]
    shown = subprocess.run(
        ["bash", "-c", f'work=/w\n{script}\nprintf "%s\\n" "$install" "$tests"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.splitlines() == [part.replace(".venv", "/w/venv") for part in (install, test)]


def test_lowest_versions_are_the_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = dict(re.split(">=", re.split(",", want)[0]) for want in project["dependencies"])
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    lowest = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert lowest == {name: bound for name, bound in bounds.items() if name != "torch"}


def test_constraints_pin_every_dependency_and_no_build_tag() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    assert {re.split(r"[<>=]", want)[0].replace("_", "-") for want in wanted} <= pinned
