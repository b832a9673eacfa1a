"""Hypothesis strategies for every message."""

from hypothesis import strategies as st

from protocol.messages import certificate, challenge, commitment, opening, report, request
from tests.protocol.samples import hashes, hexes, texts, times

hex_lists = st.lists(hexes, min_size=1, max_size=3, unique=True).map(tuple)
counts = st.integers(0, 1_000_000)
verdicts = st.sampled_from(report.VERDICTS)


@st.composite
def commitments(draw):
    count = draw(st.integers(1, 1 << 32))
    return commitment.Commitment(
        subject=draw(hexes),
        base=draw(hexes),
        schema=draw(hexes),
        recipe=draw(hexes),
        prepared=draw(st.none() | hexes),
        records_root=draw(hashes),
        record_count=count,
        group_count=draw(st.integers(1, count)),
        committed_at=draw(times),
    )


scopes = (
    st.builds(request.Scope, kind=st.just("records"))
    | st.builds(request.Scope, kind=st.just("subject"), group=hexes)
    | st.builds(request.Scope, kind=st.just("class"), klass=st.integers(0, 1 << 20))
    | st.builds(request.Scope, kind=st.just("trigger"), trigger=hexes)
)
requests = st.builds(
    request.Request,
    subject=hexes,
    scope=scopes,
    records_root=hashes,
    record_count=st.integers(1, 1 << 32),
    on_behalf=st.booleans(),
    requested_at=times,
    deadline=st.none() | times,
)
opened_audits = st.builds(
    opening.Opening,
    subject=hexes,
    requests=hex_lists,
    nonce_commitment=hexes,
    answer_within=st.integers(0, 1 << 32),
    opened_at=times,
)
acknowledgements = st.builds(
    opening.Acknowledgement, subject=hexes, opening=hexes, certificate=hexes, acknowledged_at=times
)


@st.composite
def certificates(draw):
    predecessor = draw(st.none() | hexes)
    dropped = st.lists(
        st.builds(certificate.Dropped, record=hexes, reason=texts), max_size=3, unique_by=lambda one: one.record
    )
    return certificate.Certificate(
        subject=draw(hexes),
        commitment=draw(hexes),
        requests=draw(hex_lists),
        opening=draw(st.none() | hexes),
        predecessor=predecessor,
        dropped=tuple(draw(dropped)) if predecessor else (),
        method=draw(texts),
        claims_root=draw(hashes),
        claim_count=draw(counts),
        inert_outside_supports=draw(st.booleans()),
        certified_at=draw(times),
    )


@st.composite
def challenges(draw):
    population = draw(st.integers(1, 1 << 32))
    return challenge.Challenge(
        subject=draw(hexes),
        opening=draw(hexes),
        answers=draw(hexes),
        seed=draw(hashes),
        count=draw(st.integers(1, min(population, 1_000_000))),
        population=population,
        challenged_at=draw(times),
    )


answers = st.builds(challenge.Answer, subject=hexes, challenge=hexes, opened=counts, answered_at=times)
findings = st.lists(st.builds(report.FindingLine, threat=texts, check=texts), max_size=2).map(tuple)


@st.composite
def reports(draw):
    lines = st.builds(report.CheckLine, check=texts, verdict=verdicts, required=st.booleans())
    checks = tuple(draw(st.lists(lines, max_size=4, unique_by=lambda line: line.check)))
    return report.Report(
        subject=draw(hexes),
        certificate=draw(hexes),
        opening=draw(st.none() | hexes),
        nonce=draw(st.none() | hashes),
        profile=draw(texts),
        profile_sha256=draw(hexes),
        policy_sha256=draw(hexes),
        trust_sha256=draw(hexes),
        verdict=report.combine(checks),
        checks=checks,
        findings=draw(findings),
        tool=draw(texts),
        audited_at=draw(times),
    )


receipts = st.builds(
    report.Receipt,
    subject=hexes,
    report=hexes,
    certificate=hexes,
    commitment=hexes,
    request=hexes,
    profile=texts,
    verdict=verdicts,
    findings=findings,
    issued_at=times,
)

ALL = {
    commitment.Commitment: commitments(),
    request.Request: requests,
    opening.Opening: opened_audits,
    opening.Acknowledgement: acknowledgements,
    certificate.Certificate: certificates(),
    challenge.Challenge: challenges(),
    challenge.Answer: answers,
    report.Report: reports(),
    report.Receipt: receipts,
}
