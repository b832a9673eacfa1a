"""binding: are the files on the table the ones that were signed, and is the deployed file base plus patch?

Digests of all files were compared with the signed manifest when the case was loaded. Here: the
manifest against the commitment, the claims against the certificate, and the deployed file node by
node and constant by constant against the auditor's own composition (protobuf bytes are not canonical).
"""

from auditor import compose, succession
from auditor.entries import Entry
from auditor.evidence import Evidence
from auditor.view import CheckResult, Finding
from protocol.claims import Coverage
from protocol.model.graph import Graph
from protocol.succession import name_of, strays, unasked, uncarried


def check(evidence: Evidence) -> CheckResult:
    """REFUTED if a signed manifest disagrees with the signed commitment or certificate."""
    case = evidence.case
    findings: list[Finding] = []

    def accuse(threat: str, message: str) -> None:
        findings.append(Finding(threat=threat, check="binding", message=message))

    for name, listed, committed in (
        ("base model", case.base_sha256, case.commitment.base),
        ("input schema", case.schema_sha256, case.commitment.schema),
        ("training recipe", case.recipe_sha256, case.commitment.recipe),
    ):
        if listed and listed != committed:
            accuse("base-swap", f"the {name} is not the one that was committed before any request")
    if case.claims_root is not None and (
        case.claims_root != case.certificate.claims_root or len(case.claim_lines) != case.certificate.claim_count
    ):
        accuse("silent-drop", "claims.jsonl is not the list of claims that the certificate's root stands for")
    composed = evidence.composed
    unread = ""
    if isinstance(composed, Graph) and case.patched is not None:
        difference = compose.compare(composed, case.patched)
        if difference is not None:
            accuse("hidden-payload", f"patched.onnx is not base plus patch: {difference}")
    else:
        unread = "Base and patch cannot be composed: " + (
            composed if isinstance(composed, str) else "patched.onnx cannot be read"
        )
    facts: dict[str, object] = {}
    doubt = _succession(evidence, findings, facts)
    facts |= {
        "base_sha256": case.base_sha256,
        "files": len(case.manifest.entries),
        "patch_bytes": case.patch_bytes,
    }
    if findings:
        return CheckResult(
            check="binding",
            verdict="REFUTED",
            summary=findings[0].message[0].upper() + findings[0].message[1:] + ".",
            evidence=facts,
            findings=tuple(findings),
        )
    if unread:
        return CheckResult(check="binding", verdict="INCONCLUSIVE", summary=f"{unread}.", evidence=facts)
    if doubt:
        # Nothing is proven: two models may well stand side by side. But nobody can say that the earlier claims hold.
        beside = (Finding(threat="silent-drop", check="binding", message=doubt),) if "passed_over" in facts else ()
        return CheckResult(
            check="binding",
            verdict="INCONCLUSIVE",
            summary=doubt[0].upper() + doubt[1:] + ".",
            evidence=facts,
            findings=beside,
        )
    return CheckResult(
        check="binding",
        verdict="CONSISTENT",
        summary=f"The base model is the committed one, and the deployed file is exactly base plus patch{_kept(facts)}.",
        evidence=facts,
    )


def _kept(facts: dict[str, object]) -> str:
    # Reasons are the owner's words, which nobody checks: a reader sees how much was given up with them.
    if "carried" not in facts:
        return ""
    left = facts["requests_left_out"]
    return (
        f"; of the predecessor's claims {facts['carried']} are carried and {facts['dropped_by_name']} dropped by name"
        + (f", and {left} of its requests are no longer answered" if left else "")
        # One step of a line: an owner could lose a claim in a certificate that nobody audits, and build on that.
        + ("; what that one made of its own predecessor was not compared here" if facts["builds_on_a_line"] else "")
    )


def _succession(evidence: Evidence, findings: list[Finding], facts: dict[str, object]) -> str:
    """Accuse a predecessor that is the wrong one or whose claims are gone; return what stays in doubt, if anything."""
    case = evidence.case
    certificate, before = case.certificate, case.predecessor

    def accuse(threat: str, message: str) -> None:
        findings.append(Finding(threat=threat, check="binding", message=message))

    entries = evidence.owner_entries
    logged = case.certificate_logged.entry
    assert logged is not None
    own = Entry(
        origin=logged.checkpoint.origin,
        index=logged.index,
        leaf=case.certificate_logged.leaf,
        message=certificate,
    )
    if certificate.predecessor is None:
        if before is not None:
            accuse("silent-drop", "the bundle shows a predecessor that its certificate does not name")
            return ""
        passed = succession.passed_over(entries or (), own, None)
        if passed:
            facts["passed_over"] = [entry.leaf for entry in passed[-20:]]
            return (
                f"the owner's log has {len(passed)} earlier certificates about this commitment, and this one names "
                "none of them: nothing says that their claims hold in this model"
            )
        return ""
    if before is None:
        return "the certificate names a predecessor, whose claims are not on the table"
    if before.logged.leaf != certificate.predecessor:
        accuse("silent-drop", "the predecessor in the bundle is not the one that the certificate names")
        return ""
    place = before.logged.entry
    assert place is not None
    there = Entry(
        origin=place.checkpoint.origin, index=place.index, leaf=before.logged.leaf, message=before.certificate
    )
    wrong = succession.fault(entries or (), own, before.certificate, there)
    if wrong is not None:
        threat, message = wrong
        accuse(threat, message)
    facts["predecessor"] = before.logged.leaf
    facts["builds_on_a_line"] = before.certificate.predecessor is not None
    facts["dropped"] = [{"claim": one.record, "reason": one.reason} for one in certificate.dropped[:20]]
    facts["line_seen_in_the_log"] = entries is not None
    if before.claims is None or case.claims is None:
        return "the predecessor's claims or its own cannot be read"
    if before.claims_root != before.certificate.claims_root or before.claim_count != before.certificate.claim_count:
        accuse("silent-drop", "what the bundle calls the predecessor's claims are not those of its signed root")
        return ""
    dropped = [one.record for one in certificate.dropped]
    gone = uncarried(before.claims, case.claims, frozenset(dropped), asked=evidence.requested_classes)
    promised = sum(not isinstance(claim, Coverage) for claim in before.claims)
    by_name = len(set(dropped) - set(strays(before.claims, dropped)))
    facts |= {"carried": promised - len(gone) - by_name, "dropped_by_name": by_name}
    if gone:
        facts["neither_carried_nor_dropped"] = [name_of(claim).hex() for claim in gone[:20]]
        accuse(
            "silent-drop",
            f"{len(gone)} of {promised} claims of the predecessor are neither carried nor dropped by name, "
            f"the first is about {name_of(gone[0]).hex()[:16]}",
        )
    # What no request asks for is opened, counted and attacked by nobody: a claim alone does not keep it.
    left = set(before.certificate.requests) - set(certificate.requests)
    facts["requests_left_out"] = len(left)
    alone = unasked(
        before.claims,
        frozenset(dropped),
        classes=evidence.requested_classes,
        records=evidence.requested if evidence.lists_known else None,
    )
    if left and alone:
        facts["carried_without_a_request"] = [name_of(claim).hex() for claim in alone[:20]]
        accuse(
            "silent-drop",
            f"{len(left)} requests of the predecessor are left out, and {len(alone)} claims made for them are "
            f"not dropped by name, the first is about {name_of(alone[0]).hex()[:16]}",
        )
    return ""
