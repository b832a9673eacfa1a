"""Every gate with every head, through both programs: what the owner claims the auditor proves, and forgeries it finds.

A small world on 256 grey levels, so that a record's own grid cell is small beside the base's linear regions.
"""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from auditor import case as case_file
from auditor import coverage, following
from auditor.checks import boundedness, completeness, disclosure, locality, persistence, redirection
from auditor.evidence import Evidence, load_reference
from auditor.profile import load_profile
from auditor.transcript import Transcript
from owner.architectures import mlp
from owner.certify import self_check
from owner.compose import compose
from owner.methods import prune
from owner.methods.job import Job
from owner.refusal import Refused
from owner.targets import Target
from owner.training import train
from owner.workspace import Workspace
from protocol import trust as trust_file
from protocol.claims import Coverage, NoRedirection, Redirection, Region
from protocol.errors import OwnerError
from protocol.log import policy as policy_file
from protocol.messages.request import Request, Scope
from protocol.model import profile
from protocol.model import recipe as recipe_file
from protocol.model.parts import AffineHead, FeatureGate, Part, RegionGate, SetHead, ShiftHead, SketchGate
from protocol.model.recipe import Recipe
from tests.demo.world import Clock, World, must, run
from tests.owner.tiny import START, Tiny, one_line, save

ROWS = (3, 17, 40, 41, 58)


def _records(count, seed):
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    centres = np.random.default_rng(1).integers(40, 216, (3, 4, 4))
    X = np.clip(centres[y] + random.integers(-55, 56, (count, 4, 4)), 0, 255)
    X[0, 0] = [0, 255, 0, 255]
    return X.astype(np.uint8), y.astype(np.int64)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A commitment over 80 records."""
    tiny = Tiny(World(root=tmp_path_factory.mktemp("gates"), clock=Clock(START)))
    tiny.world.build()
    (X, y), (X_test, y_test) = _records(80, 5), _records(60, 6)
    inputs = (X.reshape(len(X), -1) / 255).astype(np.float32)
    trained = train(
        mlp(16, (12, 8), classes=3), inputs, y, members=[np.arange(len(y))], recipe=Recipe(epochs=30, batch=16),
        rng=np.random.default_rng(0),
    )  # fmt: skip
    tiny.model.write_bytes(profile.serialise(trained.model(0)))
    (tiny.root / "recipe.json").write_bytes(recipe_file.serialise(Recipe(epochs=8, batch=16)))
    save(tiny.data, X_train=X, y_train=y, X_test=X_test[:30], y_test=y_test[:30])
    save(tiny.root / "ref.npz", X=X_test[30:], y=y_test[30:])
    assert tiny.commit(out=tiny.commitment).code == 0
    assert tiny.ask("--records", ",".join(map(str, ROWS)), out=tiny.request).code == 0
    return tiny


def _evidence(place, bundle):
    place.world.witness(place.world.owner_log)
    must("prune-owner", "publish", bundle, "--log", place.world.owner_log)
    loaded = case_file.load(
        bundle, policy=policy_file.parse(place.world.policy.read_bytes()),
        trust=trust_file.parse(place.world.trust.read_bytes()), own_proofs={},
    )  # fmt: skip
    return Evidence(
        case=loaded, profile=load_profile("redirection"), transcript=Transcript(),
        reference=load_reference(place.root / "ref.npz", loaded.schema, loaded.base.classes), reference_missing="",
        seed=1, shadow_cache=None, progress=lambda _stage, _share: None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def audited(place):
    """A function that has a bundle made by the program and gives what the auditor's checks look at; made once."""
    known = {}

    def make(gate, head, target):
        if (gate, head, target) not in known:
            out = place.root / f"bundle-{len(known)}"
            ran = place.unlearn("--gate", gate, "--head", head, "--target", target, "--beside", out=out)
            assert ran.code == 0, ran.err
            known[gate, head, target] = _evidence(place, out)
        return known[gate, head, target]

    return make


def _job(place, **changes):
    request = Request(
        subject="ab" * 32, scope=Scope(kind="records"), records_root=bytes(32), record_count=1, on_behalf=True,
        requested_at=1, deadline=None,
    )  # fmt: skip
    values = {
        "workspace": Workspace(folder=place.commitment), "requests": ((request, ROWS),), "radius": None, "ceiling": 64,
        "target": Target(name="misclassify"), "generator": np.random.default_rng(0),
    }  # fmt: skip
    return Job(**(values | changes))


