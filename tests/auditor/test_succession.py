"""Predecessors, claim by claim: what an audit, the monitor and a receipt say about a certificate that supersedes another."""

import dataclasses

import pytest

from auditor import succession
from auditor.checks import binding
from auditor.entries import Entry, look
from owner.certify import draft
from owner.compose import compose
from owner.journal import append, leaf_of, sign
from owner.succession import _read
from protocol import messages
from protocol.claims import Argmax, ClassRemoval, Coverage, Linear, Logits, NoRedirection, Redirection, Region
from protocol.keys import load_signing_key
from protocol.messages.certificate import Certificate, Dropped
from protocol.succession import carries, name_of, strays, unasked, uncarried


def predecessor_of(workshop, forged):
    envelope = (forged.bundle / "certificate.dsse.json").read_bytes()
    return _read(forged.bundle, envelope, workshop.world.owner_log)


def successor(before, *, claims=None, dropped=(), certificate=None, log_first=None):
    """A change for `Workshop.forge`: the honest result on top of `before`, changed."""

    def change(scene):
        result = (
            scene.result if claims is None else dataclasses.replace(scene.result, claims=claims(scene.result.claims))
        )
        made = draft(
            scene.job, result, compose(scene.job.workspace.base, scene.job.workspace.schema, result.patch),
            scene.requests, opening=scene.opening, opening_proof=scene.opening_proof, now=scene.now, method="prune",
            predecessor=before, dropped=dropped,
        )  # fmt: skip
        if certificate is not None:
            made = dataclasses.replace(made, certificate=certificate(made.certificate))
        return made

    return change


def bound(workshop, forged, *, log=False):
    evidence = workshop.evidence(forged, reference=False)
    entries = look(workshop.world.owner_log, policy=workshop.policy, trust=workshop.trust).entries if log else None
    return binding.check(dataclasses.replace(evidence, owner_entries=entries))


def last_without(claims):
    return (*claims[:-1], NoRedirection(record=claims[-1].record, reason="it costs something"))


def first_without(claims):
    return (NoRedirection(record=claims[0].record, reason="it costs something"), *claims[1:])


@pytest.fixture(scope="module")
def line(workshop):
    """A certificate and an honest successor of it."""
    first = workshop.forge(challenge=False)
    before = predecessor_of(workshop, first)
    second = workshop.forge(successor(before), challenge=False)
    return first, before, second, predecessor_of(workshop, second)


def test_an_honest_successor_carries_every_claim(workshop, line):
    found = bound(workshop, line[2])
    assert (found.verdict, found.findings) == ("CONSISTENT", ())
    assert (found.evidence["carried"], found.evidence["line_seen_in_the_log"]) == (40, False)
    assert bound(workshop, line[2], log=True).verdict == "CONSISTENT"


def test_a_claim_dropped_silently_and_by_name(workshop, line):
    _, before, _, _ = line
    name = before.claims[-1].record.hex()
    silent = workshop.forge(successor(before, claims=last_without), challenge=False)
    found = bound(workshop, silent)
    assert (found.verdict, [f.threat for f in found.findings]) == ("REFUTED", ["silent-drop"])
    assert found.evidence["neither_carried_nor_dropped"] == [name]
    said = Dropped(record=name, reason="taken back")
    named = workshop.forge(successor(before, claims=last_without, dropped=(said,)), challenge=False)
    found = bound(workshop, named)
    assert (found.verdict, found.evidence["dropped"]) == ("CONSISTENT", [{"claim": name, "reason": "taken back"}])


def test_a_claim_lost_one_step_before_is_not_seen_and_that_is_said(workshop):
    before = predecessor_of(workshop, workshop.forge(challenge=False))
    honest = workshop.forge(successor(before), challenge=False)
    assert "not compared here" not in bound(workshop, honest).summary
    lossy = workshop.forge(successor(before, claims=last_without), challenge=False)
    last = bound(workshop, workshop.forge(successor(predecessor_of(workshop, lossy)), challenge=False))
    assert last.verdict == "CONSISTENT"
    assert "what that one made of its own predecessor was not compared here" in last.summary


