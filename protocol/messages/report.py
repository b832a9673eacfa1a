"""Report and receipt: what the auditor found, and what the person who asked may keep of it.

Subject of the report: the report's manifest, which names the certificate envelope. Subject of the
receipt: the report envelope. Verdicts are CONSISTENT, REFUTED or INCONCLUSIVE; none of them says
that information is gone from a model.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from protocol import statement as intoto
from protocol.canonical import Fields
from protocol.encoding import format_time, parse_time
from protocol.errors import Schema

VerdictName = Literal["CONSISTENT", "REFUTED", "INCONCLUSIVE"]
VERDICTS: tuple[VerdictName, ...] = ("CONSISTENT", "REFUTED", "INCONCLUSIVE")
EXIT_CODES: dict[VerdictName, int] = {"CONSISTENT": 0, "REFUTED": 3, "INCONCLUSIVE": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLine:
    """One check's verdict, and whether the profile required it."""

    check: str
    verdict: VerdictName
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingLine:
    """A dishonest behaviour of the threat model that a check found evidence of."""

    threat: str
    check: str


def _check(fields: Fields) -> CheckLine:
    return CheckLine(
        check=fields.text("check", longest=60),
        verdict=fields.text("verdict", choices=VERDICTS),  # type: ignore[arg-type]
        required=fields.flag("required"),
    )


def _finding(fields: Fields) -> FindingLine:
    return FindingLine(threat=fields.text("threat", longest=60), check=fields.text("check", longest=60))


def _finding_json(findings: tuple[FindingLine, ...]) -> list[dict[str, str]]:
    return [{"threat": f.threat, "check": f.check} for f in findings]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A parsed report. Log entries are named by leaf hash; `nonce` is revealed when an audit was opened."""

    PREDICATE: ClassVar[str] = intoto.PREDICATE_BASE + "report/v1"
    SUBJECT: ClassVar[str] = "manifest.json"

    subject: str
    certificate: str
    opening: str | None
    nonce: bytes | None
    profile: str
    profile_sha256: str
    policy_sha256: str
    trust_sha256: str
    verdict: VerdictName
    checks: tuple[CheckLine, ...]
    findings: tuple[FindingLine, ...]
    tool: str
    audited_at: int

    @classmethod
    def parse(cls, statement: intoto.Statement) -> "Report":
        """Read the predicate.

        Raises:
            MalformedError: not one, or a verdict that does not follow from its checks.
        """
        with Fields(statement.predicate) as fields:
            result = cls(
                subject=statement.about(cls.SUBJECT, cls.PREDICATE),
                certificate=fields.hex("certificate"),
                opening=fields.hex("opening") if fields.has("opening") else None,
                nonce=bytes.fromhex(fields.hex("nonce")) if fields.has("nonce") else None,
                profile=fields.text("profile", longest=60),
                profile_sha256=fields.hex("profileSha256"),
                policy_sha256=fields.hex("policySha256"),
                trust_sha256=fields.hex("trustSha256"),
                verdict=fields.text("verdict", choices=VERDICTS),  # type: ignore[arg-type]
                checks=fields.each("checks", _check, longest=100),
                findings=fields.each("findings", _finding, longest=100),
                tool=fields.text("tool", longest=60),
                audited_at=parse_time(fields.text("auditedAt")),
            )
        if len({line.check for line in result.checks}) != len(result.checks):
            raise Schema("lists one check twice")
        if combine(result.checks) != result.verdict:
            raise Schema("the verdict does not follow from the checks")
        return result

    def payload(self) -> bytes:
        """The statement's bytes."""
        predicate: dict[str, object] = {
            "certificate": self.certificate,
            "profile": self.profile,
            "profileSha256": self.profile_sha256,
            "policySha256": self.policy_sha256,
            "trustSha256": self.trust_sha256,
            "verdict": self.verdict,
            "checks": [{"check": c.check, "verdict": c.verdict, "required": c.required} for c in self.checks],
            "findings": _finding_json(self.findings),
            "tool": self.tool,
            "auditedAt": format_time(self.audited_at),
        }
        if self.opening is not None:
            predicate["opening"] = self.opening
        if self.nonce is not None:
            predicate["nonce"] = self.nonce.hex()
        return intoto.serialise(
            subject_name=self.SUBJECT,
            subject_sha256=self.subject,
            predicate_type=self.PREDICATE,
            predicate=predicate,
        )


def combine(checks: tuple[CheckLine, ...]) -> VerdictName:
    """The verdict that follows from the required checks (SPEC 13.2)."""
    verdicts = {check.verdict for check in checks if check.required}
    if "REFUTED" in verdicts:
        return "REFUTED"
    return "CONSISTENT" if verdicts == {"CONSISTENT"} else "INCONCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A parsed receipt: report, certificate, commitment and request by leaf hash, and the report's verdict."""

    PREDICATE: ClassVar[str] = intoto.PREDICATE_BASE + "receipt/v1"
    SUBJECT: ClassVar[str] = "report.dsse.json"

    subject: str
    report: str
    certificate: str
    commitment: str
    request: str
    profile: str
    verdict: VerdictName
    findings: tuple[FindingLine, ...]
    issued_at: int

    @classmethod
    def parse(cls, statement: intoto.Statement) -> "Receipt":
        """Read the predicate.

        Raises:
            MalformedError: not one.
        """
        with Fields(statement.predicate) as fields:
            return cls(
                subject=statement.about(cls.SUBJECT, cls.PREDICATE),
                report=fields.hex("report"),
                certificate=fields.hex("certificate"),
                commitment=fields.hex("commitment"),
                request=fields.hex("request"),
                profile=fields.text("profile", longest=60),
                verdict=fields.text("verdict", choices=VERDICTS),  # type: ignore[arg-type]
                findings=fields.each("findings", _finding, longest=100),
                issued_at=parse_time(fields.text("issuedAt")),
            )

    def payload(self) -> bytes:
        """The statement's bytes."""
        return intoto.serialise(
            subject_name=self.SUBJECT,
            subject_sha256=self.subject,
            predicate_type=self.PREDICATE,
            predicate={
                "report": self.report,
                "certificate": self.certificate,
                "commitment": self.commitment,
                "request": self.request,
                "profile": self.profile,
                "verdict": self.verdict,
                "findings": _finding_json(self.findings),
                "issuedAt": format_time(self.issued_at),
            },
        )
