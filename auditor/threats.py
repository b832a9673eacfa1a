"""The threat model as data: the catalogue in `threat_models/`, read strictly.

Proves (`load_threats`): every file is a threat whose id is the file's name and whose checks exist; that a
threat which no check catches is called out of reach, with the reason; that one which is not implemented
says what is missing. Assumes the catalogue is right about the checks (a test compares it with the source).
Does not audit anything, and does not claim that the list of threats is complete.
"""

import functools
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, Literal

from auditor.profile import CHECKS, Profile
from auditor.strict_yaml import parse_mapping, refuse_unknown
from protocol.errors import AuditorError, Schema

Party = Literal["owner", "auditor", "subject", "log", "outsider"]
Status = Literal["detectable", "limited", "out-of-reach"]
PARTIES: tuple[Party, ...] = ("owner", "auditor", "subject", "log", "outsider")
STATUSES: tuple[Status, ...] = ("detectable", "limited", "out-of-reach")
MAX_THREAT = 1 << 14
_LONGEST = 600
_PROPERTY = re.compile(r"[a-z]+(_[a-z]+)*", re.ASCII)
_WIDTH = 120
# Column widths of the table; the last column has what is left of _WIDTH.
_COLUMNS = (("threat", 21), ("party", 8), ("status", 12), ("today", 6), ("checks", 13))
_LEGEND = (
    "status: detectable = the checks catch it; limited = up to what is out of reach; out-of-reach = no check can.",
    "today: yes = an audit produces this finding; partly = for a part of the behaviour; no = not yet, or never.",
    "A check counts under a profile that requires it. What is not listed here, nobody looked for.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """What the adversary does, and the predicate on which it wins."""

    play: str
    wins_if: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Threat:
    """One behaviour of a party.

    Args:
        id: the file's name; also the code of its findings.
        title: one line.
        party: who misbehaves.
        knowledge: what the party knows.
        capability: what it can do.
        goal: what it wants.
        game: its move and when it wins.
        checks: checks that catch it; empty only if it is out of reach.
        formal: properties of the symbolic models in `threat_models/formal/` that speak of it; often none.
        evidence: what a finding shows.
        status: what checks can do about it in principle.
        out_of_reach: what stays unseen, and why; None only if it is detectable without a remark.
        implemented: whether today's auditor produces this finding.
        planned: what is missing, in whole or (where `implemented`) in part.
        sources: where the behaviour is described.
    """

    id: str
    title: str
    party: Party
    knowledge: str
    capability: str
    goal: str
    game: Game
    checks: tuple[str, ...]
    formal: tuple[str, ...]
    evidence: str
    status: Status
    out_of_reach: str | None
    implemented: bool
    planned: str | None
    sources: tuple[str, ...]

    @property
    def today(self) -> Literal["yes", "partly", "no"]:
        """How much of it today's auditor reports as a finding of this name."""
        if not self.implemented:
            return "no"
        return "partly" if self.planned is not None else "yes"

    def to_json(self) -> dict[str, Any]:
        """The same fields as in the YAML file, absent ones left out; valid under `threat_models/schema.json`."""
        plain: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        plain |= {
            "game": {"play": self.game.play, "wins_if": self.game.wins_if},
            "checks": list(self.checks),
            "formal": list(self.formal) or None,
            "sources": list(self.sources),
        }
        return {name: value for name, value in plain.items() if value is not None}


def _line(value: dict[str, Any], name: str, where: str, longest: int = _LONGEST) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not 0 < len(text) <= longest or not text.isprintable() or text != text.strip():
        raise Schema(f"{name} is not one line of 1 to {longest} characters", where=where)
    return text


def _lines(value: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(entry, str) and 0 < len(entry) <= _LONGEST for entry in found):
        raise Schema(f"{name} is not a list of texts", where=where)
    if len(set(found)) != len(found):
        raise Schema(f"{name} says something twice", where=where)
    return tuple(found)


def _verify_consistent(threat: Threat, where: str) -> None:
    # The same conditions as the `allOf` of threat_models/schema.json.
    if threat.status != "detectable" and threat.out_of_reach is None:
        raise Schema("out_of_reach is missing: what stays unseen, and why", where=where)
    if threat.status != "out-of-reach" and not threat.checks:
        raise Schema("no check catches it, so its status is out-of-reach", where=where)
    if threat.status == "out-of-reach" and threat.implemented:
        raise Schema("out of reach and implemented exclude each other", where=where)
    if not threat.implemented and threat.planned is None:
        raise Schema("planned is missing: what it takes until the finding exists", where=where)


def parse_threat(data: bytes, *, where: str) -> Threat:
    """Read one threat.

    Args:
        data: the YAML file's bytes.
        where: its name, `<id>.yaml`.

    Raises:
        MalformedError: not a threat, or one that contradicts itself.
    """
    value = parse_mapping(data, where=where, limit=MAX_THREAT)
    refuse_unknown(value, {field.name for field in fields(Threat)}, where)
    game = value.get("game")
    if not isinstance(game, dict):
        raise Schema("game is not a mapping", where=where)
    refuse_unknown(game, {"play", "wins_if"}, f"{where}: game")
    if value.get("party") not in PARTIES:
        raise Schema(f"party is not one of {', '.join(PARTIES)}", where=where)
    if value.get("status") not in STATUSES:
        raise Schema(f"status is not one of {', '.join(STATUSES)}", where=where)
    if not isinstance(value.get("implemented"), bool):
        raise Schema("implemented is not true or false", where=where)
    checks, sources = _lines(value, "checks", where), _lines(value, "sources", where)
    formal = _lines(value, "formal", where) if "formal" in value else ()
    if "formal" in value and not formal:
        raise Schema("formal is empty; leave it out", where=where)
    for name in formal:
        if len(name) > 60 or _PROPERTY.fullmatch(name) is None:
            raise Schema(f"formal: {name[:60]!r} is not a property's name", where=where)
    unknown = [check for check in checks if check not in CHECKS]
    if unknown:
        raise Schema(f"there is no check {unknown[0][:60]!r}", where=where)
    if not sources:
        raise Schema("no source is named", where=where)
    threat = Threat(
        id=_line(value, "id", where, longest=60),
        title=_line(value, "title", where, longest=80),
        party=value["party"],
        knowledge=_line(value, "knowledge", where),
        capability=_line(value, "capability", where),
        goal=_line(value, "goal", where),
        game=Game(play=_line(game, "play", f"{where}: game"), wins_if=_line(game, "wins_if", f"{where}: game")),
        checks=checks,
        formal=formal,
        evidence=_line(value, "evidence", where),
        status=value["status"],
        out_of_reach=_line(value, "out_of_reach", where) if "out_of_reach" in value else None,
        implemented=value["implemented"],
        planned=_line(value, "planned", where) if "planned" in value else None,
        sources=sources,
    )
    if where.rsplit("/", 1)[-1] != f"{threat.id}.yaml":
        raise Schema(f"the id {threat.id!r} is not the file's name", where=where)
    _verify_consistent(threat, where)
    return threat


@functools.cache
def load_threats() -> tuple[Threat, ...]:
    """All threats of the catalogue, by id.

    Raises:
        MalformedError: a file of the installed catalogue is damaged.
    """
    files = {entry.name: entry for entry in resources.files("threat_models").iterdir() if entry.name.endswith(".yaml")}
    found = (parse_threat(file.read_bytes(), where=name) for name, file in files.items())
    return tuple(sorted(found, key=lambda threat: threat.id))


def _row(cells: Sequence[str]) -> list[str]:
    widths = [width for _, width in _COLUMNS]
    widths.append(_WIDTH - sum(widths) - 2 * len(widths))
    columns = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(cells, widths, strict=True)]
    height = max(len(column) for column in columns)
    padded = [column + [""] * (height - len(column)) for column in columns]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*padded, strict=True)
    ]


