"""A second certificate on top of the first: items that stay, claims carried or dropped by name, refusals."""

import dataclasses

import numpy as np
import pytest

from owner import succession, unlearn
from owner.methods.job import Job
from owner.methods.prune import run as prune
from owner.methods.registry import CONTINUING
from owner.targets import parse_target
from owner.workspace import Workspace
from protocol import claims as claim_lines
from protocol import messages
from protocol.claims import ClassRemoval, Coverage, NoRedirection, Redirection
from protocol.errors import OwnerError
from protocol.messages.certificate import Certificate
from protocol.model import patch as patch_file
from protocol.succession import name_of, uncarried
from tests.demo.world import must
from tests.owner.tiny import one_line


def claims_of(bundle):
    return claim_lines.parse_file((bundle / "claims.jsonl").read_bytes())


def certificate_of(bundle):
    return messages.read((bundle / "certificate.dsse.json").read_bytes(), Certificate)[1]


def patch_of(bundle):
    return patch_file.parse((bundle / "patch.json").read_bytes(), (bundle / "patch.safetensors").read_bytes())


def ask(tiny, name, *what):
    out = tiny.root / f"{name}.json"
    assert tiny.ask(*what, out=out).code == 0
    return out


def certified(tiny, name, *options, request=None):
    out = tiny.root / name
    ran = tiny.unlearn("--json", *options, out=out, request=request or tiny.request)
    assert ran.code == 0, ran.err
    return out, ran.json


def test_two_requests_one_after_another(tiny):
    first, _ = certified(tiny, "first")
    second, told = certified(tiny, "second", request=ask(tiny, "more", "--records", "5,6,7"))
    old, new = claims_of(first), claims_of(second)
    assert told["claims"] == len(new) == 6
    assert new[:3] == old
    assert {claim.item for claim in new} == set(range(6))
    (before,), (after,) = patch_of(first).parts, patch_of(second).parts  # one part: both look at inputs the same way
    assert (after.gate.matrix == before.gate.matrix).all()
    assert (after.gate.low[:3] == before.gate.low).all()
    assert (after.gate.high[:3] == before.gate.high).all()
    assert (after.head.rows[after.head.index[:3]] == before.head.rows[before.head.index]).all()
    certificate = certificate_of(second)
    assert certificate.predecessor == succession.leaf_of((first / "certificate.dsse.json").read_bytes())
    assert (len(certificate.requests), certificate.dropped) == (2, ())
    assert (second / "predecessor" / "claims.jsonl").read_bytes() == (first / "claims.jsonl").read_bytes()
    # The regions of the new claims keep clear of the old items: the certificate's own self-check ran on both.
    third, _ = certified(tiny, "third", request=ask(tiny, "last", "--subject", "person 2"))
    assert uncarried(new, claims_of(third), ()) == ()
    assert certificate_of(third).predecessor == succession.leaf_of((second / "certificate.dsse.json").read_bytes())


def test_a_claim_is_dropped_with_a_reason(tiny):
    first, _ = certified(tiny, "first")
    second, _ = certified(
        tiny, "second", "--drop", "17=the subject took the request back", request=ask(tiny, "more", "--records", "5")
    )
    (gone,) = certificate_of(second).dropped
    assert gone.reason == "the subject took the request back"
    assert uncarried(claims_of(first), claims_of(second), {gone.record}) == ()
    (left,) = [c for c in claims_of(second) if isinstance(c, NoRedirection)]
    assert left.record.hex() == gone.record
    # Its item is gone as well: nothing may fire that no claim is about.
    assert patch_of(second).items == 3 == sum(isinstance(c, Redirection) for c in claims_of(second))


def test_a_coverage_claim_goes_with_its_item(tiny):
    certified(tiny, "first")
    workspace = Workspace(folder=tiny.commitment)
    before = succession.find(workspace, log=tiny.world.owner_log, previous=None)
    gone = workspace.commitments_of([17])[0]
    items = {claim.record: claim.item for claim in before.claims}
    others = [record for record in items if record != gone]
    # One about an item that goes, one about an item that stays and may get another number.
    doomed = Coverage(record=others[0], item=items[gone], gate="sketch")
    staying = Coverage(record=others[0], item=items[others[1]], gate="sketch")
    covered = dataclasses.replace(before, claims=(*before.claims, doomed, staying))
    found = succession.plan(workspace, covered, [succession.Drop(reason="x", row=17)])
    assert [claim for claim in found.kept if isinstance(claim, Coverage)] == [staying]
    made = prune(
        Job(
            workspace=workspace, requests=(), target=parse_target("match"), radius=None, ceiling=64,
            generator=np.random.default_rng(0), standing=found.standing(workspace),
        )
    )  # fmt: skip
    result, dropped = succession.assemble(workspace, found, made, found.requests)
    (carried,) = (claim for claim in result.claims if isinstance(claim, Coverage))
    (own,) = (c for c in result.claims if isinstance(c, Redirection) and c.record == others[1])
    assert (carried.item, carried.record) == (own.item, others[0])
    assert [one.record for one in dropped] == [gone.hex()]


