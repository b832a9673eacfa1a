"""Profiles and plans: what an audit demands, fixed before it begins.

A profile names the required checks and their levels; a plan fixes the profile (by digest), the
seed, how many records to open and how long the owner has to answer. The plan's digest is logged by
`open-audit`, so that nobody can choose it after seeing results. Source: SPEC 13.2, 13.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from auditor.files import read_file
from auditor.section import Section
from auditor.strict_yaml import MAX_FILE, parse_mapping, refuse_unknown
from protocol.digests import sha256_hex
from protocol.errors import AuditorError, Schema, UnsupportedVersion

PROFILE_VERSION = "prune-audit/profile/v1"
PLAN_VERSION = "prune-audit/plan/v1"
CHECKS: tuple[str, ...] = (
    "authenticity",
    "inclusion",
    "freshness",
    "binding",
    "completeness",
    "redirection",
    "locality",
    "utility",
    "membership",
    "persistence",
    "disclosure",
    "deployment",
    "boundedness",
    "challenge",
    "monitor",
    "hygiene",
)
_LEVELS: dict[str, dict[str, tuple[type, ...]]] = {
    "locality": {"affected_at_most": (int, float)},
    "utility": {"drop_at_most": (int, float), "class_drop_at_most": (int, float)},
    "membership": {
        "margin": (int, float),
        "attacks": (list,),
        "required_attacks": (list,),
        "shadows": (int,),
        "controls": (int,),
        "properties": (list,),
        "property_limits": (dict,),
        "class_members_required": (bool,),
    },
    "persistence": {"distance": (int,), "share_at_least": (int, float)},
    "disclosure": {"error_at_least": (int, float)},
    "boundedness": {"logit_factor_at_most": (int, float)},
    "authenticity": {"requester_required": (bool,)},
    "freshness": {"deadline_required": (bool,)},
    "deployment": {
        "cheat_rate_at_most": (int, float),
        "tolerance": (int, float),
        "drift_at_most": (int, float),
        "identities_at_least": (int,),
    },
}
DEFAULT_LEVELS: dict[str, dict[str, Any]] = {
    "locality": {"affected_at_most": 0.03},
    "utility": {"drop_at_most": 0.02, "class_drop_at_most": 0.10},
    "membership": {
        "margin": 0.10,
        "attacks": [
            "confidence",
            "loss",
            "entropy",
            "modified-entropy",
            "lira-offline",
            "lira-offline-two-sided",
            "rmia",
        ],
        "required_attacks": ["loss", "lira-offline", "rmia"],
        "shadows": 32,
        "controls": 1000,
        "class_members_required": True,
    },
    "persistence": {"distance": 1, "share_at_least": 0.9},
    "disclosure": {"error_at_least": 0.05},
    "boundedness": {"logit_factor_at_most": 4.0},
    "authenticity": {"requester_required": False},
    "freshness": {"deadline_required": False},
    "deployment": {
        "cheat_rate_at_most": 0.01,
        "tolerance": 1e-4,
        "drift_at_most": 0.05,
        "identities_at_least": 1,
    },
}


def _mapping(data: bytes, version: str, where: str) -> dict[str, Any]:
    value = parse_mapping(data, where=where, limit=MAX_FILE)
    if value.get("version") != version:
        raise UnsupportedVersion(f"version {str(value.get('version'))[:40]!r}, this reads {version}", where=where)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A parsed profile.

    Args:
        name: for people.
        required: checks that decide the verdict.
        levels: every level of every check that has any, defaults filled in.
        raw: the profile's exact bytes.
        threats: ids of the threats that it is meant to cover; None if it names none, which stands for all
            (`auditor.threats.check_profile`).
        levels_for: the checks whose levels it sets for the sake of one threat, by threat.
    """

    name: str
    required: tuple[str, ...]
    levels: Mapping[str, Mapping[str, Any]]
    raw: bytes
    threats: tuple[str, ...] | None = None
    levels_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Digest of the profile's bytes."""
        return sha256_hex(self.raw)


def _names(value: Any) -> bool:
    # Whether they are threats is for `auditor.threats` to say, which knows them. A mapping gives each its levels.
    if not isinstance(value, list | dict) or not value:
        return False
    return all(isinstance(name, str) and 0 < len(name) <= 60 for name in value) and len(set(value)) == len(value)


def _read_levels(levels: Any, where: str) -> dict[str, dict[str, Any]]:
    """Levels by check, each of the type and range that it has to have.

    Raises:
        Schema: no levels, an unknown one, or one of the wrong type or out of range.
    """
    if not isinstance(levels, dict):
        raise Schema("is not a mapping of checks to levels", where=where)
    for check, own in levels.items():
        if check not in _LEVELS or not isinstance(own, dict):
            raise Schema(f"the check {str(check)[:40]!r} has no levels", where=where)
        refuse_unknown(own, set(_LEVELS[check]), f"{where}.{check}")
        for level, setting in own.items():
            kinds = _LEVELS[check][level]
            if not isinstance(setting, kinds) or (isinstance(setting, bool) and bool not in kinds):
                raise Schema(f"the level {check}.{level} is of the wrong type", where=where)
            if isinstance(setting, (int, float)) and not 0 <= setting <= 1e9:
                raise Schema(f"the level {check}.{level} is out of range", where=where)
            if isinstance(setting, dict) and not _limits(setting):
                raise Schema("property_limits is not a mapping of properties to {at_most} or {at_least}", where=where)
    return levels