def as_table(threats: Iterable[Threat]) -> str:
    """The catalogue as plain text, at most 120 columns: threats with checks, what is out of reach, the models."""
    threats = tuple(threats)
    lines = [*_row([*(name.upper() for name, _ in _COLUMNS), "BEHAVIOUR"]), "-" * _WIDTH]
    for threat in threats:
        checks = " ".join(threat.checks) or "none"
        lines += _row([threat.id, threat.party, threat.status, threat.today, checks, threat.title])
    lines += ["", *_LEGEND, "", "OUT OF REACH", "-" * _WIDTH]
    first = _COLUMNS[0][1] + 2
    for threat in threats:
        if threat.out_of_reach is not None:
            lines += textwrap.wrap(
                f"{threat.id:{first - 2}}  {threat.out_of_reach}",
                _WIDTH,
                subsequent_indent=" " * first,
                break_on_hyphens=False,
            )
    lines += ["", "IN THE SYMBOLIC MODELS, WITHIN THEIR BOUNDS (threat_models/formal)", "-" * _WIDTH]
    for name in sorted({name for threat in threats for name in threat.formal}):
        lines.append(f"{name}: " + ", ".join(threat.id for threat in threats if name in threat.formal))
    return "\n".join(lines)


def check_profile(profile: Profile, threats: Sequence[Threat]) -> None:
    """Refuse a profile that promises to cover a threat which it cannot.

    A profile that names its threats must require at least one check of each, unless the threat is out of
    reach, which its report says. One that names none stands for the whole catalogue and promises nothing
    in particular: then each threat must have some check, or be out of reach.

    Args:
        profile: what an audit demands.
        threats: the catalogue.

    Raises:
        AuditorError: an unknown threat, or one that no (required) check catches and that is not out of reach.
    """
    known = {threat.id: threat for threat in threats}
    for name in known if profile.threats is None else profile.threats:
        if name not in known:
            raise AuditorError(f"there is no threat {name!r}", where=profile.name)
        threat = known[name]
        if threat.status == "out-of-reach":
            continue
        if not threat.checks:
            raise AuditorError(f"no check catches {name}, and it is not out of reach", where=profile.name)
        if profile.threats is not None and not set(threat.checks) & set(profile.required):
            wanted = " or ".join(threat.checks)
            raise AuditorError(f"names the threat {name} but does not require {wanted}", where=profile.name)
        for check in profile.levels_for.get(name, ()):
            if check not in threat.checks:
                raise AuditorError(
                    f"sets a level of {check} for {name}, which that check does not catch", where=profile.name
                )
            if check not in profile.required:
                raise AuditorError(f"sets a level of {check} for {name} but does not require it", where=profile.name)


__all__ = ["Game", "Threat", "as_table", "check_profile", "load_threats", "parse_threat"]