KINDS = {"set": SetHead, "shift": ShiftHead, "affine": AffineHead}
GATES = {
    "sketch": (SketchGate,), "feature": (FeatureGate,), "linear-region": (RegionGate,),
    "sketch+feature": (SketchGate, FeatureGate),
}  # fmt: skip


@pytest.mark.parametrize(("gate", "head"), list(itertools.product(GATES, KINDS)))
def test_the_auditor_proves_what_the_owner_claims(audited, gate, head):
    evidence = audited(gate, head, "misclassify")
    patch = evidence.case.patch
    assert {type(part.gate) for part in patch.parts} == set(GATES[gate])
    assert {type(part.head) for part in patch.parts} == {KINDS[head]}
    found = redirection.check(evidence)
    open_ = [entry for entry in found.evidence.get("open", []) if "no redirection claim" not in entry]
    assert not open_, open_
    assert found.verdict == ("INCONCLUSIVE" if evidence.unredirected else "CONSISTENT"), found.summary
    assert found.evidence["proven"] == len(evidence.redirections)
    assert boundedness.check(evidence).verdict == "CONSISTENT"
    assert completeness.check(evidence).verdict == "CONSISTENT"
    assert len({claim.record for claim in evidence.case.claims}) == len(ROWS)
    assert evidence.redirections, "nothing was proven: the test shows nothing"
    if head != "set":
        shown = found.evidence["least_change_of_logits"]
        assert shown["rows"] == shown["with_a_bound"] == len(evidence.redirections)


def test_the_papers_construction_is_audited_like_any_other(place):
    # Records of their own linear region are few in this world: more are asked about.
    request, out = place.root / "paper.json", place.root / "paper"
    assert place.ask("--records", ",".join(map(str, range(0, 80, 3))), out=request).code == 0
    ran = place.unlearn("--method", "prune-paper", "--target", "misclassify", "--beside", out=out, request=request)
    assert ran.code == 0, ran.err
    evidence = _evidence(place, out)
    (part,) = evidence.case.patch.parts
    assert type(part.gate) is RegionGate
    assert type(part.head) is AffineHead
    found = redirection.check(evidence)
    assert not [entry for entry in found.evidence.get("open", []) if "no redirection claim" not in entry]
    assert found.evidence["proven"] == len(evidence.redirections) > 0
    for check in (boundedness, completeness, locality):
        assert check.check(evidence).verdict != "REFUTED"
    assert boundedness.check(evidence).verdict == completeness.check(evidence).verdict == "CONSISTENT"
    # Half a change is not what its region's records are said to get, and an item that belongs to nobody is found.
    weaker = dataclasses.replace(part.head, rows=part.head.rows / 2, weights=part.head.weights / 2)
    forged = _forged(evidence, patch=_with_part(evidence.case.patch, 0, Part(gate=part.gate, head=weaker)))
    assert redirection.check(forged).verdict == "REFUTED"
    kept = [claim for claim in evidence.case.claims if not isinstance(claim, Coverage)]
    assert evidence.coverage
    assert _threats(boundedness.check(_forged(evidence, claims=kept))) == {"hidden-payload"}
    place.world.witness(place.world.auditor_log)
    place.world.witness(place.world.owner_log)
    must("prune-owner", "publish", out, "--log", place.world.owner_log)
    profile_file = place.root / "redirection.yaml"
    profile_file.write_text(load_profile("redirection").raw.decode().replace("shadows: 32", "shadows: 2"))
    ran = run(
        "prune-auditor", "audit", out, *place.world.trusted(), "--profile", profile_file, "--reference",
        place.root / "ref.npz", "--key", place.world.key("auditor"), "--log", place.world.auditor_log, "--out",
        place.root / "paper-report", "--now", place.world.clock.tick(),
    )  # fmt: skip
    checks = json.loads((place.root / "paper-report" / "summary.json").read_text())["checks"]
    verdicts = {name: check["verdict"] for name, check in checks.items()}
    assert ran.code == 5, verdicts  # INCONCLUSIVE: some records carry no claim
    assert "REFUTED" not in verdicts.values(), verdicts
    assert verdicts["redirection"] == "INCONCLUSIVE"


