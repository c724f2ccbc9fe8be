"""Settings: what wins over what, and every refusal by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from dvae_pyro.errors import UserError
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
        ("optim.lrr=1e-3", "unknown setting 'optim.lrr'. Did you mean 'optim.lr'?"),
        ("lr=1e-3", "unknown setting 'lr'. Did you mean 'optim.lr'?"),
        ("model.z_dims=3", "unknown setting 'model.z_dims'. Did you mean 'model.z_dim'?"),
        ("guide.depth=3", "unknown setting 'guide.depth'"),
        ("train=3", "'train' is a section, not a value"),
        ("train.steps=many", "train.steps takes int or null, got 'many'"),
        ("model.z_dim=2.5", "model.z_dim takes int, got 2.5"),
        ("model.z_dim=null", "model.z_dim takes int, got None"),
        ("model.scale_bounds=[5,1]", "model.scale_bounds=[5.0, 1.0]: expected"),
        ("model.weight_floor=0.1", "model.weight_floor=0.1: expected at least 0 and below 1 / model.components=0.1"),
        ("optim.name=sgd", "optim.name takes one of adam, adamw, got 'sgd'"),
        ("optim.name=null", "optim.name takes one of adam, adamw, got None"),
        ("optim.name=[adam]", "optim.name takes one of adam, adamw, got ['adam']"),
        ("dtype=float16", "dtype takes one of float32, float64, got 'float16'"),
        ("train.autocast=fp16", "train.autocast takes one of bf16 or null, got 'fp16'"),
        ("train.beta_sites.z=much", "train.beta_sites.z takes float, got 'much'"),
        ("model.normalise=bins", "model.normalise takes one of false, true, global, got 'bins'"),
        ("train.bucket=maybe", "train.bucket takes bool, got 'maybe'"),
        ("train.batch_size=0", "train.batch_size=0: expected at least 1"),
        ("optim.lr=nan", "optim.lr=nan: expected at least 0"),
        ("optim.clip=0", "optim.clip=0.0: expected a number above 0"),
        ("optim.betas=[1.5, 0.9]", "optim.betas=[1.5, 0.9]: expected two numbers from 0 to below 1"),
        ("optim.weight_decay=-1", "optim.weight_decay=-1.0: expected at least 0"),
        ("model.z_dim=0", "model.z_dim=0: expected at least 1"),
        ("model.z_x=[4, 0]", "model.z_x[1]=0: expected at least 1"),
        ("model.variance_floor=-1", "model.variance_floor=-1.0: expected at least 0"),
        ("guide.x_z=[-2]", "guide.x_z[0]=-2: expected at least 1"),
        ("seed=99999999999999999999", "seed=99999999999999999999: expected"),
        ("train.scheduled_sampling.end_epoch=9", "end_epoch has no effect without a schedule"),
        ("train.beta_sites.v=3", "model 'vae' has no latent 'v'. Its latents: z."),
        ("train.beta_sites.z=-1", "train.beta_sites.z=-1.0: expected at least 0"),
        ("train.epochs=null", "both null"),
        ("steps", "expected key=value, such as optim.lr=1e-3"),
        ("optim.lr=[1", "the value is not readable as YAML"),
        ("seed=${nowhere}", "do not resolve"),
        ("model.name=dkf", "--model vae contradicts model.name=dkf"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        resolve("vae", overrides=[override])
    assert message in str(refusal.value)


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
