"""The papers' construction: its linear programs, its change, its soft gate, and what the method does with them."""

import dataclasses
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owner.architectures import mlp
from owner.execute import Program
from owner.gates import soft
from owner.gates.linear_region import half_spaces, linear_region
from owner.gates.polytope import Polytope, least
from owner.gates.region import Shape
from owner.methods import placing
from owner.methods.clusters import clusters
from owner.methods.confusion import confusion
from owner.methods.job import silent
from owner.training import train
from owner.workspace import Workspace
from protocol.claims import ClassRemoval, Coverage, NoRedirection, Redirection
from protocol.model import profile
from protocol.model import recipe as recipe_file
from protocol.model.parts import AffineHead, RegionGate
from protocol.model.recipe import Recipe
from tests.demo.world import Clock, World
from tests.owner.methods.test_methods import read
from tests.owner.test_linear_region import unpooled_conv, with_biases
from tests.owner.tiny import START, Tiny, one_line, save

SEEDS = st.integers(0, 2**32)
COUNT = 120
ROWS = sorted(np.random.default_rng(1).choice(COUNT, 30, replace=False).tolist())
AIM = ("--target", "misclassify")


def walk(polytope, start, count, rng):
    """Points of a polytope: along random lines from one to the next (hit and run)."""
    weights = np.concatenate([polytope.weights, np.eye(len(start)), -np.eye(len(start))])
    bounds = np.concatenate([polytope.bounds, polytope.high, -polytope.low])
    x, found = start.astype(np.float64), []
    for _ in range(count):
        along = rng.normal(size=len(x))
        speed, room = weights @ along, np.maximum(bounds - weights @ x, 0)
        # The whole length now and then: the ends are where a least value is.
        ahead, back = (min((room[side > 0] / side[side > 0]).min(initial=np.inf), 1e6) for side in (speed, -speed))
        x = x + along * rng.choice([rng.uniform(-back, ahead), ahead * 0.999, -back * 0.999])
        found.append(x)
    return np.array(found)


def world(seed, features=5, hidden=(7, 6), classes=4):
    rng = np.random.default_rng(seed)
    graph = with_biases(mlp(features, hidden, classes=classes), seed)
    x = rng.uniform(-1, 1, features).astype(np.float32)
    region = linear_region(graph, x)
    polytope = Polytope(
        weights=region.weights, bounds=region.bounds + 1e-9, low=np.full(features, -1.0), high=np.full(features, 1.0)
    )
    return graph, x, region, polytope, rng


@settings(deadline=None, max_examples=15)
@given(SEEDS)
def test_no_point_of_a_polytope_is_below_the_bound_and_one_attains_it(seed):
    _, x, _, polytope, rng = world(seed)
    slopes, offsets = rng.normal(size=(3, 5)), rng.normal(size=3)
    found = least(polytope, slopes, offsets)
    values = walk(polytope, x, 60, rng) @ slopes.T + offsets
    assert (values >= found.bound - 1e-7).all()
    assert np.allclose(found.bound, found.attained, rtol=1e-6, atol=1e-6)
    assert (found.attained <= x @ slopes.T + offsets + 1e-6).all()