def _limits(value: Mapping[Any, Any]) -> bool:
    for name, limit in value.items():
        if not isinstance(name, str) or not isinstance(limit, dict) or len(limit) != 1:
            return False
        ((kind, bound),) = limit.items()
        number = isinstance(bound, (int, float)) and not isinstance(bound, bool) and abs(bound) <= 1e9
        if kind not in ("at_most", "at_least") or not number:
            return False
    return True


def parse_profile(data: bytes, *, where: str = "profile") -> Profile:
    """Read a profile.

    Raises:
        MalformedError: not one; an unknown check, level or type.
    """
    value = _mapping(data, PROFILE_VERSION, where)
    refuse_unknown(value, {"version", "name", "required", "levels", "threats"}, where)
    name, required, levels = value.get("name"), value.get("required"), value.get("levels", {})
    if not isinstance(name, str) or not 0 < len(name) <= 60:
        raise Schema("name is not a short string", where=where)
    if not isinstance(required, list) or not required or not all(check in CHECKS for check in required):
        raise Schema(f"required is not a list of checks; there are {', '.join(CHECKS)}", where=where)
    if len(set(required)) != len(required) or not isinstance(levels, dict):
        raise Schema("a check is required twice, or levels is not a mapping", where=where)
    threats = value.get("threats")
    if "threats" in value and not _names(threats):
        raise Schema("threats is not a list of different threat ids, nor a mapping of them to levels", where=where)
    # What is set for one threat counts for the check, whatever it looks for: a level can have one value only.
    own = {f"threats.{name}": given for name, given in threats.items()} if isinstance(threats, dict) else {}
    merged = {check: dict(defaults) for check, defaults in DEFAULT_LEVELS.items()}
    given_by: dict[tuple[str, str], Any] = {}
    for place, given in {"levels": levels, **own}.items():
        for check, settings in _read_levels(given, f"{where}.{place}").items():
            for level, setting in settings.items():
                if given_by.setdefault((check, level), setting) != setting:
                    raise Schema(f"the level {check}.{level} is given twice, differently", where=f"{where}.{place}")
                merged[check][level] = setting
    return Profile(
        name=name,
        required=tuple(required),
        levels=merged,
        raw=data,
        threats=tuple(threats) if threats is not None else None,
        levels_for={name: tuple(given) for name, given in threats.items()} if isinstance(threats, dict) else {},
    )


def built_in() -> tuple[str, ...]:
    """Names of the profiles that come with the program."""
    folder = resources.files("auditor") / "profiles"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_profile(name_or_path: str) -> Profile:
    """A profile by file, or one that comes with the program by name.

    Raises:
        AuditorError: no such profile.
        MalformedError: a file that is none.
    """
    path = Path(name_or_path)
    if path.is_file():
        return parse_profile(read_file(path, limit=MAX_FILE), where=str(path))
    if name_or_path in built_in():
        data = (resources.files("auditor") / "profiles" / f"{name_or_path}.yaml").read_bytes()
        return parse_profile(data, where=name_or_path)
    raise AuditorError(f"no such file, and no built-in profile; there are {', '.join(built_in())}", where=name_or_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A parsed plan.

    Args:
        profile: name of the profile, for people.
        profile_sha256: its digest, which decides.
        seed: of everything random in the audit.
        openings: retained records that the owner must open.
        answer_within: seconds that the owner has for it.
        raw: the plan's exact bytes, whose digest is logged.
        membership: attacks, their settings and levels beside the profile's; None if the plan says nothing of them.
    """

    profile: str
    profile_sha256: str
    seed: int
    openings: int
    answer_within: int
    raw: bytes
    membership: Section | None = None


def parse_plan(data: bytes, *, where: str = "plan.yaml") -> Plan:
    """Read a plan.

    Raises:
        MalformedError: not one.
    """
    value = _mapping(data, PLAN_VERSION, where)
    known = {"version", "profile", "profile_sha256", "seed", "openings", "answer_within_hours", "membership"}
    refuse_unknown(value, known, where)
    profile, digest = value.get("profile"), value.get("profile_sha256")
    if not isinstance(profile, str) or len(profile) > 60:
        raise Schema("profile is not a name", where=where)
    if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise Schema("profile_sha256 is not a SHA-256 in lower-case hexadecimal", where=where)
    numbers = {}
    for name, high in (("seed", 2**53), ("openings", 1_000_000), ("answer_within_hours", 100_000)):
        number = value.get(name)
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= high:
            raise Schema(f"{name} is not a whole number from 0 to {high}", where=where)
        numbers[name] = number
    if numbers["openings"] < 1:
        raise Schema("openings is not at least 1", where=where)
    return Plan(
        profile=profile,
        profile_sha256=digest,
        seed=numbers["seed"],
        openings=numbers["openings"],
        answer_within=numbers["answer_within_hours"] * 3600,
        raw=data,
        membership=_section(value["membership"], where) if "membership" in value else None,
    )


def _section(value: Any, where: str) -> Section:
    from auditor.suite import parse_section  # every attack is loaded with it

    return parse_section(value, where=f"{where}.membership")


def plan_template(profile: Profile, *, seed: int) -> bytes:
    """A plan to start from: every field, with what it means."""
    from auditor.suite import template

    return f"""# What this audit will do, fixed before it begins: `prune-auditor open-audit` logs this file's digest.
version: {PLAN_VERSION}
profile: {profile.name}
profile_sha256: "{profile.sha256}"  # the profile's file may not change afterwards
seed: {seed}  # of every random choice that is not drawn from the challenge
openings: 200  # retained records that the owner must open; zero moved of 200 bounds the moved share by 1.5 %
answer_within_hours: 72  # no answer by then: INCONCLUSIVE, with the finding withheld-opening
{template(profile.levels["membership"])}""".encode()
