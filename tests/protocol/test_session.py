"""The opened audit as a state machine, driven out of order: two sessions whose messages are lost, repeated, swapped.

The model is the text of SPEC 9.10 over what was accepted so far, written without the machine's own fields.
"""

import dataclasses

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from protocol import session
from protocol.log import merkle
from protocol.messages import challenge as challenge_message
from protocol.messages.certificate import Certificate
from protocol.messages.challenge import Answer, Challenge
from protocol.messages.opening import Acknowledgement, Opening, nonce_commitment
from protocol.messages.report import CheckLine, Report
from protocol.session import REASONS, Refusal

HOUR = 3600
START = 1_780_000_000
POPULATION, OPENINGS = 500, 40


def leaf(message):
    return merkle.leaf_hash(message.payload()).hex()


def digest(text):
    return merkle.leaf_hash(text.encode()).hex()


class Flow:
    """All honest messages of one opened audit, and some that are not."""

    def __init__(self, name):
        self.nonce = merkle.leaf_hash(f"nonce {name}".encode())
        self.requests = (digest(f"request {name}"),)
        self.opening = Opening(
            subject=digest("plan"), requests=self.requests, nonce_commitment=nonce_commitment(self.nonce),
            answer_within=HOUR, opened_at=START,
        )  # fmt: skip
        self.leaf = leaf(self.opening)
        self.certificate = Certificate(
            subject=digest(name), commitment=digest("commitment"), requests=self.requests, opening=self.leaf,
            predecessor=None, dropped=(), method="prune", claims_root=bytes(32), claim_count=1,
            inert_outside_supports=True, certified_at=START,
        )  # fmt: skip
        self.older = dataclasses.replace(self.certificate, opening=None, certified_at=START - 9)
        self.wide = dataclasses.replace(self.certificate, requests=(*self.requests, digest("stranger")))
        self.said = Acknowledgement(
            subject=digest(name), opening=self.leaf, certificate=leaf(self.older), acknowledged_at=START
        )

    def challenge(self, entry, **changes):
        value = challenge_message.value(self.nonce, bytes.fromhex(leaf(entry)))
        made = Challenge(
            subject=digest("c"), opening=self.leaf, answers=leaf(entry), seed=challenge_message.seed(value, "locality"),
            count=OPENINGS, population=POPULATION, challenged_at=START + 60,
        )  # fmt: skip
        return dataclasses.replace(made, **changes)

    @property
    def shown(self):
        """The certificate that the acknowledgement is about, as `Session.acknowledge` takes it."""
        return {
            "certificate_leaf": leaf(self.older), "certificate_sha256": self.said.subject, "certificate": self.older
        }  # fmt: skip

    def answer(self, challenge, at=START + 120):
        return Answer(subject=digest("a"), challenge=leaf(challenge), opened=OPENINGS, answered_at=at)

    def report(self, certificate, nonce):
        return Report(
            subject=digest("r"), certificate=leaf(certificate), opening=self.leaf, nonce=nonce, profile="x",
            profile_sha256=digest("p"), policy_sha256=digest("p"), trust_sha256=digest("p"), verdict="CONSISTENT",
            checks=(CheckLine(check="binding", verdict="CONSISTENT", required=True),), findings=(), tool="t",
            audited_at=START + 500,
        )  # fmt: skip

    def all(self):
        asked = [self.challenge(self.certificate), self.challenge(self.said)]
        return [
            self.certificate, self.older, self.wide, self.said, *asked,
            self.challenge(self.certificate, seed=bytes(32)), self.challenge(self.certificate, count=OPENINGS - 1),
            self.challenge(self.certificate, population=POPULATION + 1),
            *(self.answer(one, START + 120) for one in asked), self.answer(asked[0], START + 130),
            self.report(self.certificate, self.nonce), self.report(self.certificate, None),
            self.report(self.older, self.nonce), self.report(self.certificate, bytes(32)),
        ]  # fmt: skip


FLOWS = (Flow("one"), Flow("two"))
MESSAGES = [(flow, message) for flow in FLOWS for message in flow.all()]