def test_without_half_spaces_the_least_value_is_the_boxs():
    box = Polytope(weights=np.zeros((0, 2)), bounds=np.zeros(0), low=np.array([-1.0, 0.0]), high=np.array([1.0, 2.0]))
    found = least(box, np.array([[3.0, -1.0]]), np.array([10.0]))
    assert found.bound == found.attained == 5.0
    # A solver that gives up proves the box's bound, which is less but true.
    nothing = Polytope(weights=np.array([[1.0, 0.0]]), bounds=np.array([-5.0]), low=box.low, high=box.high)
    given_up = least(nothing, np.array([[3.0, -1.0]]), np.array([10.0]))
    assert given_up.bound == 5.0
    assert given_up.attained == np.inf


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.booleans())
def test_a_change_makes_its_class_lead_on_the_whole_region_and_is_least(seed, affine):
    graph, x, region, polytope, rng = world(seed)
    klass = int(rng.integers(4))
    made = confusion(region, polytope, klass, margin=0.1, affine=affine)
    points = np.concatenate([x[None].astype(np.float64), walk(polytope, x, 80, rng)])
    change = points @ made.weights.T.astype(np.float64) + made.row
    # In the network's own arithmetic, not by the map that the change was made from.
    shown = Program(graph)(points.astype(np.float32)) + change
    lead = shown[:, [klass]] - np.delete(shown, klass, axis=1)
    assert lead.min() >= 0.1 - 1e-4
    assert np.abs(change).max() <= made.size + 1e-5
    assert made.size <= made.least * (1 + 1e-3) + 1e-6
    if not affine:
        assert not made.weights.any()
        return
    # It is no more than the constant one anywhere, and less on average, unless nothing can be had.
    plain = confusion(region, polytope, klass, margin=0.1, affine=False)
    assert made.least == plain.least
    if made.weights.any():
        assert np.abs(change).max(axis=1).mean() <= plain.size + 1e-5


def test_affine_changes_are_had_where_there_is_something_to_gain():
    found = []
    for seed in range(30):
        _, _, region, polytope, rng = world(seed)
        found.append(confusion(region, polytope, int(rng.integers(4)), margin=0.1, affine=True).weights.any())
    assert sum(found) > 10


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.integers(1, 5))
def test_a_representative_is_its_clusters_record_nearest_to_the_middle(seed, count):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(20, 3)) + rng.integers(0, 4, 20)[:, None] * 10.0
    found = clusters(points, count, rng)
    assert len(found.representative) == count
    assert set(found.of.tolist()) == set(range(count))
    for number, one in enumerate(found.representative.tolist()):
        members = np.flatnonzero(found.of == number)
        away = np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1)
        assert np.linalg.norm(points[one] - points[members].mean(axis=0)) <= away.min() + 1e-9
        assert one in members


def test_k_means_finds_what_is_apart_and_makes_no_more_clusters_than_there_are_records():
    rng = np.random.default_rng(0)
    points = np.repeat(np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]), 6, axis=0) + rng.normal(0, 0.1, (18, 2))
    found = clusters(points, 3, rng)
    assert all(len(set(found.of[start : start + 6].tolist())) == 1 for start in (0, 6, 12))
    copies = clusters(np.ones((4, 2)), 3, rng)
    assert len(copies.representative) == 1
    assert set(copies.of.tolist()) == {0}


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.floats(0.05, 50))
def test_a_soft_gate_is_what_the_papers_write_and_ends_where_the_strip_does(seed, steepness):
    graph, x, region, polytope, rng = world(seed)
    points = np.concatenate([rng.uniform(-1, 1, (40, 5)), walk(polytope, x, 20, rng)]).astype(np.float32)
    slack = soft.Held(graph, points).slack(x)
    assert slack.shape == (60, half_spaces(graph))
    # The network with its ReLUs held gives the region's rows.
    expected = region.bounds - points.astype(np.float64) @ region.weights.T
    assert np.allclose(slack, expected, rtol=1e-4, atol=1e-4)
    on = soft.gate(slack, steepness)
    terms = np.maximum(steepness * expected + 1, 0) - np.maximum(steepness * expected, 0)
    assert np.allclose(on, np.maximum(terms.sum(axis=1) - len(region.bounds) + 1, 0), atol=2e-2)
    assert np.allclose(on, soft.as_written(slack, steepness), atol=1e-2)
    held = (expected >= 1e-4).all(axis=1)
    assert (on[held] == 1).all()
    assert (on[(expected < -1.001 / steepness - 1e-4).any(axis=1)] == 0).all()
    # Beyond the strip in the direction that leaves a half-space fastest.
    width = soft.strip(region.weights[None].astype(np.float32), steepness)[0]
    half = int(np.abs(region.weights).sum(axis=1).argmax())  # not one of a unit that no input reaches
    edge = x + np.sign(region.weights[half]) * (slack_of(region, x, half) / np.abs(region.weights[half]).sum())
    far = (edge + np.sign(region.weights[half]) * width[half] * 1.01).astype(np.float32)
    assert soft.gate(soft.Held(graph, far[None]).slack(x), steepness)[0] < 1e-3