def test_a_class_is_removed_and_its_removal_dropped(tiny):
    first, _ = certified(tiny, "first")
    capped, _ = certified(tiny, "capped", request=ask(tiny, "class", "--class", "1"))
    assert certificate_of(capped).dropped == ()
    assert uncarried(claims_of(first), claims_of(capped), ()) == ()
    (removal,) = [c for c in claims_of(capped) if isinstance(c, ClassRemoval)]
    back, _ = certified(tiny, "back", "--drop", "class:1=a court said so", request=ask(tiny, "more", "--records", "9"))
    dropped = {one.record: one.reason for one in certificate_of(back).dropped}
    assert dropped[name_of(removal).hex()] == "a court said so"
    assert not patch_of(back).caps
    assert uncarried(claims_of(capped), claims_of(back), dropped) == ()
    # Without the cap the first outputs are back, bit for bit.
    assert uncarried(claims_of(first), claims_of(back), ()) == ()


def test_the_same_request_again_carries_everything(tiny):
    first, _ = certified(tiny, "first")
    again, _ = certified(tiny, "again")
    assert claims_of(again) == claims_of(first)
    assert patch_of(again) == patch_of(first)
    assert len(certificate_of(again).requests) == 1


def test_beside_builds_on_nothing(tiny):
    certified(tiny, "first")
    beside, _ = certified(tiny, "beside", "--beside", request=ask(tiny, "more", "--records", "5"))
    assert (certificate_of(beside).predecessor, len(claims_of(beside))) == (None, 1)
    one_line(tiny.unlearn("--beside", "--drop", "3=x", out=tiny.root / "x"), 2, "--beside builds on nothing")


def test_a_twin_of_what_was_forgotten_shares_its_item(tiny):
    workspace = Workspace(folder=tiny.commitment)
    first, _ = certified(tiny, "first")
    before = succession.find(workspace, log=tiny.world.owner_log, previous=None)
    found = succession.plan(workspace, before, ())
    # Row 8 made equal to row 3, which an item of the first patch acts on.
    assert workspace.tree.root == workspace.commitment.records_root
    values = workspace.records.values.copy()
    values[8] = values[3]
    workspace.__dict__["records"] = dataclasses.replace(workspace.records, values=values)
    job = Job(
        workspace=workspace, requests=((before.requests[0].request, (8,)),), target=parse_target("match"),
        radius=None, ceiling=64, generator=np.random.default_rng(0), standing=found.standing(workspace),
    )  # fmt: skip
    made = prune(job)
    assert made.patch.parts == patch_of(first).parts
    (claim,) = made.claims
    assert isinstance(claim, Redirection)
    assert claim.region.radius == 0
    assert claim.item < found.standing(workspace).items


@pytest.mark.parametrize(
    ("drop", "words"),
    [("x=y", "give ROW=REASON"), ("3", "give ROW=REASON"), ("99999=x", "no row 99999"), ("5=x", "no claim about row 5"),
     ("class:2=x", "no claim about class 2"), ("3=", "give ROW=REASON")],
)  # fmt: skip
def test_drops_that_make_no_sense(tiny, drop, words):
    certified(tiny, "first")
    one_line(tiny.unlearn("--drop", drop, out=tiny.root / "x"), 2, words)


def test_a_drop_without_a_predecessor_and_of_what_is_asked_again(tiny):
    one_line(tiny.unlearn("--drop", "3=x"), 2, "no earlier certificate")
    certified(tiny, "first")
    one_line(tiny.unlearn("--drop", "3=x", out=tiny.root / "x"), 2, "asked to be forgotten and its claim to be dropped")


@pytest.mark.parametrize("before", [False, True])
def test_a_certificate_that_another_run_logs_meanwhile_is_not_skipped(tiny, monkeypatch, before):
    """Both runs began on top of the same one; signed, the later one would be refuted as a silent drop."""
    if before:
        certified(tiny, "first")
    more, real = ask(tiny, "more", "--records", "5"), unlearn.write_bundle

    def slow(*args, **kwargs):
        with monkeypatch.context() as other:
            other.setattr(unlearn, "write_bundle", real)
            certified(tiny, "other", request=ask(tiny, "another", "--records", "9"))
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(unlearn, "write_bundle", slow)
        one_line(tiny.unlearn(out=tiny.root / "late", request=more), 2, "meanwhile")
    assert not (tiny.root / "late").exists()
    late, _ = certified(tiny, "late", request=more)
    other = (tiny.root / "other" / "certificate.dsse.json").read_bytes()
    assert certificate_of(late).predecessor == succession.leaf_of(other)


