"""reference/metrics.md: the metrics of resynthesis, from `evaluation.resynthesis.metrics.METRICS` and its functions."""

from __future__ import annotations

import inspect
import re

from evaluation.resynthesis import metrics

__all__ = ["definition", "page"]

_FUNCTIONS = {"pesq_wb": "pesq", "pesq_nb": "pesq", "is_per_frame": "itakura_saito"}
_TEXTS = {
    "kl_per_frame": "Sum over frames of the KL divergence of the guide from the prior, in closed form where there is "
    "one, over the number of frames; nats per frame. A value near zero means that the latents are hardly used.",
    "dnsmos": "Overall quality of the estimate from 1 to 5 without a reference (`--mos`), as DNSMOS P.835 predicts it "
    "(Reddy, Gopal & Cutler, 2022; package `speechmos`).",
    "dnsmos_reference": "The same of the reference: what real speech of the corpus is rated.",
}


def definition(name: str) -> str:
    """The definition of a metric in Markdown: the docstring of its function up to its arguments."""
    if name in _TEXTS:
        return _TEXTS[name]
    text = inspect.getdoc(getattr(metrics, _FUNCTIONS.get(name, name))) or ""
    text = re.split(r"\n\n(?:Args|Returns|Example|Raises):", text)[0]
    return re.sub(r"\.\. math:: ?((?:.*\n?)(?:[ \t]+.*\n?)*)", _math, text).replace(":math:", "")


def page() -> str:
    """The page in Markdown."""
    rows = ["| key | printed as | unit or scale | better |", "|---|---|---|---|"]
    for name, metric in metrics.METRICS.items():
        scale = f"printed times {metric.scale:g}" if metric.scale != 1 else ""
        rows.append(f"| `{name}` | {metric.label} | {scale} | {metric.better or 'neither'} |")
    parts = [_HEAD, "\n".join(rows) + "\n"]
    for name, metric in metrics.METRICS.items():
        parts.append(f"## {metric.label} (`{name}`)\n\n{definition(name)}\n")
    return "\n".join(parts)


_HEAD = """# Metrics

Metrics of `evaluation.resynthesis`, one value per utterance; this page is written from the code when the site is built.
Reports give the mean and the standard error over utterances, for the mode (`gt` or `gen`) that they name. A value that
does not exist for an utterance is NaN; it is left out of the mean, counted and named. s is the reference (trimmed,
divided by its largest absolute value), e the estimate, and <a, b> the sum over samples of a_n b_n.

Metrics of other commands: [likelihood estimators](../explanation/likelihood.md),
[Frechet distance](../how-to/generation.md#frechet-distances), [equal error rate](../studies/verification.md),
[error rates of recognition](../studies/recognition.md), [predictive checks](../how-to/arviz.md).
"""


def _math(match: re.Match[str]) -> str:
    return f"```latex\n{' '.join(match[1].split())}\n```\n"