def test_a_conv_nets_relus_are_held_too_and_its_change_leads():
    graph, rng = unpooled_conv(), np.random.default_rng(0)
    x = rng.uniform(0, 1, 64).astype(np.float32)
    region = linear_region(graph, x)
    assert half_spaces(graph) == len(region.bounds)
    points = rng.uniform(0, 1, (30, 64)).astype(np.float32)
    slack = soft.Held(graph, points).slack(x)
    assert np.allclose(slack, region.bounds - points.astype(np.float64) @ region.weights.T, rtol=1e-3, atol=1e-3)
    polytope = Polytope(weights=region.weights, bounds=region.bounds + 1e-6, low=np.zeros(64), high=np.ones(64))
    made = confusion(region, polytope, 2, margin=0.1, affine=True)
    near = walk(polytope, x, 40, rng)
    shown = Program(graph)(near.astype(np.float32).reshape(-1, 1, 8, 8)) + near @ made.weights.T + made.row
    assert (shown.argmax(axis=1) == 2).all()


def test_nothing_is_made_where_a_class_leads_already():
    _, _, region, polytope, _ = world(5)
    # Far ahead by its constant: no point of the region needs a change.
    constant = region.constant.copy()
    constant[2] += 1e3
    made = confusion(dataclasses.replace(region, constant=constant), polytope, 2, margin=0.1, affine=True)
    assert made.size == made.least == 0
    assert not made.row.any()


def slack_of(region, x, half):
    return region.bounds[half] - region.weights[half] @ x.astype(np.float64)


def test_what_soft_patches_add_is_the_change_inside_and_nothing_from_the_steepness_on_that_is_said():
    graph, x, region, polytope, rng = world(3)
    made = confusion(region, polytope, 1, margin=0.1, affine=True)
    points = np.concatenate([x[None], rng.uniform(-1, 1, (200, 5))]).astype(np.float32)
    box = polytope.low, polytope.high

    def added(some, steepness):
        return soft.effects(
            soft.Held(graph, some), some, x[None], np.array([0]), made.weights[None], made.row[None], box, steepness
        )

    (effect,), _ = added(points[:1], (1.0,))
    assert np.allclose(effect.added[0], made.weights @ x + made.row, atol=1e-4)
    outside = points[1:][(points[1:] @ region.weights.T > region.bounds).any(axis=1)]
    (near, far), enough = added(outside, (0.01, 100.0))
    assert np.abs(near.added).max() > np.abs(far.added).max()
    (off,), _ = added(outside, (enough * 1.01,))
    assert not off.added.any()
    # A point inside is moved at every steepness, and does not count.
    assert added(points[:1], (1.0,))[1] == 0


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """A world on 256 grey levels: grid cells are small beside most linear regions, and few records share one."""
    tiny = Tiny(World(root=tmp_path_factory.mktemp("paper"), clock=Clock(START)))
    tiny.world.build()
    X, y = images(COUNT, 5)
    X_test, y_test = images(40, 6)
    model = train(
        mlp(16, (12, 8), classes=3), inputs(X), y, members=[np.arange(COUNT)], recipe=Recipe(epochs=30, batch=16),
        rng=np.random.default_rng(0),
    ).model(0)  # fmt: skip
    tiny.model.write_bytes(profile.serialise(model))
    (tiny.root / "recipe.json").write_bytes(recipe_file.serialise(Recipe(epochs=2, batch=16)))
    save(tiny.data, X_train=X, y_train=y, X_test=X_test, y_test=y_test)
    assert tiny.commit("--no-prepare", out=tiny.commitment).code == 0
    assert tiny.ask("--records", ",".join(map(str, ROWS)), out=tiny.request).code == 0
    return tiny