def test_requests_that_are_left_out(workshop):
    """Claims stay, the request goes: then nobody opens its records, counts them or attacks them any more."""
    before = predecessor_of(workshop, workshop.forge(challenge=False))
    other = workshop.demo.request("left-alone", "--records", "3")

    def with_the_old(claims):
        return (*claims, *(claim for claim in before.claims if claim.record not in {c.record for c in claims}))

    left = workshop.forge(successor(before, claims=with_the_old), request=other, challenge=False)
    found = bound(workshop, left)
    assert (found.verdict, [f.threat for f in found.findings]) == ("REFUTED", ["silent-drop"])
    assert "requests of the predecessor are left out" in found.findings[0].message
    assert len(found.evidence["carried_without_a_request"]) == 20
    # By name it may go: that is there for everybody to read, and is counted.
    names = tuple(Dropped(record=claim.record.hex(), reason="why not") for claim in before.claims)
    said = bound(workshop, workshop.forge(successor(before, dropped=names), request=other, challenge=False))
    assert said.verdict == "CONSISTENT"
    assert "0 are carried and 40 dropped by name, and 1 of its requests are no longer answered" in said.summary


def test_a_successor_that_skips_one(workshop, line):
    _, before, second, _ = line
    skipping = workshop.forge(successor(before), challenge=False)
    # Without the log nobody can know; with it, the one that was passed over is there.
    assert bound(workshop, skipping).verdict == "CONSISTENT"
    found = bound(workshop, skipping, log=True)
    assert (found.verdict, [f.threat for f in found.findings]) == ("REFUTED", ["silent-drop"])
    assert "skips" in found.findings[0].message
    entries = look(workshop.world.owner_log, policy=workshop.policy, trust=workshop.trust).entries
    leaf = leaf_of((skipping.bundle / "certificate.dsse.json").read_bytes())
    notes = []
    accused = [f for f in succession.faults(entries, notes) if f.message.startswith(leaf[:16])]
    assert [f.threat for f in accused] == ["silent-drop"]
    second_leaf = leaf_of((second.bundle / "certificate.dsse.json").read_bytes())
    assert not any(f.message.startswith(second_leaf[:16]) for f in succession.faults(entries, notes))


def test_a_certificate_beside_others(workshop, line):
    beside = workshop.forge(challenge=False)
    assert bound(workshop, beside).verdict == "CONSISTENT"
    found = bound(workshop, beside, log=True)
    assert (found.verdict, [f.threat for f in found.findings]) == ("INCONCLUSIVE", ["silent-drop"])


def logged_elsewhere(workshop, before, **changes):
    """A predecessor whose certificate is another message, signed and logged by the owner."""
    key = load_signing_key(workshop.world.key("owner"))
    envelope = sign(dataclasses.replace(before.certificate, **changes).payload(), key)
    proof = append(workshop.world.owner_log, envelope)
    _, certificate = messages.read(envelope, Certificate)
    return dataclasses.replace(before, envelope=envelope, proof=proof, certificate=certificate)


def test_a_foreign_predecessor(workshop, line):
    _, before, _, _ = line
    foreign = logged_elsewhere(workshop, before, commitment="0" * 64)
    found = bound(workshop, workshop.forge(successor(foreign), challenge=False))
    assert (found.verdict, "another commitment" in found.findings[0].message) == ("REFUTED", True)


def test_other_claims_than_the_predecessors(workshop, line):
    _, before, _, _ = line
    lines = before.claims_file.split(b"\n")
    fewer = dataclasses.replace(before, claims_file=b"\n".join(lines[1:]))
    found = bound(workshop, workshop.forge(successor(fewer), challenge=False))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "silent-drop")
    assert "not those of its signed root" in found.findings[0].message


def test_names_that_do_not_fit_what_is_shown(workshop, line):
    _, before, _, _ = line
    for named, words in ((None, "does not name"), ("1" * 64, "not the one")):
        change = successor(before, certificate=lambda c, named=named: dataclasses.replace(c, predecessor=named))
        found = bound(workshop, workshop.forge(change, challenge=False))
        assert (found.verdict, words in found.findings[0].message) == ("REFUTED", True)


def test_a_predecessor_younger_than_its_successor(line):
    first, before, _, _ = line
    del first
    own = Entry(origin="log", index=4, leaf="a", message=dataclasses.replace(before.certificate, predecessor="b"))
    younger = Entry(origin="log", index=5, leaf="b", message=before.certificate)
    assert succession.fault((), own, before.certificate, younger)[0] == "backdated-certificate"
    found = list(succession.faults((own, younger), []))
    assert [f.threat for f in found] == ["backdated-certificate"]
    assert succession.fault((), own, "no certificate", None)[0] == "silent-drop"