def test_where_the_predecessor_is_found(tiny, tmp_path):
    first, _ = certified(tiny, "first")
    (kept,) = (tiny.commitment / "certificates").iterdir()
    for path in sorted(kept.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    one_line(tiny.unlearn(out=tiny.root / "x"), 2, "give its bundle with --previous")
    second, _ = certified(tiny, "second", "--previous", first)
    assert certificate_of(second).predecessor is not None
    # The first is no longer the latest: building on it would skip the second.
    one_line(tiny.unlearn("--previous", first, out=tiny.root / "x"), 2, "is not the latest certificate")
    damaged = tiny.root / "second" / "claims.jsonl"
    damaged.write_bytes(damaged.read_bytes() + b"{}\n")
    one_line(tiny.unlearn("--previous", second, out=tiny.root / "x"), 2, "claims.jsonl")


def test_an_opened_audit_must_cover_the_carried_requests(tiny):
    certified(tiny, "first")
    more = ask(tiny, "more", "--records", "5")
    world = tiny.world
    plan = must("prune-auditor", "plan", "--template", "--profile", "redirection").out
    (tiny.root / "plan.yaml").write_text(plan)
    for name, requests in (("few", (more,)), ("all", (more, tiny.request))):
        must("prune-auditor", "open-audit", *requests, "--plan", tiny.root / "plan.yaml", "--key", world.key("auditor"),
             "--log", world.auditor_log, "--out", tiny.root / f"{name}.json")  # fmt: skip
    one_line(
        tiny.unlearn("--opening", tiny.root / "few.json", out=tiny.root / "x", request=more), 2,
        "answers that one's requests, too",
    )  # fmt: skip
    certified(tiny, "second", "--opening", tiny.root / "all.json", request=more)


def test_parse_drop():
    assert succession.parse_drop("17=a=b") == succession.Drop(reason="a=b", row=17)
    assert succession.parse_drop("class:3= x ") == succession.Drop(reason="x", klass=3)
    with pytest.raises(OwnerError):
        succession.parse_drop("17=" + "x" * 401)


@pytest.mark.parametrize("method", CONTINUING)
def test_a_method_that_trains_goes_on_from_the_earlier_weights(tiny, method):
    aim = ("--method", method, *(("--target", "misclassify") if method == "instance-wise" else ()))
    # Rows on which every method has something to do.
    rows = np.array([3, 17, 42])
    if method == "distribution-matching":
        rows = np.random.default_rng(1).choice(60, 25, replace=False)
    many, three = ",".join(map(str, rows)), ",".join(map(str, np.setdiff1d(np.arange(5, 60), rows)[:3]))
    first, _ = certified(tiny, "first", *aim, request=ask(tiny, "many", "--records", many))
    more = ask(tiny, "more", "--records", three)
    second, told = certified(tiny, "second", *aim, request=more)
    old, new, certificate = claims_of(first), claims_of(second), certificate_of(second)
    assert certificate.predecessor == succession.leaf_of((first / "certificate.dsse.json").read_bytes())
    assert len(certificate.requests) == 2
    assert told["claims"] == len(new) == len(rows) + 3
    # What is not carried is named, and nothing else is.
    gone = {name_of(claim).hex() for claim in uncarried(old, new, ())}
    assert {one.record for one in certificate.dropped} == gone
    assert patch_of(second).weights
    if method in ("fine-tune", "instance-wise"):
        # From the base the same records, seed and settings give another model.
        anew, _ = certified(tiny, "anew", *aim, "--beside", request=ask(tiny, "both", "--records", f"{many},{three}"))
        assert patch_of(anew).weights != patch_of(second).weights


def test_what_a_method_that_trains_does_not_build_on(tiny):
    certified(tiny, "first")
    one_line(tiny.unlearn("--method", "fine-tune", out=tiny.root / "x"), 2, "patch has gates")
    certified(tiny, "second", "--method", "fine-tune", "--beside")
    one_line(tiny.unlearn(out=tiny.root / "x"), 2, "changes weights, which")
    one_line(
        tiny.unlearn("--method", "fine-tune", "--drop", "3=x", out=tiny.root / "x", request=ask(tiny, "m", "--records", "5")),
        2, "makes every claim anew",
    )  # fmt: skip


def test_weights_that_change_again_drop_by_name_what_they_no_longer_prove(tiny, monkeypatch):
    # Far beyond what it takes, so that intervals have something to prove.
    wide = ("steps=1000", "room=40", "strain=1", "keep=0", "adv=0", "imp=false")
    aim = ("--method", "instance-wise", "--target", "misclassify", *(word for pair in wide for word in ("--set", pair)))
    first, _ = certified(tiny, "first", *aim)
    before = [claim for claim in claims_of(first) if isinstance(claim, Redirection)]
    assert before  # on this tiny model intervals prove something
    monkeypatch.setattr(
        "owner.methods.weights._proven", lambda job, *_: (np.full(len(job.rows), -1), np.zeros(len(job.rows)))
    )
    second, _ = certified(tiny, "second", *aim, request=ask(tiny, "more", "--records", "5"))
    dropped = {one.record: one.reason for one in certificate_of(second).dropped}
    assert set(dropped) == {claim.record.hex() for claim in before}
    assert all("weights changed again" in reason for reason in dropped.values())
    assert uncarried(claims_of(first), claims_of(second), dropped) == ()
