"""disclosure: can the forgotten record be rebuilt from the patch?

The attack A7 (`auditor.attacks.patch_read`) on what the gate stores, with the auditor's reference data as what the
attacker knows; the best of its rebuildings counts. Compared with guessing the mean of the record's class. A gate
that fires on a record also confirms it to whoever tries candidates: inherent, and not what is measured here.

Before that, what needs no attack: requested and opened retained records that stand in the patch as a row of numbers
(`auditor.written_down`), or in the certificate's words (`auditor.report_scan`).
"""

import numpy as np

from auditor import attacking
from auditor.attacks.catalogue import defaults
from auditor.attacks.observation import Unavailable
from auditor.evidence import Evidence
from auditor.report_scan import leaks
from auditor.view import CheckResult, Finding
from auditor.written_down import resembled
from protocol.claims import NoRedirection
from protocol.model.parts import FeatureGate, Part, RegionGate, SketchGate

_WORDS = 24
"""Bytes of text from which on a record or a salt can stand in it."""


def check(evidence: Evidence) -> CheckResult:
    """REFUTED if the rebuilt records are surely nearer than the level, relative to guessing."""
    level = float(evidence.profile.levels["disclosure"]["error_at_least"])
    patch, schema = evidence.case.patch, evidence.case.schema
    if patch is None or schema is None:
        return CheckResult(check="disclosure", verdict="INCONCLUSIVE", summary="The patch cannot be read.")
    if patch.weights and not patch.parts:
        return CheckResult(
            check="disclosure",
            verdict="INCONCLUSIVE",
            summary="The patch changes the model's weights; what they show of single records is not measured.",
        )
    if not patch.parts:
        return CheckResult(
            check="disclosure", verdict="CONSISTENT", summary="The patch stores nothing about any single record."
        )
    # The defaults, whatever a plan says of the property of this name: a check that decides must not become weaker.
    found = attacking.read_patch(evidence, defaults("patch-read"), evidence.generator("disclosure"))
    if (message := _written_down(evidence, level)) is not None:
        return CheckResult(
            check="disclosure",
            verdict="REFUTED",
            summary=f"{message[0].upper()}{message[1:]}.",
            evidence={"level": level},
            findings=(Finding(threat="patch-as-record", check="disclosure", message=message),),
        )
    if isinstance(found, Unavailable):
        return CheckResult(
            check="disclosure", verdict="INCONCLUSIVE", summary=f"{found.reason[0].upper()}{found.reason[1:]}."
        )
    facts = {
        "settings": found.settings,
        "error": found.facts["error"],
        "guessing_error": found.facts["guessing_error"],
        "ratio": found.value,
        "interval": [found.low, found.high],
        "parts": {name: value for name, value in found.facts.items() if name.startswith("part_")},
        "stored_numbers_per_record": max(map(_numbers, patch.parts)),
        "features": int(schema.features),
        "level": level,
    }
    if found.high < level:
        message = f"the records can be rebuilt from the patch: error {found.value:.3f} of guessing"
        return CheckResult(
            check="disclosure",
            verdict="REFUTED",
            summary=f"{found.reading} That is surely below {level:g}.",
            evidence=facts,
            findings=(Finding(threat="patch-as-record", check="disclosure", message=message),),
        )
    if found.low < level:
        return CheckResult(
            check="disclosure",
            verdict="INCONCLUSIVE",
            summary=f"Rebuilding error is {found.value:.3f} of guessing; too few records to compare it with {level:g}.",
            evidence=facts,
        )
    return CheckResult(check="disclosure", verdict="CONSISTENT", summary=found.reading, evidence=facts)


def _written_down(evidence: Evidence, level: float) -> str | None:
    # What whoever holds the patch reads without solving anything; a sentence if there is something.
    case, reference = evidence.case, evidence.reference
    assert case.patch is not None
    assert case.schema is not None
    certificate = case.certificate
    words = [claim.reason for claim in case.claims or () if isinstance(claim, NoRedirection)]
    words += [*(one.reason for one in certificate.dropped), certificate.method]
    opened = (*(case.opened or ()), *(evidence.transcript.opened or ()))
    text = "\n".join(words).encode()
    if len(text) >= _WORDS and leaks({"words": text}, opened, case.schema):
        return "the certificate's words hold an opened record"
    if reference is None:
        return None
    retained = evidence.retained
    for name, known in (
        ("requested", evidence.requested_records[:2]),
        ("opened retained", retained if retained is not None else None),
    ):
        if known is None or not len(known[0]):
            continue
        values, labels = np.asarray(known[0]), np.asarray(known[1])
        means = {
            klass: reference.values[own if own.any() else slice(None)].mean(axis=0)
            for klass in np.unique(labels)
            for own in (reference.labels == klass,)
        }
        guesses = np.array([means[klass] for klass in labels], dtype=np.float64)
        count = int(resembled(case.patch, case.schema, values, guesses, level=level).sum())
        if count:
            return f"{count} of {len(values)} {name} records stand in the patch as rows of numbers"
    return None


def _numbers(part: Part) -> int:
    # How many numbers an item of a part stores.
    gate = part.gate
    if isinstance(gate, (SketchGate, FeatureGate)):
        return int(gate.low.shape[1])
    return int(gate.weights[0].size) if isinstance(gate, RegionGate) else 0