@pytest.fixture
def wide(master, tmp_path):
    shutil.copytree(master.root, tmp_path / "wide")
    return Tiny(World(root=tmp_path / "wide", clock=Clock(master.world.clock.now)))


def images(count, seed):
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    centres = np.random.default_rng(1).integers(40, 216, (3, 4, 4))
    X = np.clip(centres[y] + random.integers(-55, 56, (count, 4, 4)), 0, 255)
    X[0, 0] = [0, 255, 0, 255]
    return X.astype(np.uint8), y.astype(np.int64)


def inputs(X):
    return (X.reshape(len(X), -1) / 255).astype(np.float32)


def unlearn(wide, *options):
    ran = wide.unlearn("--method", "prune-paper", *AIM, "--beside", "--force", *options)
    assert ran.code == 0, ran.err
    return ran


def test_records_are_redirected_or_it_is_said_why_not(wide):
    X, y = images(COUNT, 5)
    ran = unlearn(wide)
    patch, claims, graph = read(wide.root / "bundle")
    (part,) = patch.parts
    assert isinstance(part.gate, RegionGate)
    assert isinstance(part.head, AffineHead)
    assert len(part.head.rows) < part.gate.items, "members of a cluster share a change"
    held = [claim for claim in claims if isinstance(claim, Redirection)]
    none = [claim for claim in claims if isinstance(claim, NoRedirection)]
    covered = {claim.record for claim in claims if isinstance(claim, Coverage)}
    assert len(held) + len(none) == len(ROWS)
    assert len(held) > 2, "some linear regions of this world are wider than a grid cell"
    assert {claim.gate for claim in held} == {"linear-region"}
    assert not covered & {claim.record for claim in held}
    before, after = (Program(one)(inputs(X)) for one in (profile.parse(wide.model.read_bytes()), graph))
    rest = np.setdiff1d(np.arange(COUNT), ROWS)
    assert (before[rest] == after[rest]).all()
    moved = (after != before).any(axis=1)
    reached = moved & (after.argmax(axis=1) != y)
    assert f"{int(reached.sum())} of {len(ROWS)} records are redirected" in ran.out
    assert int(moved.sum()) == len(held) + len(covered)
    places = Workspace(folder=wide.commitment).rows_of(tuple(claim.record for claim in held))
    # Claims say what the file does at each record, and by less than it does.
    lead = np.sort(after[places], axis=1)
    for claim, shown, row, (second, first) in zip(held, after[places], places, lead[:, -2:], strict=True):
        assert shown.argmax() == claim.property.klass != y[row]
        assert first - second > float(claim.property.margin) > 0
    reasons = [claim.reason for claim in none]
    shared = sum("holds a retained record" in reason for reason in reasons)
    assert len(ROWS) == int(reached.sum()) + shared + sum("not reached" in reason for reason in reasons)
    assert "a soft gate of steepness 0.1 (not shipped) would move" in ran.out


def test_all_records_are_asked_for(wide):
    """Nothing is retained then: no region has to keep clear of anybody."""
    every = wide.root / "every.json"
    assert wide.ask("--records", ",".join(map(str, range(COUNT))), out=every).code == 0
    ran = wide.unlearn("--method", "prune-paper", *AIM, "--beside", "--set", "rounds=1", request=every)
    assert ran.code == 0, ran.err
    _, claims, _ = read(wide.root / "bundle")
    assert len({claim.record for claim in claims}) == COUNT
    assert not any("retained" in claim.reason for claim in claims if isinstance(claim, NoRedirection))


