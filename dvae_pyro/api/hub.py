"""Shared runs from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from dvae_pyro.errors import UserError, first_line

__all__ = ["PREFIX", "from_hub"]

PREFIX = "hf:"
FILES = ["config.yaml", "*.safetensors", "README.md"]


def from_hub(name: str) -> Path:
    """Download a shared run, or find it in the cache of the hub's client; returns its folder.

    Args:
        name: ``"hf:USER/NAME"``, or ``"hf:USER/NAME@REVISION"`` for a fixed version.

    Raises:
        UserError: the client is not installed, or there is no such run.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError("package huggingface_hub is not installed: pip install -e '.[hub]'.") from None
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=FILES))
    except Exception as error:  # the client's errors have no base of their own
        raise UserError(
            f"cannot download {name}: {first_line(error)}\n"
            "Expected hf:USER/NAME, a folder that python -m evaluation.share wrote; a private one needs hf auth login."
        ) from error
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{name} is not a run of this library: it has no config.yaml.")
    return folder
