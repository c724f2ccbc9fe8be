"""Settings: what wins over what, and every refusal by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from dvae_pyro.errors import UserError
from guides.kvae import SampledKVAEGuideSettings
from inference.settings.overrides import apply_layer
from inference.settings.resolve import load_run_settings, resolve, save_settings, to_yaml
from inference.settings.tree import Settings


def test_the_command_line_wins_over_the_config_and_the_config_over_the_defaults(tmp_path: Path) -> None:
    config = tmp_path / "row.yaml"
    config.write_text("model: {name: vae, z_dim: 8, bins: 33}\noptim: {lr: 1e-4}\n")
    settings = resolve(config_path=config, overrides=["model.z_dim=4", "optim.betas=[0.5, 0.9]"])
    assert settings.model.name == "vae" and settings.guide.name == "paper"
    assert (settings.model.z_dim, settings.model.bins) == (4, 33)
    assert settings.optim.lr == 1e-4 and settings.optim.betas == (0.5, 0.9)
    assert settings.train.batch_size == 32


def test_a_model_named_on_the_command_line_has_its_own_settings() -> None:
    settings = resolve("dkf", "all-markov", overrides=["data.trim_db=null"])
    assert settings.model.name == "dkf" and settings.guide.name == "all-markov"
    assert settings.data.trim_db is None


def test_the_settings_of_the_guide_are_those_of_the_guide_that_the_models_settings_choose(tmp_path: Path) -> None:
    config = tmp_path / "row.yaml"
    config.write_text("model: {name: kvae, integrate: false}\n")
    for settings in (
        resolve("kvae", overrides=["model.integrate=false", "guide.g_dim=8"]),
        resolve(config_path=config, overrides=["guide.g_dim=8"]),
    ):
        assert isinstance(settings.guide, SampledKVAEGuideSettings) and settings.guide.g_dim == 8
    with pytest.raises(UserError, match=r"'guide\.g_dim'"):
        resolve("kvae", overrides=["guide.g_dim=8"])


def test_a_limit_that_is_given_lifts_the_other_default() -> None:
    assert (resolve("vae").train.steps, resolve("vae").train.epochs) == (None, 100)
    by_steps = resolve("vae", overrides=["train.steps=600"]).train
    assert (by_steps.steps, by_steps.epochs) == (600, None)
    both = resolve("vae", overrides=["train.steps=600", "train.epochs=3"]).train
    assert (both.steps, both.epochs) == (600, 3)


def test_defaults_of_a_model_come_before_its_config() -> None:
    tree = OmegaConf.structured(Settings)
    apply_layer(tree, {"data.sequence_frames": 50, "optim.lr": 2e-3}, "defaults of m")
    apply_layer(tree, {"optim.lr": 5e-4}, "row.yaml")
    assert tree.data.sequence_frames == 50 and tree.optim.lr == 5e-4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1e-3", r"'optim\.lrr'.*'optim\.lr'"),
        ("lr=1e-3", r"'lr'.*'optim\.lr'"),
        ("model.z_dims=3", r"'model\.z_dims'.*'model\.z_dim'"),
        ("guide.depth=3", r"'guide\.depth'"),
        ("train=3", r"'train' .*train\.steps="),
        ("train.steps=many", r"train\.steps .*int.*null.*'many'"),
        ("model.z_dim=2.5", r"model\.z_dim .*int.* 2\.5"),
        ("model.z_dim=null", r"model\.z_dim .*int.* None"),
        ("model.scale_bounds=[5,1]", r"model\.scale_bounds=\[5\.0, 1\.0\]"),
        ("model.weight_floor=0.1", r"model\.weight_floor=0\.1\b.*model\.components=0\.1"),
        ("optim.name=sgd", r"optim\.name .*adam, adamw.*'sgd'"),
        ("optim.name=null", r"optim\.name .*adam, adamw.* None"),
        ("optim.name=[adam]", r"optim\.name .*adam, adamw.*\['adam'\]"),
        ("dtype=float16", r"dtype .*float32, float64.*'float16'"),
        ("train.autocast=fp16", r"train\.autocast .*bf16.*null.*'fp16'"),
        ("train.beta_sites.z=much", r"train\.beta_sites\.z .*float.*'much'"),
        ("model.normalise=bins", r"model\.normalise .*false, true, global.*'bins'"),
        ("train.bucket=maybe", r"train\.bucket .*bool.*'maybe'"),
        ("train.batch_size=0", r"train\.batch_size=0\b.* 1\b"),
        ("optim.lr=nan", r"optim\.lr=nan\b.* 0\b"),
        ("optim.clip=0", r"optim\.clip=0\.0: .*above 0"),
        ("optim.betas=[1.5, 0.9]", r"optim\.betas=\[1\.5, 0\.9\]"),
        ("optim.weight_decay=-1", r"optim\.weight_decay=-1\.0\b.* 0\b"),
        ("model.z_dim=0", r"model\.z_dim=0\b.* 1\b"),
        ("model.z_x=[4, 0]", r"model\.z_x\[1\]=0\b.* 1\b"),
        ("model.variance_floor=-1", r"model\.variance_floor=-1\.0\b.* 0\b"),
        ("guide.x_z=[-2]", r"guide\.x_z\[0\]=-2\b.* 1\b"),
        ("seed=99999999999999999999", r"seed=99999999999999999999\b"),
        ("train.scheduled_sampling.end_epoch=9", r"train\.scheduled_sampling\.end_epoch .*schedule="),
        ("train.beta_sites.v=3", r"train\.beta_sites\.v\b.*'vae'.* z\."),
        ("train.beta_sites.z=-1", r"train\.beta_sites\.z=-1\.0\b.* 0\b"),
        ("train.epochs=null", r"train\.steps .*train\.epochs .*null"),
        ("steps", r"'steps'.*key=value"),
        ("optim.lr=[1", r"'optim\.lr=\[1'.*YAML"),
        ("seed=${nowhere}", "nowhere"),
        ("model.name=dkf", r"--model vae .*model\.name=dkf"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve("vae", overrides=[override])


def test_names_that_are_not_there_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'dkff'.*'dkf'"):
        resolve("dkff")
    with pytest.raises(UserError, match="'all-markoff'.*'all-markov'"):
        resolve("dkf", "all-markoff")
    with pytest.raises(UserError, match="--model NAME.*vae"):
        resolve()


def test_a_wrong_config_is_refused_with_its_name(tmp_path: Path) -> None:
    config = tmp_path / "row.yaml"
    with pytest.raises(UserError, match="--config .*row.yaml"):
        resolve("vae", config_path=config)
    config.write_text("optim: {lrr: 1}")
    with pytest.raises(UserError, match="row.yaml.*'optim.lrr'"):
        resolve("vae", config_path=config)
    config.write_text("optim: {lr: [")
    with pytest.raises(UserError, match="row.yaml"):
        resolve("vae", config_path=config)
    config.write_text("- 1")
    with pytest.raises(UserError, match="row.yaml"):
        resolve("vae", config_path=config)


def test_saved_settings_come_back_equal(tmp_path: Path) -> None:
    settings = resolve("dkf", overrides=["model.z_dim=3", "optim.clip=1", "train.steps=7"])
    save_settings(settings, tmp_path / "config.yaml")
    loaded = load_run_settings(tmp_path)
    assert loaded.run == str(tmp_path)
    loaded.run = None
    assert loaded == settings
    assert to_yaml(loaded) == to_yaml(settings)
    assert load_run_settings(tmp_path, ["data.root=elsewhere"]).data.root == "elsewhere"


def test_a_run_older_than_a_setting_is_as_it_was_trained(tmp_path: Path) -> None:
    """What the run does not say is not today's default, but what there was before the setting."""
    save_settings(resolve("fhvae"), tmp_path / "config.yaml")
    assert load_run_settings(tmp_path).model.activation == "relu"
    (tmp_path / "config.yaml").write_text((tmp_path / "config.yaml").read_text().replace("  activation: relu\n", ""))
    assert load_run_settings(tmp_path).model.activation == "tanh"
    save_settings(resolve("ms_stcn"), tmp_path / "config.yaml")
    assert tuple(load_run_settings(tmp_path).model.scale_bounds) == (1e-3, 5.0)
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert isinstance(saved, DictConfig)
    del saved.model["scale_bounds"]
    OmegaConf.save(saved, tmp_path / "config.yaml")
    assert load_run_settings(tmp_path).model.scale_bounds is None
    assert load_run_settings(tmp_path, ["model.scale_bounds=[0.1,2]"]).model.scale_bounds == (0.1, 2.0)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="config.yaml"):
        load_run_settings(tmp_path)
    with pytest.raises(UserError, match="nothing"):
        load_run_settings(tmp_path / "nothing")


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, inference.svi as s\ntry: s.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'pyro', 'numpy', 'omegaconf'} & set(sys.modules), 'heavy import'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--resume DIR" in done.stdout


def test_a_setting_that_no_longer_exists_is_read_with_its_old_default_alone() -> None:
    assert not hasattr(resolve("fhvae", overrides=["model.levels=2"]).model, "levels")
    with pytest.raises(UserError, match="model.levels=3"):
        resolve("fhvae", overrides=["model.levels=3"])


def test_epochs_of_the_warm_up_replace_steps_of_a_layer_below(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("train: {kl_warmup_steps: 7}\n")
    assert resolve("dkf", config_path=tmp_path / "config.yaml").train.kl_warmup_steps == 7
    given = resolve("dkf", config_path=tmp_path / "config.yaml", overrides=["train.kl_warmup_epochs=3"]).train
    assert (given.kl_warmup_epochs, given.kl_warmup_steps) == (3, None)