@pytest.mark.parametrize("site", [placing.region_site, placing.feature_site])
def test_gates_that_look_at_floats_need_no_retained_record(wide, site):
    workspace = Workspace(folder=wide.commitment)
    values = workspace.records.wide(np.array(ROWS[:4]))
    found = site(
        placing.Around(
            workspace=workspace, forget=values, group=np.arange(4), others=values[:0],
            shape=Shape(schema=workspace.schema, kind="linf"), ceiling=1, progress=silent,
        )
    )  # fmt: skip
    assert (found.item >= 0).any()


def test_rounds_go_on_until_all_are_reached_or_the_limit(wide):
    def after(*options):
        ran = unlearn(wide, *options)
        line = next(line for line in ran.out.splitlines() if "after each round" in line)
        return [int(one) for one in line.split("after each round: ")[1].split(";")[0].split(", ")]

    def unreached():
        return (wide.root / "bundle" / "claims.jsonl").read_text().count("not reached")

    one = after("--set", "rounds=1", "--set", "clusters=1")
    assert len(one) == 1
    left = unreached()
    assert left > 0, "one representative reaches everybody: the test shows nothing"
    many = after("--set", "clusters=1", "--set", "rounds=40")
    assert many[0] == one[0] < many[-1]
    assert many == sorted(many)
    assert unreached() == 0
    # Every record its own representative: one round reaches all whose region may have an item.
    assert after("--set", "clusters=0") == [many[-1]] == [one[0] + left]
    assert unreached() == 0


def test_the_same_seed_gives_the_same_patch_and_relabel_one_class(wide):
    unlearn(wide, "--seed", "4")
    first = read(wide.root / "bundle")[0]
    unlearn(wide, "--seed", "4")
    assert read(wide.root / "bundle")[0] == first
    unlearn(wide, "--seed", "5")
    assert read(wide.root / "bundle")[0] != first
    unlearn(wide, "--target", "relabel:2", "--set", "change=constant")
    patch, claims, _ = read(wide.root / "bundle")
    held = [claim for claim in claims if isinstance(claim, Redirection)]
    assert held
    assert {claim.property.klass for claim in held} == {2}
    assert not patch.parts[0].head.weights.any()


def test_a_class_and_records_in_one_bundle(wide):
    request = wide.root / "class.json"
    assert wide.ask("--class", "1", out=request).code == 0
    ran = wide.unlearn("--method", "prune-paper", *AIM, "--beside", "--request", request)
    assert ran.code == 0, ran.err
    _, claims, graph = read(wide.root / "bundle")
    assert sum(isinstance(claim, ClassRemoval) for claim in claims) == 1
    held = [claim for claim in claims if isinstance(claim, Redirection)]
    assert {claim.property.klass for claim in held} == {0, 2}
    assert (Program(graph)(inputs(images(200, 9)[0])).argmax(axis=1) != 1).all()
    # A class alone needs no regions.
    assert wide.unlearn("--method", "prune-paper", *AIM, "--beside", "--force", request=request).code == 0
    patch, claims, _ = read(wide.root / "bundle")
    assert [type(claim) for claim in claims] == [ClassRemoval]
    assert not patch.parts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "use --target misclassify or relabel:K"),
        (("--target", "relabel:7"), "classes are numbered 0 to 2"),
        ((*AIM, "--set", "rounds=0"), "rounds from 1"),
        ((*AIM, "--set", "change=bent"), "affine or constant"),
        ((*AIM, "--set", "steepness=0"), "steepness between"),
        ((*AIM, "--set", "steepness=nan"), "steepness between"),
        ((*AIM, "--set", "n=1"), "settings are clusters (2)"),
        ((*AIM, "--gate", "sketch"), "they are prune's"),
        ((*AIM, "--merge"), "the base's own"),
        (AIM, "retained records are in all of them; use --method prune"),
    ],
)
def test_refusals_say_what_to_do(tiny, options, words):
    # In the tiny world every region holds a retained record.
    before = tiny.entries()
    one_line(tiny.unlearn("--method", "prune-paper", *options), 2, words)
    assert tiny.entries() == before
