"""What is said about a model and its guide: formulas, verdicts and counts, against the papers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from guides.registry import compliant
from inference.describe import main
from inference.settings.resolve import resolve
from inference.summary import describe, structure
from models.structure.formulas import factorisation, ranges, symbols
from models.structure.parents import FRAMES, frames_of

VARIANTS = {
    "vae": ("vae", ()),
    "dkf": ("dkf", ()),
    "storn": ("storn", ()),
    "vrnn": ("vrnn", ()),
    "srnn": ("srnn", ()),
    "rvae": ("rvae", ()),
    "rvae-noncausal": ("rvae", ("model.causal=false",)),
    "dsae": ("dsae", ()),
}
FORMULAS = {  # Bie et al. (2021), Table 1, and section 2 for the guides; z_{1:t-1} of DSAE and z_{t-1} of SRNN as coded
    "vae": ("p(z_t) p(x_t | z_t)", "q(z_t | x_t)"),
    "dkf": ("p(z_t | z_{t-1}) p(x_t | z_t)", "q(z_t | z_{t-1}, x_{t:T})"),
    "storn": ("p(z_t) p(x_t | x_{1:t-1}, z_{1:t})", "q(z_t | x_{1:t})"),
    "vrnn": ("p(z_t | x_{1:t-1}, z_{1:t-1}) p(x_t | x_{1:t-1}, z_{1:t})", "q(z_t | z_{1:t-1}, x_{1:t})"),
    "srnn": ("p(z_t | x_{1:t-1}, z_{t-1}) p(x_t | x_{1:t-1}, z_t)", "q(z_t | z_{t-1}, x_{1:T})"),
    "rvae": ("p(z_t) p(x_t | z_{1:t})", "q(z_t | x_{t:T}, z_{1:t-1})"),
    "rvae-noncausal": ("p(z_t) p(x_t | z_{1:T})", "q(z_t | x_{1:T}, z_{1:t-1})"),
    "dsae": ("p(z_t | z_{1:t-1}) p(x_t | z_t, v)", "q(z_t | x_{1:T}, v)"),
}
VERDICTS = {
    "vae": "guide's z: same variables",
    "dkf": "guide's z: same variables",
    "storn": "guide's z: fewer variables; missing x_{t+1:T}, z_{1:t-1}",
    "vrnn": "guide's z: fewer variables; missing x_{t+1:T}",
    "srnn": "guide's z: same variables",
    "rvae": "guide's z: same variables",
    "rvae-noncausal": "guide's z: same variables",
    "dsae": "guide's z: fewer variables; missing z_{1:t-1}; extra x_{1:t-1}",
}
COMPLY = {"vae", "rvae", "rvae-noncausal", "dkf", "srnn"}  # Bie et al. (2021), Table 1
PARAMETERS = {  # of the released weights
    "vae": 220_385,
    "dkf": 397_729,
    "storn": 673_249,
    "vrnn": 453_729,
    "srnn": 688_129,
    "rvae": 586_305,
    "rvae-noncausal": 924_225,
}


def _lines(variant: str, guide: str | None = None, *more: str) -> list[str]:
    name, overrides = VARIANTS[variant]
    return describe(resolve(name, guide, overrides=[*overrides, *more]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_formulas_verdicts_and_totals_are_the_papers(variant: str) -> None:
    lines = _lines(variant)
    model, guide = FORMULAS[variant]
    if variant == "dsae":
        assert lines[2] == f"p(x_{{1:T}}, z_{{1:T}}, v) = p(v) prod_t {model}"
        assert lines[3] == f"q(z_{{1:T}}, v | x_{{1:T}}) = q(v | x_{{1:T}}) prod_t {guide}"
        assert "guide's v: same variables" in lines
    else:
        assert lines[2] == f"p(x_{{1:T}}, z_{{1:T}}) = prod_t {model}"
        assert lines[3] == f"q(z_{{1:T}} | x_{{1:T}}) = prod_t {guide}"
    assert VERDICTS[variant] in lines
    word = "complies" if variant in COMPLY else "does not comply"
    assert f"the guide {word} with the exact posterior" in lines
    if variant in PARAMETERS:
        assert lines[-1] == f"total {PARAMETERS[variant]}"
    assert "\n".join(lines).isascii()


def test_dsae_has_the_published_number_of_parameters_at_513_bins() -> None:
    """The authors' corrected benchmark: all widths empty but the decoder's, every recurrent network 128 wide."""
    widths = ["model.bins=513", "model.h_dim=128", "guide.r_dim=128"]
    widths += [f"guide.{name}=[]" for name in ("x", "g_v", "xv_g", "g_r")]
    assert _lines("dsae", None, *widths)[-1] == "total 1650241"


def test_networks_are_counted_once_and_conditionals_name_what_they_go_through() -> None:
    """VRNN by hand: its LSTM, which all three conditionals read, has 4 H (in + H + 2) parameters."""
    table = {line.split("  ")[1]: line for line in _lines("vrnn") if line.startswith("  ")}
    x, z, h = 257 * 256 + 256, 16 * 32 + 32 + 32 * 64 + 64, 4 * 128 * (256 + 64 + 128 + 2)
    prior = 128 * 64 + 64 + 64 * 32 + 32 + 32 * 32 + 32
    assert table["model.h"].split()[1:] == [f"{h:,}", "shared", "by", "model", "and", "guide"]
    assert table["model.h_z"].split()[1:] == [f"{128 * 64 + 64 + 64 * 32 + 32:,}"]
    assert "guide.h" not in table
    formula = "p(z_t | x_{1:t-1}, z_{1:t-1})"
    rest = table[formula].removeprefix(f"  {formula}").split()
    assert rest == [f"{x + z + h + prior:,}", "model.x", "model.z", "model.h", "model.h_z", "model.prior_head"]
    counts = [int(line.split()[1].replace(",", "")) for name, line in table.items() if "." in name and "(" not in name]
    assert sum(counts) == PARAMETERS["vrnn"]


def test_a_latent_of_the_sequence_goes_through_networks_of_its_own() -> None:
    lines = _lines("dsae")
    v, z = (next(line for line in lines if line.startswith(f"  {formula}")) for formula in ("q(v", "q(z_t"))
    assert v.split()[-4:] == ["guide.x", "guide.gv", "guide.g_v", "guide.v_head"]
    assert "guide.gv" not in z.split()
    assert next(line for line in lines if line.startswith("  p(v)")).split() == ["p(v)", "0"]


def test_the_verdict_is_that_of_the_settings() -> None:
    assert "guide's z: more variables; extra x_{1:t-1}" in _lines("dkf", None, "guide.bidirectional=true")
    assert "guide's z: fewer variables; missing x_{t+1:T}; extra x_{1:t-1}" in _lines("dkf", "past-markov")
    assert _lines("vrnn", "compliant")[0] == "model vrnn, guide compliant (all-memory)"
    assert "guide's z: same variables" in _lines("vrnn", "compliant")


def test_ranges_close_up_and_stay_open_at_the_ends() -> None:
    t = FRAMES // 2
    assert ranges([("x", s) for s in range(FRAMES) if s != t]) == ["x_{1:t-1}", "x_{t+1:T}"]
    assert ranges([("z", 0)]) == ["z_{1:t-3}"] and ranges([("z", t - 1), ("z", t)]) == ["z_{t-1:t}"]
    assert ranges([]) == []
    assert symbols(("z[t-9]", "z[t-2:t]", "x[t+1:]", "w")) == ["z_{t-9}", "z_{t-2:t-1}", "x_{t+1:T}", "w"]
    assert factorisation("p", {"x": ()}, set()) == "p(x_{1:T}) = prod_t p(x_t)"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_graph_has_the_edges_that_the_model_declares(variant: str, tmp_path: Path) -> None:
    name, overrides = VARIANTS[variant]
    file = tmp_path / "model.dot"
    assert main(["--model", name, *overrides, "--graph", str(file)]) == 0
    found = {tuple(line.split(" -> ")) for line in file.read_text().replace("\t", "").splitlines() if "->" in line}
    parents = structure(resolve(name, overrides=overrides)).model

    def label(node: tuple[str, int]) -> str:
        return node[0] if node[1] < 0 else f"{node[0]}_{node[1] + 1}"

    expected = {
        (label(above), f"{site}_{t + 1}")
        for site, listed in parents.items()
        for t in range(3)
        for parent in listed
        for above in frames_of(parent, t, 3)
    }
    assert found == expected


def test_pictures_need_dot_and_graphviz_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(file: Path) -> str:
        assert main(["--model", "vae", "--graph", str(file)]) == 2
        return capsys.readouterr().err

    monkeypatch.setenv("PATH", str(tmp_path))
    assert "needs the program dot of Graphviz" in refused(tmp_path / "model.svg")
    assert "expected a file ending in .dot" in refused(tmp_path / "model.bmp")
    assert "No such file or directory" in refused(tmp_path / "nowhere" / "model.dot")
    dot = tmp_path / "dot"
    dot.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n/bin/cat > "$2"\n')
    dot.chmod(0o755)
    assert main(["--model", "vae", "--graph", str(tmp_path / "model.svg")]) == 0
    assert "z_1 -> x_1" in (tmp_path / "model.svg").read_text()
    capsys.readouterr()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install graphviz" in refused(tmp_path / "model.dot")


def test_wrong_names_are_refused_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "vea"]) == 2
    assert "Did you mean 'vae'" in capsys.readouterr().err
    assert main(["--model", "vae", "model.zdim=3"]) == 2
    assert "Did you mean 'model.z_dim'" in capsys.readouterr().err


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, inference.describe as d\ntry: d.main(['--help'])\n"
    code += "except SystemExit: print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


def test_the_table_of_guides_in_the_docs_is_what_describe_says() -> None:
    file = Path(__file__).parents[3] / "docs" / "explanation" / "guides.md"
    page = file.read_text(encoding="utf-8").replace("\\|", "|")
    rows = re.findall(
        r"^\| `([a-z]+)( model.causal=false)?` \| (q\(.*) \| (p\(.*) \| (.*) \| (.*) \|$", page, re.MULTILINE
    )
    assert len(rows) == len(VARIANTS)
    for name, more, own, exact, verdict, complies in rows:
        overrides = more.split()
        lines = describe(resolve(name, overrides=overrides))
        assert lines[3].endswith(f"prod_t {own}") and f"exact posterior {exact}" in lines
        assert f"guide's z: {verdict}" in lines
        assert compliant(resolve(name, overrides=overrides).model) == complies
