"""Views to render: one like a real audit's, one hostile, one bare."""

import numpy as np

from auditor.view import (
    CheckResult,
    Finding,
    FrontierPoint,
    PersistencePoint,
    Pictures,
    RecordOutput,
    ReportView,
    RocCurve,
)

HOSTILE = (
    "<script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)' x=\"",
    "{{ 7 * 7 }}{% raw %}<b>&amp;&#60;",
    "\u202eevil\u2066 abc \u05d0\u05d1\u05d2 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\x00\x1b[31m\ud800\u2028\ufeff]]>-->",
    "Z" + "\u0300" * 500,
    "javascript:alert(1)",
    "A" * 100_000,
    "",
)


def curve(name, shift, random, *, members=100, strangers=1000, points=60, band=0.05):
    inside, outside = random.normal(shift, 1.0, members), np.sort(random.normal(0.0, 1.0, strangers))[::-1]
    allowed = np.unique(np.round(np.geomspace(1, strangers - 1, points)).astype(int))
    true = (inside[None, :] > outside[allowed][:, None]).mean(axis=1)
    return RocCurve(
        name=name,
        false_positive=allowed / strangers,
        true_positive=true,
        low=np.clip(true - band * np.sqrt(true + 0.01), 0, 1),
        high=np.clip(true + band * np.sqrt(true + 0.02) + 0.01, 0, 1),
    )


ATTACKS = ("LiRA offline, two-sided", "LiRA offline, upper tail", "RMIA, two-sided", "Confidence, two-sided",
           "Entropy, two-sided")  # fmt: skip


def pictures(*, members=100, strangers=1000, seed=0, shift=0.9):
    random = np.random.default_rng(seed)
    outputs = []
    for k in range(5):
        before = random.normal(-2, 2, 10)
        after = before.copy()
        before[3 + k % 3] = 9.5
        after[(7 + k) % 10] = 8.0
        outputs.append(
            RecordOutput(
                commitment=f"{int(random.integers(2**60)):016x}",
                label=3 + k % 3,
                radius=f"{2 * k}",
                before=tuple(before.tolist()),
                after=tuple(after.tolist()),
            )
        )
    distances = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24)
    shares = [float(1 / (1 + np.exp((d - 9) / 1.8))) for d in distances]
    size = {"members": members, "strangers": strangers}
    return Pictures(
        roc=tuple(curve(name, shift * (k < 2), random, band=0.25, **size) for k, name in enumerate(ATTACKS)),
        control=tuple(curve(name, 0.0, random, band=0.12, **size) for name in ATTACKS),
        base=tuple(curve(name, 0.5, random, band=0.0, **size) for name in ATTACKS),
        scores={name: (random.normal(1.2, 1.1, members), random.normal(0, 1, strangers)) for name in ATTACKS},
        outputs=tuple(outputs),
        persistence=tuple(
            PersistencePoint(distance=d, share=s, low=max(s - 0.06, 0), high=min(s + 0.05, 1))
            for d, s in zip(distances, shares, strict=True)
        ),
        radii=tuple(int(r) for r in np.clip(random.poisson(6, members), 0, 14)),
        frontier=(
            FrontierPoint(
                name="this patch",
                radius=6.0,
                noise=0.98,
                augmented=0.02,
                rebuilt=0.44,
                identified=1.0,
                candidates=1797,
                bytes_per_record=224.0,
            ),
            FrontierPoint(
                name="exact-match deny-list",
                radius=0.0,
                noise=0.0,
                augmented=0.0,
                rebuilt=1.0,
                identified=1.0,
                candidates=1797,
                bytes_per_record=32.0,
            ),
            FrontierPoint(
                name="linear region",
                radius=0.03,
                noise=0.0,
                augmented=None,
                rebuilt=None,
                identified=None,
                candidates=1797,
                bytes_per_record=79_000.0,
            ),
        ),
        tables={
            "Membership: every attack": (
                ("Attack", "AUC", "95 % interval", "Control", "Base", "TPR at 1 % FPR"),
                tuple((name, "0.512", "0.461 to 0.563", "0.503", "0.571", "1.0 %") for name in ATTACKS),
            )
        },
    )


