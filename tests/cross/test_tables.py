"""Tables of check-boxes and of both kinds: what the owner claims, the auditor proves with code of its own."""

import dataclasses

import numpy as np
import pytest

from auditor import compose, flips, following, parts_proof
from auditor.cores import Cores
from auditor.execute import Program
from owner.architectures import mlp
from owner.certify import self_check
from owner.compose import compose as owner_compose
from owner.methods import prune
from owner.methods.job import Job
from owner.targets import Target
from owner.training import train
from owner.workspace import Workspace
from protocol.claims import Logits
from protocol.errors import OwnerError
from protocol.messages.request import Request, Scope
from protocol.model import profile
from protocol.model.recipe import Recipe
from tests.demo.world import Clock, World
from tests.owner.test_region import record, table
from tests.owner.tiny import Tiny, save

START = 1_780_000_000


def commitment(root, schema, seed):
    """Sixty-four records of three classes around their centres, two of them twins, committed with their schema."""
    tiny = Tiny(World(root=root, clock=Clock(START)))
    tiny.world.build()
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, 64)
    centres = np.array([record(schema, random) for _ in range(3)])
    X = flips.flipped(schema, centres[y], random.integers(2, 6, 64), random)
    numeric = np.array(schema.kind) == "grid"
    X[:, numeric] = random.integers(0, 10, (64, int(numeric.sum())))
    X[9] = X[0]
    graph = mlp(schema.features, (8,), classes=3)
    inputs = schema.dequantise(X)
    recipe = Recipe(epochs=5, batch=16)
    made = train(graph, inputs, y, members=[np.arange(64)], recipe=recipe, rng=np.random.default_rng(0))
    tiny.model.write_bytes(profile.serialise(made.model(0)))
    (root / "schema.json").write_bytes(schema.to_bytes())
    from protocol.model import recipe as recipe_file

    (root / "recipe.json").write_bytes(recipe_file.serialise(Recipe(epochs=1, batch=16)))
    data = save(tiny.data, X_train=X.astype(np.int32), y_train=y, X_test=X[:8].astype(np.int32), y_test=y[:8])
    ran = tiny.commit("--schema", root / "schema.json", data=data, out=tiny.commitment)
    assert ran.code == 0, ran.err
    return Workspace(folder=tiny.commitment)


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory):
    schemas = {"flips": table(0, 40, [3, 4]), "steps": table(5, 12, [3], high=9)}
    return {name: commitment(tmp_path_factory.mktemp(name), schema, 3) for name, schema in schemas.items()}


def job_for(workspace, *, target="match", rows=(0, 3, 17, 40, 41, 59), radius=None, flips_=False):
    request = Request(
        subject="ab" * 32, scope=Scope(kind="records"), records_root=bytes(32), record_count=1, on_behalf=True,
        requested_at=1, deadline=None,
    )  # fmt: skip
    return Job(
        workspace=workspace, requests=((request, tuple(rows)),), target=Target(name=target), radius=radius,
        ceiling=radius if radius is not None else 64, generator=np.random.default_rng(0), flips=flips_,
    )  # fmt: skip


def proven(workspace, result):
    """The auditor's proof of every claim, and its replay of random and of the worst points."""
    schema, claims, patch = workspace.schema, result.claims, result.patch
    values = workspace.records.values[workspace.rows_of(tuple(c.record for c in claims))].astype(np.int64)
    reach = flips.Reach.of(schema, tuple(c.region for c in claims))
    cores = Cores(schema=schema, centre=values, steps=reach.steps, flips=reach.flips)
    proof = parts_proof.prove(patch, workspace.base, cores, claims, holds=following.holds)
    assert proof.integers.all()
    gates = [patch.parts[patch.place(c.item).part].gate for c in claims]
    random = np.random.default_rng(1)
    program = Program(compose.compose(workspace.base, schema, patch))
    for number, claim in enumerate(claims):
        own = reach.only([number])
        near = values[[number] * 40] + random.integers(-own.steps[0], own.steps[0] + 1, (40, schema.features))
        points = [flips.flipped(schema, np.clip(near, schema.low, schema.high), np.repeat(own.flips, 40), random)]
        points += [
            flips.corner(weights.astype(np.int64), schema, values[number], own, rises=rises)[None]
            for weights in gates[number].matrix[:8]
            for rises in (False, True)
        ]
        outputs = program(schema.dequantise(np.concatenate(points)))
        if isinstance(claim.property, Logits):
            assert (outputs == claim.property.array()).all()
        else:
            assert (outputs.argmax(axis=1) == claim.property.klass).all()
    self_check(job_for(workspace), result, owner_compose(workspace.base, schema, patch))
    return [not reason for reason in proof.reasons]


@pytest.mark.parametrize("target", ["match", "misclassify"])
@pytest.mark.parametrize("kind", ["flips", "steps"])
def test_what_is_claimed_is_proven(workspaces, kind, target):
    workspace = workspaces[kind]
    result = prune.run(job_for(workspace, target=target))
    assert all(proven(workspace, result))
    regions = [claim.region for claim in result.claims]
    assert {region.norm for region in regions} == {"hamming"}
    sizes = [region.radius if kind == "flips" else region.steps for region in regions]
    assert max(sizes) >= 1
    assert all(region.steps == 0 if kind == "flips" else region.radius == 0 for region in regions)
    twins = {claim.twins for claim in result.claims}
    assert twins == {0, 1}
    assert all(size == 0 for size, claim in zip(sizes, result.claims, strict=True) if claim.twins)
    assert any(note.startswith("1 records have a retained twin") for note in result.notes)


def test_more_than_was_certified_is_not_proven(workspaces):
    workspace = workspaces["flips"]
    result = prune.run(job_for(workspace))
    wider = [
        dataclasses.replace(c, region=dataclasses.replace(c.region, radius=c.region.radius + 30)) for c in result.claims
    ]
    values = workspace.records.values[workspace.rows_of(tuple(c.record for c in wider))].astype(np.int64)
    reach = flips.Reach.of(workspace.schema, tuple(c.region for c in wider))
    cores = Cores(schema=workspace.schema, centre=values, steps=reach.steps, flips=reach.flips)
    proof = parts_proof.prove(result.patch, workspace.base, cores, tuple(wider), holds=following.holds)
    assert all(proof.reasons)
    assert len(proof.examples) == len(wider)


def test_flips_of_a_table_of_both_kinds_hold_numbers_fixed(workspaces):
    workspace = workspaces["steps"]
    result = prune.run(job_for(workspace, radius=2, flips_=True))
    assert all(proven(workspace, result))
    assert {claim.region.steps for claim in result.claims} == {0}
    assert max(claim.region.radius for claim in result.claims) <= 2


def test_a_radius_in_the_wrong_unit(workspaces):
    with pytest.raises(OwnerError, match="give the radius in flips"):
        prune.run(job_for(workspaces["flips"], radius=2))