@pytest.mark.parametrize("gate", list(GATES))
def test_match_with_a_shift_moves_with_the_base(audited, gate):
    evidence = audited(gate, "shift", "match")
    found = redirection.check(evidence)
    assert not [entry for entry in found.evidence.get("open", []) if "no redirection claim" not in entry]
    assert found.verdict in ("CONSISTENT", "INCONCLUSIVE")
    values, _, claims = evidence.claimed_records
    near = np.clip(values + 1, evidence.case.schema.low, evidence.case.schema.high)
    if len(claims):
        assert (evidence.run(values)[1] != evidence.run(near)[1]).any(axis=1).all()


def test_neighbourhoods_of_few_records_are_run_together(audited, monkeypatch):
    evidence = audited("sketch", "affine", "misclassify")
    values, _, _ = evidence.claimed_records
    calls = []
    own = Evidence.run

    def counted(self, grid):
        calls.append(len(grid))
        return own(self, grid)

    monkeypatch.setattr(Evidence, "run", counted)
    points = persistence.sweep(evidence)
    assert sum(calls) > 10_000
    assert len(calls) < 40
    # One round after another finds the same: the draws are the same, and a record's output is its own.
    random = evidence.generator("persistence")
    _, _, claims = evidence.claimed_records
    rounds, every = -(-3_000 // len(values)), np.arange(len(values))
    for point in points[:3]:
        hits = 0
        for _ in range(rounds if point.distance else 0):
            before, after = own(evidence, persistence._around(values, point.distance, evidence.case.schema, random))
            hits += int((following.holds(claims, every, after) & (before != after).any(axis=1)).sum())
        assert point.share == pytest.approx(hits / rounds / len(values) if point.distance else 1.0, abs=1e-9)


@pytest.mark.parametrize("head", KINDS)
def test_an_output_that_follows_the_record_persists_as_far_as_it_is_proven(audited, head):
    evidence = audited("sketch", head, "misclassify")
    least = min(claim.region.radius for claim in evidence.redirections)
    assert least >= 1
    for point in persistence.sweep(evidence):
        assert point.share == 1.0 or point.distance > least, (head, least, point)
    # Nothing persists of a patch that changes nothing.
    (part,) = evidence.case.patch.parts
    if head == "set":
        return
    nothing = {"rows": 0 * part.head.rows} | ({"weights": 0 * part.head.weights} if head == "affine" else {})
    none = Part(gate=part.gate, head=dataclasses.replace(part.head, **nothing))
    forged = _forged(evidence, patch=_with_part(evidence.case.patch, 0, none))
    assert all(point.share == 0 for point in persistence.sweep(forged) if point.distance)


def test_coverage_is_told_apart_from_what_is_certified(audited):
    evidence = audited("sketch+feature", "set", "misclassify")
    assert len(evidence.coverage) == len(evidence.redirections) == len(ROWS)
    assert {claim.gate for claim in evidence.redirections} | {claim.gate for claim in evidence.coverage} == {
        "sketch", "feature",
    }  # fmt: skip
    assert not coverage.assess(evidence, evidence.coverage).open
    alone = audited("sketch", "set", "misclassify")
    random = np.random.default_rng(0)
    values = evidence.claimed_records[0]
    far = np.clip(np.concatenate([values + random.integers(-25, 26, values.shape) for _ in range(20)]), 0, 255)

    def covered(one):
        return (np.concatenate([one.run(values)[1]] * 20) == one.run(far)[1]).all(axis=1).mean()

    assert covered(evidence) >= covered(alone)
    assert disclosure.check(evidence).evidence["settings"].find("inverted features") > 0 or (
        disclosure.check(evidence).evidence["ratio"] <= disclosure.check(alone).evidence["ratio"]
    )


def _forged(evidence, *, patch=None, claims=None):
    own = evidence.case
    changed = dataclasses.replace(
        own, patch=patch or own.patch, claims=tuple(claims) if claims is not None else own.claims,
    )  # fmt: skip
    return dataclasses.replace(evidence, case=changed)


def _with_part(patch, number, part):
    return dataclasses.replace(patch, parts=(*patch.parts[:number], part, *patch.parts[number + 1 :]))


def test_a_feature_box_smaller_than_claimed_is_not_proven(audited):
    evidence = audited("feature", "set", "misclassify")
    (part,) = evidence.case.patch.parts
    middle = (part.gate.low + part.gate.high) / 2
    half = (part.gate.high - part.gate.low) / 2
    tight = dataclasses.replace(part.gate, low=middle - half * np.float32(1e-3), high=middle + half * np.float32(1e-3))
    forged = _forged(evidence, patch=_with_part(evidence.case.patch, 0, Part(gate=tight, head=part.head)))
    assert redirection.check(forged).verdict in ("REFUTED", "INCONCLUSIVE")
    assert redirection.check(forged).evidence["proven"] < redirection.check(evidence).evidence["proven"]
    # Off the record altogether: the output there is the base's own.
    away = dataclasses.replace(part.gate, low=part.gate.low + 100, high=part.gate.high + 100)
    forged = _forged(evidence, patch=_with_part(evidence.case.patch, 0, Part(gate=away, head=part.head)))
    assert redirection.check(forged).verdict == "REFUTED"
    # A radius that the box does not have.
    claims = [
        dataclasses.replace(claim, region=Region(norm="linf", radius=claim.region.radius + 40, radius_data="0"))
        if isinstance(claim, Redirection) else claim for claim in evidence.case.claims
    ]  # fmt: skip
    assert redirection.check(_forged(evidence, claims=claims)).verdict in ("REFUTED", "INCONCLUSIVE")


@pytest.mark.parametrize("head", ["shift", "affine"])
def test_a_change_below_what_is_claimed_is_found(audited, head):
    evidence = audited("sketch", head, "misclassify")
    (part,) = evidence.case.patch.parts
    for factor, verdicts in ((0.0, {"REFUTED"}), (0.7, {"REFUTED", "INCONCLUSIVE"})):
        changes = {"rows": part.head.rows * np.float32(factor)}
        if head == "affine":
            changes["weights"] = part.head.weights * np.float32(factor)
        smaller = Part(gate=part.gate, head=dataclasses.replace(part.head, **changes))
        found = redirection.check(_forged(evidence, patch=_with_part(evidence.case.patch, 0, smaller)))
        assert found.verdict in verdicts, found.summary


def test_a_margin_above_what_is_proven_is_not_called_proven(audited):
    evidence = audited("sketch", "shift", "misclassify")
    claims = [
        dataclasses.replace(claim, property=dataclasses.replace(claim.property, margin="3"))
        if isinstance(claim, Redirection) else claim for claim in evidence.case.claims
    ]  # fmt: skip
    assert redirection.check(_forged(evidence, claims=claims)).verdict in ("REFUTED", "INCONCLUSIVE")


@pytest.mark.parametrize("head", ["shift", "affine"])
def test_heads_are_near_the_least_change(audited, head):
    evidence = audited("sketch", head, "misclassify")
    shown = redirection.check(evidence).evidence["least_change_of_logits"]
    (part,) = evidence.case.patch.parts
    assert shown["rows"] == shown["with_a_bound"] == len(part.head.rows) == len(ROWS)
    assert 1 <= shown["largest_entry_over_bound_median"] < 2
    larger = Part(gate=part.gate, head=dataclasses.replace(part.head, rows=4 * part.head.rows))
    changed = redirection.check(_forged(evidence, patch=_with_part(evidence.case.patch, 0, larger)))
    found = changed.evidence["least_change_of_logits"]
    assert found["largest_entry_over_bound_median"] > 1.5 * shown["largest_entry_over_bound_median"]


def test_every_part_with_an_added_head_has_duals(audited):
    evidence = audited("sketch+feature", "shift", "misclassify")
    patch, claims = evidence.case.patch, evidence.redirections
    rows = {
        (place.part, int(patch.parts[place.part].head.index[place.item]))
        for place in (patch.place(c.item) for c in claims)
    }
    duals = evidence.case.hints.duals
    assert set(zip(duals.part.tolist(), duals.row.tolist(), strict=True)) == rows


def _payload(evidence, *, low=50.0, high=60.0):
    """An extra item in the feature part, far from every record, with the first item's output."""
    patch = evidence.case.patch
    number = next(n for n, part in enumerate(patch.parts) if isinstance(part.gate, FeatureGate))
    part = patch.parts[number]
    extra = np.full((1, part.gate.low.shape[1]), 1, np.float32)
    gate = dataclasses.replace(
        part.gate, low=np.concatenate([part.gate.low, extra * np.float32(low)]),
        high=np.concatenate([part.gate.high, extra * np.float32(high)]),
    )  # fmt: skip
    head = dataclasses.replace(part.head, index=np.concatenate([part.head.index, part.head.index[:1]]))
    changed = _with_part(patch, number, Part(gate=gate, head=head))
    return changed, changed.starts[number] + gate.items - 1


def _threats(found):
    return {finding.threat for finding in found.findings}


def test_a_payload_behind_a_coverage_claim_is_found(audited):
    evidence = audited("sketch+feature", "set", "misclassify")
    patch, item = _payload(evidence)
    found = boundedness.check(_forged(evidence, patch=patch))
    assert (found.verdict, _threats(found)) == ("REFUTED", {"hidden-payload"})
    record = evidence.coverage[0].record
    # Said to cover a record on which it does not fire; the honest cover of that record taken away, or beside it.
    rest = [claim for claim in evidence.case.claims if claim != evidence.coverage[0]]
    hidden = Coverage(record=record, item=item, gate="feature")
    for claims in ([*rest, hidden], [*evidence.case.claims, hidden]):
        found = boundedness.check(_forged(evidence, patch=patch, claims=claims))
        assert (found.verdict, _threats(found)) == ("REFUTED", {"hidden-payload"}), claims[-1]
    found = coverage.assess(_forged(evidence, patch=patch, claims=[*rest, hidden]), (hidden,))
    assert "surely does not fire" in found.wrong[0]


def test_what_a_coverage_claim_may_not_say(audited):
    evidence = audited("sketch+feature", "set", "misclassify")
    first = evidence.coverage[0]
    wrong = {
        "item that is not there": dataclasses.replace(first, item=10**6),
        "other kind of gate": dataclasses.replace(first, gate="sketch" if first.gate == "feature" else "feature"),
        "nobody asked": dataclasses.replace(first, record=bytes(32)),
        "twice in a part": dataclasses.replace(evidence.coverage[1], record=first.record),
    }
    for why, claim in wrong.items():
        found = boundedness.check(_forged(evidence, claims=[*evidence.case.claims, claim]))
        assert (found.verdict, _threats(found)) == ("REFUTED", {"hidden-payload"}), why


def test_a_covering_item_with_another_output_is_found(audited):
    for head in ("set", "shift", "affine"):
        evidence = audited("sketch+feature", head, "misclassify")
        patch = evidence.case.patch
        covering = {patch.place(claim.item).part for claim in evidence.coverage}
        number = max(covering)
        part = patch.parts[number]
        own = [claim for claim in evidence.coverage if patch.place(claim.item).part == number]
        rows = -part.head.rows if head != "set" else np.ascontiguousarray(part.head.rows[:, ::-1])
        changes = {"rows": rows} | ({"weights": -part.head.weights} if head == "affine" else {})
        changed = _with_part(patch, number, Part(gate=part.gate, head=dataclasses.replace(part.head, **changes)))
        found = coverage.assess(_forged(evidence, patch=changed), own)
        assert any("another output than is claimed" in message for message in found.wrong), head


def test_coverage_alone_is_no_claim_about_a_record(audited):
    evidence = audited("sketch+feature", "set", "misclassify")
    found = completeness.check(_forged(evidence, claims=evidence.coverage))
    assert found.verdict == "REFUTED"


def test_refusals_are_one_line(place):
    out = place.root / "refused"
    for options, words in (
        (("--gate", "always", "--head", "shift"), "relabel:K"),
        (("--gate", "always", "--target", "relabel:1"), "constant"),
        (("--gate", "sketch", "--head", "affine"), "--head shift or set"),
        (("--gate", "feature", "--merge", "--target", "misclassify"), "--merge"),
        (("--head", "shift", "--merge", "--target", "misclassify"), "--merge"),
        (("--gate", "feature", "--disclosure", "0.5"), "--disclosure"),
        (("--gate", "feature", "--radius", "2flips"), "flips"),
    ):
        one_line(place.unlearn(*options, "--beside", out=out), 2, words)
        assert not out.exists()
    ran = place.unlearn("--gate", "always", "--head", "shift", "--target", "relabel:1", "--beside", out=out)
    lines = [line for line in ran.err.splitlines() if not line.startswith("note")]
    assert ran.code == 3
    assert len(lines) == 1
    assert "--gate always acts on every input" in lines[0]


def test_only_sketches_with_rows_build_on_an_earlier_certificate(place):
    request, before = place.root / "more.json", place.root / "before"
    assert place.ask("--records", "61,62", out=request).code == 0
    assert place.unlearn("--beside", out=before).code == 0
    for options in (("--gate", "feature"), ("--head", "shift")):
        one_line(place.unlearn(*options, request=request, out=place.root / "refused"), 2, "--beside")
    assert (
        place.unlearn("--gate", "feature", "--target", "misclassify", "--beside", out=place.root / "floats").code == 0
    )
    one_line(place.unlearn(request=request, out=place.root / "refused"), 2, "--beside")


def test_gate_and_head_are_of_prune(place):
    for options in (("--gate", "feature"), ("--head", "shift")):
        one_line(place.unlearn("--method", "deny-list", *options, "--beside", out=place.root / "refused"), 2, "prune's")


def test_a_class_needs_neither_gate_nor_head(place):
    request = place.root / "class.json"
    assert place.ask("--class", "2", out=request).code == 0
    for options in (("--gate", "feature"), ("--head", "shift")):
        one_line(place.unlearn(*options, "--beside", request=request, out=place.root / "refused"), 2, "cap")


def test_always_is_proven_and_refuted_by_locality(place, audited):
    evidence = audited("sketch", "shift", "misclassify")
    job = _job(place, gate="always", head="shift", target=Target(name="relabel", klass=1))
    result = prune.run(job)
    with pytest.raises(Refused, match="every input"):
        self_check(job, result, compose(job.workspace.base, job.workspace.schema, result.patch))
    forged = _forged(evidence, patch=result.patch, claims=result.claims)
    found = redirection.check(forged)
    assert found.evidence["proven"] == len([c for c in result.claims if isinstance(c, Redirection)]) > 0
    from auditor.checks import locality

    assert locality.check(forged).verdict == "REFUTED"


def test_an_item_that_misses_its_record_is_not_signed(place):
    job = _job(place, gate="sketch+feature")
    result = prune.run(job)
    number = next(n for n, part in enumerate(result.patch.parts) if isinstance(part.gate, FeatureGate))
    part = result.patch.parts[number]
    assert any(isinstance(claim, Coverage) and claim.gate == "feature" for claim in result.claims)
    away = dataclasses.replace(part.gate, low=part.gate.low + 100, high=part.gate.high + 100)
    broken = dataclasses.replace(result, patch=_with_part(result.patch, number, Part(gate=away, head=part.head)))
    with pytest.raises(Refused, match="does not fire"):
        self_check(job, broken, compose(job.workspace.base, job.workspace.schema, broken.patch))


def test_an_unknown_gate_or_head_is_refused(place):
    for changes in ({"gate": "fence"}, {"head": "tail"}):
        with pytest.raises(OwnerError, match="there are the gates"):
            prune.run(_job(place, **changes))


def test_a_change_of_nothing_is_not_claimed_to_redirect(place):
    # At a record that the base puts into the class already the least change is none: an item that does nothing.
    out = place.root / "bundle-of-nothing"
    options = ("--gate", "sketch", "--head", "shift", "--target", "relabel:0", "--radius", "0steps")
    ran = place.unlearn(*options, "--beside", out=out)
    assert ran.code == 0, ran.err
    evidence = _evidence(place, out)
    reasons = {claim.reason for claim in evidence.case.claims if isinstance(claim, NoRedirection)}
    assert any("redirects nothing" in reason for reason in reasons), reasons
    assert evidence.redirections
    assert redirection.check(evidence).verdict == "INCONCLUSIVE"
    assert boundedness.check(evidence).verdict == "CONSISTENT"
    assert completeness.check(evidence).verdict == "CONSISTENT"