def give(held, flow, message, *, knows_nonce, seen):
    """Hand a message to a session as the programs do."""
    name = leaf(message)
    if isinstance(message, Certificate):
        return held.certify(name, message)
    if isinstance(message, Acknowledgement):
        return held.acknowledge(name, message, **flow.shown)
    if isinstance(message, Challenge):
        nonce = next(f.nonce for f in FLOWS if f.leaf == held.leaf) if knows_nonce else None
        return held.ask(name, message, nonce=nonce, population=POPULATION, seen=seen)
    if isinstance(message, Answer):
        return held.take(name, message, seen=seen)
    return held.close(name, message)


def welcome(own, taken, message, *, knows_nonce):
    """Whether SPEC 9.10 lets the message follow what was taken, from the messages alone."""
    if message in taken:
        return False
    kinds = [type(one) for one in taken]
    entries = [one for one in taken if isinstance(one, Certificate | Acknowledgement)]
    asked = [one for one in taken if isinstance(one, Challenge)]
    certificates = {leaf(one) if isinstance(one, Certificate) else one.certificate for one in entries}
    if isinstance(message, Report):
        if message.opening != own.leaf or Report in kinds:
            return False
        if asked:
            entry = next(one for one in entries if leaf(one) == asked[0].answers)
            about = leaf(entry) if isinstance(entry, Certificate) else entry.certificate
            if about != message.certificate:
                return False
        named = message.certificate in certificates
        return message.nonce == own.nonce if named else message.nonce is None
    if Report in kinds:
        return False
    if isinstance(message, Certificate):
        return not asked and message.opening == own.leaf and set(message.requests) <= set(own.requests)
    if isinstance(message, Acknowledgement):
        return not asked and message.opening == own.leaf
    if isinstance(message, Challenge):
        entry = next((one for one in entries if leaf(one) == message.answers), None)
        if asked or entry is None or message.opening != own.leaf:
            return False
        plain = (message.count, message.population) == (OPENINGS, POPULATION)
        return plain and (not knows_nonce or message.seed == own.challenge(entry).seed)
    return bool(asked) and Answer not in kinds and message.challenge == leaf(asked[0])