def audit(verdict="REFUTED", **options):
    def check(name, result, summary, evidence=None, findings=()):
        return CheckResult(check=name, verdict=result, summary=summary, evidence=evidence or {}, findings=findings)

    refuted = verdict == "REFUTED"
    undecided = "INCONCLUSIVE" if verdict != "CONSISTENT" else "CONSISTENT"
    message = (
        "Forgotten records stand out by being wrong: two-sided LiRA reaches AUC 0.83 where the null control "
        "gives 0.48, a difference of at least 0.29 against a margin of 0.10."
    )
    over = (Finding(threat="over-forgetting", check="membership", message=message),) if refuted else ()
    pair = Finding(
        threat="pair-leakage",
        check="membership",
        message="Whoever holds both versions finds every record of the forget set by comparing outputs (AUC 1.000).",
    )
    digest = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"
    return ReportView(
        verdict=verdict,
        profile="indistinguishable",
        audited_at="2026-03-14T09:26:53Z",
        names={
            "Certificate (entry)": digest,
            "Commitment (entry)": digest[::-1],
            "Request (entry)": digest[7:] + digest[:7],
            "Audit opening (entry)": digest[21:] + digest[:21],
            "Base model, SHA-256": digest[33:] + digest[:33],
            "Owner’s log": "owner.example/log, 41 entries, witnessed by 3 at 2026-03-14T09:20:00Z",
            "Auditor’s log": "auditor.example/log, 12 entries, witnessed by 2 at 2026-03-14T09:21:00Z",
        },
        checks=(
            check("authenticity", "CONSISTENT", "Certificate, commitment and 1 request carry valid signatures.",
                  {"signers": ["owner.example+1a2b3c4d"], "threshold": 1}),
            check("inclusion", "CONSISTENT", "All 4 entries are in the log, which 3 of 3 witnesses cosigned.",
                  {"tree size": 41, "root": digest, "witnesses": ["north", "south", "east"]}),
            check("freshness", undecided, "No deadline can be decided: the request has no witnessed time."
                  if undecided == "INCONCLUSIVE" else "Certified 2 days before the deadline."),
            check("binding", "CONSISTENT", "Every file has the signed digest; the deployed file equals base and patch.",
                  {"files": 9, "bytes": 1482230, "nodes compared": 41}),
            check("completeness", "CONSISTENT", "Each of 100 requested records is covered by a claim."),
            check("redirection", "CONSISTENT", "All 100 claims hold on their whole regions.",
                  {"claims": 100, "proved": 100, "smallest_radius": 2, "slack": 0.0000123456}),
            check("locality", "CONSISTENT", "Outputs are bit for bit unchanged on 400 opened and 2,000 reference "
                  "records; at most 0.15 % of inputs are affected.", {"affected": 0, "upper_bound": 0.0014967}),
            check("utility", "CONSISTENT", "Accuracy changed by 0.0 points (interval −0.2 to 0.2)."),
            check("membership", "REFUTED" if refuted else "CONSISTENT", message if refuted else
                  "No attack differs from the null control by more than the margin of 0.10.",
                  {"margin": 0.1, "attacks": {"lira_two_sided": {"auc": 0.8304, "interval": [0.79, 0.871],
                                                                 "control": 0.477},
                                              "rmia_two_sided": {"auc": 0.61, "interval": [0.55, 0.67],
                                                                 "control": 0.5}}, "seen_by": None}, over),
            check("persistence", "CONSISTENT", "96 % of probes at 4 steps are still redirected."),
            check("disclosure", "REFUTED" if refuted else "CONSISTENT", "The patch gives back records better than "
                  "guessing (error 0.017 against 0.053).", {"error": 0.017, "guessing": 0.053}, (pair,)),
            check("deployment", "INCONCLUSIVE", "No endpoint was given."),
        ),
        required=("authenticity", "inclusion", "freshness", "binding", "completeness", "redirection", "locality",
                  "utility", "membership"),
        pictures=pictures(**options),
        not_claimed=(
            "The base weights still hold the information; whoever has base and patch can take the patch off.",
            "A gate is a list of exceptions and can be probed.",
            "Nothing here equals retraining without the records.",
            "That no copy of the records or of the base model exists can never be shown.",
            "With 100 records of the forget set, a true rate below 3.0 % could not have been seen.",
        ),
        figures={"forget_records": 100, "certified_radius": {"norm": "linf", "unit": "step", "min": "2",
                                                             "median": "6"},
                 "membership": {"lira_two_sided": {"auc_two_sided": 0.83041234567, "interval": [0.79, 0.871],
                                                   "control": 0.4771}}},
    )  # fmt: skip


def bare(verdict="INCONCLUSIVE"):
    return ReportView(
        verdict=verdict,
        profile="redirection",
        audited_at="2026-03-14T09:26:53Z",
        names={},
        checks=(),
        required=("redirection",),
        pictures=Pictures(),
        not_claimed=(),
    )


def hostile():
    """Every string of a view, one after the other out of `HOSTILE`."""
    text = [f"{k}{value}" for k, value in enumerate(HOSTILE)]
    edge = np.array([0.0, np.nan, 1.0, np.inf, 1e-300])
    curves = tuple(RocCurve(name=value, false_positive=edge, true_positive=edge, low=edge, high=edge) for value in text)
    return ReportView(
        verdict="REFUTED",
        profile=HOSTILE[0] + HOSTILE[-2],
        audited_at=HOSTILE[1],
        names={value: value for value in text},
        checks=tuple(
            CheckResult(
                check=value,
                verdict="REFUTED",
                summary=value,
                evidence={value: value, "list": text, "nested": {value: [{"a": value}], "deep": [[[[[[1]]]]]]},
                          "none": [], "many": list(range(1000)), "dicts": [{"k": value}] * 100,
                          "odd": [None, True, -0.0, float("nan"), float("inf"), -(10**5000), np.float32(0.1)]},
                findings=(Finding(threat=value, check=value, message=value),
                          Finding(threat=value, check="no-such", message=value)),
            )
            for value in text
        ),
        required=(*text[:4], *HOSTILE),
        pictures=Pictures(
            roc=curves,
            control=curves[:3],
            base=curves[2:],
            scores={value: (edge, np.array([-np.inf, 1e308, -1e308, np.nan])) for value in text},
            outputs=tuple(
                RecordOutput(commitment=value, label=-1, radius=value, before=(float("nan"), 1e308, -1e308),
                             after=(float("-inf"), 0.0, 1.0))
                for value in text
            ),
            persistence=(PersistencePoint(distance=3, share=float("nan"), low=0.0, high=1.0),),
            radii=(0, 2**40),
            frontier=tuple(
                FrontierPoint(name=value, radius=float("nan"), noise=float("inf"), augmented=-1.0, rebuilt=1e308,
                              identified=None, candidates=0, bytes_per_record=float("nan"))
                for value in text
            ),
            tables={value: ((value, value), ((value,), (value, value, value))) for value in text},
            unit=HOSTILE[0],
        ),
        not_claimed=tuple(text),
        figures={"forget_records": 1, "certified_radius": {"min": HOSTILE[0], "median": HOSTILE[8]}, HOSTILE[2]: text},
    )  # fmt: skip