def test_what_came_since_in_sentences(workshop, line):
    first, before, second, after = line
    del after
    entries = look(workshop.world.owner_log, policy=workshop.policy, trust=workshop.trust).entries
    said = succession.since(entries, before.leaf, {before.claims[0].record.hex()})
    # A record that no other certificate of this log drops: the first one that does is the one that is told.
    reason = Dropped(record=before.claims[0].record.hex(), reason="by a court")
    workshop.forge(successor(before, claims=first_without, dropped=(reason,)), challenge=False)
    second_leaf = leaf_of((second.bundle / "certificate.dsse.json").read_bytes())
    assert any(second_leaf[:16] in sentence and "drops none" in sentence for sentence in said)
    entries = look(workshop.world.owner_log, policy=workshop.policy, trust=workshop.trust).entries
    assert any("by a court" in s for s in succession.since(entries, before.leaf, {before.claims[0].record.hex()}))
    assert succession.since(entries, "f" * 64, ()) == ()
    assert first.bundle.is_dir()


# --- which claim carries which -----------------------------------------------------------------------------------

REGION = Region(norm="linf", radius=3, radius_data="3.25")
CLAIM = Redirection(
    record=bytes(32), item=0, gate="sketch", region=REGION, property=Logits(values=("1", "2", "3")), target="match"
)
COVERAGE = Coverage(record=bytes(32), item=0, gate="sketch")


def like(**changes):
    region = {name: changes.pop(name) for name in ("radius", "norm", "steps", "radius_data") if name in changes}
    return dataclasses.replace(CLAIM, region=dataclasses.replace(REGION, **region), **changes)


@pytest.mark.parametrize(
    ("old", "new", "removed", "held"),
    [
        (CLAIM, like(item=9, twins=2), (), True),
        (CLAIM, like(radius=4, radius_data="4.25"), (), True),
        (CLAIM, like(radius=2), (), False),
        (CLAIM, like(radius_data="3"), (), False),
        (CLAIM, like(norm="hamming"), (), False),
        (CLAIM, like(record=b"1" * 32), (), False),
        (CLAIM, like(target="relabel"), (), False),
        (CLAIM, like(property=Logits(values=("1", "0", "3"))), (), False),
        (CLAIM, like(property=Logits(values=("1", "0", "3"))), (1,), True),
        (CLAIM, like(property=Logits(values=("1", "2.5", "3"))), (1,), False),
        (CLAIM, like(property=Logits(values=("1", "2"))), (), False),
        (CLAIM, like(property=Argmax(klass=2, margin="1")), (), False),
        (CLAIM, NoRedirection(record=bytes(32), reason="x"), (), False),
        (NoRedirection(record=bytes(32), reason="x"), CLAIM, (), True),
        # What promises nothing carries nothing.
        (CLAIM, COVERAGE, (), False),
        (NoRedirection(record=bytes(32), reason="x"), COVERAGE, (), False),
        (like(property=Argmax(klass=2, margin="1")), like(property=Argmax(klass=2, margin="1.5")), (), True),
        (like(property=Argmax(klass=2, margin="1")), like(property=Argmax(klass=2, margin="0.5")), (), False),
        (like(property=Argmax(klass=2, margin="1")), like(property=Argmax(klass=1, margin="1")), (), False),
        (
            like(property=Linear(rows=(("1", "0", "0"),), least=("1",))),
            like(property=Linear(rows=(("1", "0", "0"),), least=("2",))), (), False,
        ),
    ],
)  # fmt: skip
def test_a_claim_is_carried_by_one_that_says_as_much(old, new, removed, held):
    assert carries(old, new, removed) is held
    assert (uncarried([old], [new], ()) == ()) is (held and not removed)
    assert uncarried([old], [new], {name_of(old).hex()}) == ()


def test_a_coverage_claim_is_neither_carried_nor_dropped():
    assert uncarried([COVERAGE], [], ()) == ()
    assert strays([COVERAGE], [bytes(32).hex()]) == (bytes(32).hex(),)


def test_a_removal_that_nobody_asked_for_lets_no_logit_fall():
    lower = like(property=Logits(values=("1", "0", "3")))
    removal = ClassRemoval(klass=1, margin="1", nonce=bytes(32))
    assert uncarried([CLAIM], [lower, removal], (), asked={1}) == ()
    assert uncarried([CLAIM], [lower, removal], (), asked=()) == (CLAIM,)


def test_what_no_request_asks_for_any_more():
    removal = ClassRemoval(klass=1, margin="1", nonce=b"1" * 32)
    old = [CLAIM, removal, COVERAGE]
    assert unasked(old, (), classes={1}, records={CLAIM.record}) == ()
    assert unasked(old, (), classes=(), records=()) == (CLAIM, removal)
    # Where a list cannot be read nobody knows what it holds.
    assert unasked(old, (), classes=(), records=None) == (removal,)
    assert unasked(old, {CLAIM.record.hex()}, classes={1}, records=()) == ()


def test_names_of_what_was_never_claimed():
    assert strays([CLAIM], [bytes(32).hex(), "1" * 64]) == ("1" * 64,)