class OutOfOrder(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.held = [session.begin(f.leaf, f.opening, openings=OPENINGS) for f in FLOWS]
        self.taken = [[], []]

    @rule(
        to=st.integers(0, 1),
        what=st.integers(0, len(MESSAGES) - 1),
        knows_nonce=st.booleans(),
        seen=st.none() | st.integers(START, START + 3 * HOUR),
    )
    def deliver(self, to, what, knows_nonce, seen):
        flow, message = MESSAGES[what]
        expected = welcome(FLOWS[to], self.taken[to], message, knows_nonce=knows_nonce)
        before = self.held[to]
        try:
            after = give(before, flow, message, knows_nonce=knows_nonce, seen=seen)
        except Refusal as refusal:
            assert not expected, (before.state, message, refusal.why)
            assert refusal.why in REASONS
            assert (refusal.why == "duplicate") == (message in self.taken[to]), (refusal.why, message)
            assert self.held[to] is before
            return
        assert expected, (before.state, message)
        self.held[to] = after
        self.taken[to].append(message)

    @rule(to=st.integers(0, 1), share=st.floats(0, 1))
    def deliver_what_comes_next(self, to, share):
        """The honest order, so that long sessions are reached as well."""
        flow = FLOWS[to]
        ask = flow.challenge(flow.certificate)
        order = [flow.certificate, ask, flow.answer(ask), flow.report(flow.certificate, flow.nonce)]
        left = [one for one in order if welcome(flow, self.taken[to], one, knows_nonce=True)]
        if left:
            message = left[int(share * (len(left) - 1))]
            self.held[to] = give(self.held[to], flow, message, knows_nonce=True, seen=START + 100)
            self.taken[to].append(message)

    @invariant()
    def nothing_is_taken_twice_or_out_of_order(self):
        for held, taken in zip(self.held, self.taken, strict=True):
            kinds = [type(one) for one in taken]
            assert max(kinds.count(Challenge), kinds.count(Answer), kinds.count(Report)) <= 1
            if Answer in kinds:
                assert kinds.index(Challenge) < kinds.index(Answer)
            assert held.state == (
                "reported" if Report in kinds else "answered" if Answer in kinds else "challenged"
                if Challenge in kinds else "named" if kinds else "opened"
            )  # fmt: skip

    @invariant()
    def nobody_is_late_without_witnesses(self):
        for held in self.held:
            assert not held.overdue(None)
            if held.challenged_by is None:
                assert not held.overdue(1 << 40)
                assert held.in_time() is None
            if held.answer_leaf is not None:
                assert not held.overdue(1 << 40)


OutOfOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestOutOfOrder = OutOfOrder.TestCase


def walked(*, seen=START + 100, until=3):
    flow = FLOWS[0]
    ask = flow.challenge(flow.certificate)
    held = session.begin(flow.leaf, flow.opening, openings=OPENINGS)
    for message in (flow.certificate, ask, flow.answer(ask))[:until]:
        held = give(held, flow, message, knows_nonce=True, seen=seen)
    return held


def test_deadlines_count_from_witness_times():
    held = walked(until=2)
    assert held.deadline == START + 100 + HOUR
    assert not held.overdue(held.deadline)
    assert held.overdue(held.deadline + 1)
    flow = FLOWS[0]
    answer = flow.answer(flow.challenge(flow.certificate))
    assert held.take(leaf(answer), answer, seen=held.deadline).in_time()
    assert held.take(leaf(answer), answer, seen=held.deadline + 1).in_time() is None
    assert held.take(leaf(answer), answer, seen=None).in_time() is None
    assert not walked(seen=None, until=2).overdue(1 << 40)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda held, f: held.certify(leaf(f.older), f.older), "foreign"),
        (lambda held, f: held.certify(leaf(f.wide), f.wide), "uncovered"),
        (lambda held, f: held.certify(leaf(f.certificate), f.certificate), "duplicate"),
        (lambda held, f: held.take("00" * 32, f.answer(f.challenge(f.certificate))), "out-of-order"),
        (lambda held, f: held.drawn(bytes(32), leaf(f.certificate), POPULATION), "wrong-nonce"),
        (lambda held, f: held.drawn(f.nonce, "11" * 32, POPULATION), "out-of-order"),
        (lambda held, f: held.close("22" * 32, f.report(f.certificate, None)), "unrevealed"),
        (lambda held, f: held.close("22" * 32, f.report(f.older, f.nonce)), "unrevealed"),
        (lambda held, f: held.close("22" * 32, f.report(f.certificate, bytes(32))), "wrong-nonce"),
    ],
)
def test_refusals_of_a_named_session(step, why):
    with pytest.raises(Refusal) as caught:
        step(walked(until=1), FLOWS[0])
    assert caught.value.why == why


def test_a_known_nonce_ends_what_can_be_asked():
    spent = dataclasses.replace(walked(until=1), spent=True)
    flow = FLOWS[0]
    ask = flow.challenge(flow.certificate)
    for step in (
        lambda: spent.ask(leaf(ask), ask, nonce=flow.nonce, population=POPULATION),
        lambda: spent.drawn(flow.nonce, leaf(flow.certificate), POPULATION),
        lambda: spent.acknowledge("33" * 32, flow.said, **flow.shown),
    ):
        with pytest.raises(Refusal) as caught:
            step()
        assert caught.value.why == "spent"


@pytest.mark.parametrize("name", ["certificate_leaf", "certificate_sha256"])
def test_an_acknowledgement_names_one_certificate_by_leaf_and_by_digest(name):
    """Else the report on it would be about another certificate than the owner's entry, and nobody could verify it."""
    flow = FLOWS[0]
    assert walked(until=1).acknowledge(leaf(flow.said), flow.said, **flow.shown).state == "named"
    with pytest.raises(Refusal) as caught:
        walked(until=1).acknowledge(leaf(flow.said), flow.said, **(flow.shown | {name: "0" * 64}))
    assert caught.value.why == "foreign"


def test_an_acknowledgement_after_the_challenge_is_a_second_entry():
    flow = FLOWS[0]
    with pytest.raises(Refusal) as caught:
        walked().acknowledge(leaf(flow.said), flow.said, **flow.shown)
    assert caught.value.why == "second"
