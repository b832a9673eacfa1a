"""The models against SPEC, source, catalogue and README; and, where Spin is installed, against themselves."""

import ast
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from auditor.threats import load_threats
from tests.formal import models
from tests.formal.models import HOME, HONEST_END

ROOT = HOME.parents[1]
MODELS = models.load()
PROTECTIONS = [(model, one) for model in MODELS for one in model.protections]
NAMES = [f"{model.name}.{one.title}" for model, one in PROTECTIONS]
PROPERTIES = {name for model in MODELS for name in model.properties}
README = (HOME / "README.md").read_text("utf-8")
SECONDS = 20


def test_there_are_models():
    assert [model.name for model in MODELS] == ["challenge", "flow", "logs", "succession", "times"]
    assert sum(len(model.properties) for model in MODELS) == len(PROPERTIES) == 29
    assert all(model.small for model in MODELS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_model_says_what_it_has(model):
    text = model.source.read_text("utf-8")
    assert set(model.numbers) == set(model.properties)
    assert len(set(model.numbers.values())) == len(model.numbers)
    assert HONEST_END not in model.numbers.values()
    assert set(re.findall(r"CHECK\((\w+),", text)) == set(model.properties)
    assert "HONEST_END(" in text
    # Every property has a protection without which it breaks, and every switch is looked at by the model.
    assert {one.breaks for one in model.protections if not one.limit} == set(model.properties)
    used = set(re.findall(r"(?:#ifn?def |defined\()(\w+)", text))
    told = {switch.split("=")[0] for one in model.protections for switch in one.switches}
    assert told <= used
    assert {name for name in used if name.startswith(("NO_", "LIMIT_"))} <= told
    limits = {bound.split("=")[0] for one in model.protections for bound in one.bounds}
    limits |= {bound.split("=")[0] for row in (*model.small, *model.full) for bound in row}
    assert limits <= used


def defined_in(path):
    """Functions, and methods as `Class.method`, of a source file."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("model", "one"), PROTECTIONS, ids=NAMES)
def test_a_protection_is_where_the_model_says(model, one):
    assert one.name in defined_in(ROOT / one.path)
    clauses = re.findall(r"^#+ ([0-9.]+) ", (ROOT / "protocol" / "SPEC.md").read_text("utf-8"), re.MULTILINE)
    assert one.clause in clauses
    assert one.breaks in model.properties
    row = (
        f"| `{model.name}` | `{one.title}` | {one.text} | `{one.breaks}` | {one.clause} | `{one.path}` `{one.name}` "
        f"| [trace](traces/{models.trace_file(model, one).name}) |"
    )
    assert row in README.splitlines(), row


@pytest.mark.parametrize(("model", "one"), PROTECTIONS, ids=NAMES)
def test_a_trace_is_kept(model, one):
    text = models.trace_file(model, one).read_text("utf-8")
    assert text.startswith(f"{model.name}: {'with' if one.limit else 'without'} {one.title}\n")
    assert f"broken: {one.breaks}: {model.properties[one.breaks]}\n" in text
    assert re.search(r"^ 1\. ", text, re.MULTILINE)


def test_no_other_trace_is_kept():
    assert {path.name for path in models.TRACES.iterdir()} == {models.trace_file(*pair).name for pair in PROTECTIONS}


def test_readme_names_every_property():
    for model in MODELS:
        for name, meaning in model.properties.items():
            assert f"| `{name}` | {model.name} | {meaning} |" in README.splitlines()


def test_catalogue_and_models_name_the_same_properties():
    told = {name for threat in load_threats() for name in threat.formal}
    assert told == PROPERTIES


def test_a_line_that_nobody_knows_is_refused(tmp_path):
    wrong = tmp_path / "wrong.pml"
    wrong.write_text("//@ magic happens\n", "utf-8")
    with pytest.raises(models.ModelError, match="magic"):
        models.parse(wrong)


@pytest.mark.skipif(models.missing() is not None, reason=str(models.missing()))
def test_small_models_hold_and_each_protection_is_needed():
    """All small searches, for at most SECONDS; what a slow machine did not get to is said."""
    jobs = [
        (name, lambda d, m=m, p=p: models.remove(m, p, d), 1) for name, (m, p) in zip(NAMES, PROTECTIONS, strict=True)
    ]
    jobs += [(f"{m.name} honest end", lambda d, m=m: models.reach(m, HONEST_END, d), 1) for m in MODELS]
    jobs += [(f"{m.name} {b}", lambda d, m=m, b=b: models.holds(m, b, d), 0) for m in MODELS for b in m.small[-1:]]
    end = time.monotonic() + SECONDS

    def run(job):
        if time.monotonic() > end:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return job[1](Path(folder))

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, jobs))
    for (name, _, errors), result in zip(jobs, found, strict=True):
        if result is not None:
            assert (name, result.errors, result.complete or bool(errors)) == (name, errors, True), result.messages
    left = sum(result is None for result in found)
    if left:
        pytest.skip(
            f"{left} of {len(jobs)} searches were not started within {SECONDS} seconds; `make formal SMALL=1` runs all"
        )


@pytest.mark.skipif(models.missing() is not None, reason=str(models.missing()))
def test_a_property_that_is_false_is_found(tmp_path):
    source = (HOME / "succession.pml").read_text("utf-8")
    broken = tmp_path / "succession.pml"
    broken.write_text(source.replace("SUBSET(requested, cer[x].claims))", "SUBSET(cer[x].claims, requested))"), "utf-8")
    (tmp_path / "checks.h").write_bytes((HOME / "checks.h").read_bytes())
    (tmp_path / "run").mkdir()
    found = models.holds(models.parse(broken), (), tmp_path / "run")
    assert found.errors == 1
    assert found.messages
