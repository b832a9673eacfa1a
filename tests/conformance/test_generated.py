"""Receipts and reports changed at random, where the outcome follows from how they were changed.

Nothing here asks another implementation: each way of changing says which reasons it allows. For a program in a process
of its own there are fewer examples.
"""

import dataclasses
import shutil

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conformance.case import Step
from tests.conformance.cases_receipt import CALL, FORMS
from tests.conformance.cases_receipt import _set as replaced
from tests.conformance.forge import ENVELOPES, WITNESSES, cosigned, flip, make, redirection

pytestmark = pytest.mark.conformance("receipt")
DAMAGED = (
    *FORMS, "unsupported-version", "too-large", "unknown-key", "bad-signature", "inclusion", "digest-mismatch",
    "no-quorum", "unverifiable",
)  # fmt: skip
DIGESTS = st.binary(min_size=32, max_size=32)


def examples(program):
    return settings(
        max_examples=40 if program.quick else 5,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def stories(draw):
    """A way to be wrong: what makes it, and the reasons that it allows."""
    name = draw(st.sampled_from(ENVELOPES))
    place = draw(st.integers(0, 10_000))
    digest = draw(DIGESTS)
    return draw(
        st.sampled_from(
            [
                # The signature of a logged envelope, one bit of it.
                ({"envelopes": {name: lambda e: _flip_signature(e, place)}}, ("unknown-key", "bad-signature")),
                # Somebody else's signature, under any name.
                ({"signers": {name: (f"stranger-{place}",)}}, ("unknown-key",)),
                # One bit of an envelope after it was logged; if it still parses, it is not the logged one.
                (
                    {
                        "file": lambda f: _with_envelope(
                            f, name, flip(f.envelopes[name], place % len(f.envelopes[name]), 1)
                        )
                    },
                    ("inclusion", *FORMS, "too-large"),
                ),
                # One bit of a hash in a proof, and another index.
                ({"later": 40, "proofs": {name: lambda p: _flip_hash(p, place)}}, ("inclusion",)),
                ({"later": 40, "proofs": {name: lambda p: _other_index(p, place)}}, ("inclusion",)),
                # The receipt speaks of something else.
                (
                    {"messages": {"receipt": replaced(**{_field(place): digest.hex()})}},
                    ("digest-mismatch",),
                ),
                # Too few witnesses, whichever they are.
                (
                    {"notes": dict.fromkeys(("log.owner.example", "log.auditor.example"), _one_witness(place))},
                    ("no-quorum",),
                ),
                # Any claim line that is not under the root.
                ({"file": lambda f: _changed_claim(f, place, digest)}, ("inclusion", *FORMS)),
                # A record more, and a record less.
                (
                    {"file": lambda f: dataclasses.replace(f, records=tuple(sorted({*f.records, digest})))},
                    ("digest-mismatch", "unverifiable"),
                ),
            ]
        )
    )


def _flip_signature(envelope, place):
    import base64
    import json

    from protocol.canonical import to_bytes

    value = json.loads(envelope)
    raw = base64.b64decode(value["signatures"][0]["sig"])
    value["signatures"][0]["sig"] = base64.b64encode(flip(raw, place % 64, place % 8)).decode()
    return to_bytes(value)


def _with_envelope(file, name, data):
    return dataclasses.replace(file, envelopes={**file.envelopes, name: data})


def _flip_hash(proof, place):
    import base64

    lines = proof.split(b"\n")
    hashes = lines.index(b"") - 2
    number = 2 + place % hashes
    lines[number] = base64.b64encode(flip(base64.b64decode(lines[number]), place % 32))
    return b"\n".join(lines)


def _other_index(proof, place):
    lines = proof.split(b"\n")
    old = int(lines[1].split()[1])
    lines[1] = b"index %d" % (place % 30 + (place % 30 >= old))
    return b"\n".join(lines)


def _field(place):
    return ("report", "certificate", "commitment", "request", "subject")[place % 5]


def _one_witness(place):
    return lambda log: cosigned(log, WITNESSES[place % 3 : place % 3 + 1])


def _changed_claim(file, place, digest):
    claim = file.claims[place % len(file.claims)]
    other = dataclasses.replace(claim, line=claim.line.replace(redirection(0)[60:80], digest.hex().encode()[:20]))
    if other.line == claim.line:
        other = dataclasses.replace(claim, path=(digest, *claim.path[1:]))
    return dataclasses.replace(file, claims=tuple(other if one is claim else one for one in file.claims))


def _play(program, folder, made, step):
    folder.mkdir(exist_ok=True)
    for name, data in {"receipt": made.receipt, "policy.txt": made.policy, "trust.json": made.trust}.items():
        (folder / name).write_bytes(data)
    arguments = [str(folder / word[1:]) if word.startswith("@") else word for word in step.arguments]
    return step.problem(program([*arguments, "--json"]))


def test_wrong_in_one_way(auditor_program, tmp_path, record_property):
    record_property("conformance", "receipt")
    record_property("case", "receipt/generated-wrong")

    @examples(auditor_program)
    @given(stories())
    def check(story):
        fields, reasons = story
        made = make(**fields)
        problem = _play(auditor_program, tmp_path / "case", made, Step(arguments=CALL, exit=4, reasons=reasons))
        assert not problem, f"{fields}: {problem}"

    check()


def test_right_in_any_way(auditor_program, tmp_path, record_property):
    """Every number of records, entries and witnesses that is enough."""
    record_property("conformance", "receipt")
    record_property("case", "receipt/generated-right")

    @examples(auditor_program)
    @given(
        rows=st.sets(st.integers(0, 5), min_size=1).map(lambda found: tuple(sorted(found))),
        later=st.integers(0, 300),
        witnesses=st.permutations(WITNESSES).flatmap(lambda w: st.integers(2, 3).map(lambda n: tuple(w[:n]))),
        verdict=st.sampled_from(["CONSISTENT", "REFUTED", "INCONCLUSIVE"]),
        by_subject=st.booleans(),
    )
    def check(rows, later, witnesses, verdict, by_subject):
        notes = {"log.owner.example": lambda log: cosigned(log, witnesses)}
        lines = tuple(redirection(row) for row in rows)
        made = make(rows=rows, lines=lines, later=later, notes=notes, verdict=verdict, by_subject=by_subject)
        step = Step(
            arguments=CALL, exit={"CONSISTENT": 0, "REFUTED": 3, "INCONCLUSIVE": 5}[verdict],
            result={"verdict": verdict, "requestedBySubject": by_subject},
        )  # fmt: skip
        problem = _play(auditor_program, tmp_path / "case", made, step)
        assert not problem, problem

    check()


def test_any_bytes(auditor_program, tmp_path, record_property):
    """A receipt with bytes changed, cut out or put in: refused, unless it is only that a stranger cosigned."""
    record_property("conformance", "receipt")
    record_property("case", "receipt/generated-bytes")
    honest = make()

    @examples(auditor_program)
    @given(st.integers(0, len(honest.receipt) - 1), st.binary(max_size=4), st.integers(0, 6))
    def check(place, new, gone):
        data = honest.receipt[:place] + new + honest.receipt[place + gone :]
        made = dataclasses.replace(honest, receipt=data)
        if data == honest.receipt or _names_of_cosigners_changed(honest.receipt, data):
            return
        problem = _play(auditor_program, tmp_path / "case", made, Step(arguments=CALL, exit=4, reasons=DAMAGED))
        assert not problem, f"at {place} {gone} bytes became {new!r}: {problem}"

    check()
    shutil.rmtree(tmp_path / "case")


def _names_of_cosigners_changed(old, new):
    # Two witnesses are enough, and a line by an unknown key is ignored: such a receipt may be valid still.
    from protocol import receipt_file
    from protocol.errors import Error
    from protocol.log import note, proof

    try:
        before, after = receipt_file.parse(old), receipt_file.parse(new)
        if before.envelopes != after.envelopes or before.claims != after.claims or before.records != after.records:
            return False
        for name, data in after.proofs.items():
            was, now = proof.parse(before.proofs[name]), proof.parse(data)
            if (was.index, was.hashes) != (now.index, now.hashes):
                return False
            if note.parse(was.checkpoint_note).text != note.parse(now.checkpoint_note).text:
                return False
    except (Error, KeyError):
        return False
    return True
