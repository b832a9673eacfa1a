"""The suite of attacks that an audit runs: what the profile demands and what its plan adds.

Proves: nothing. A plan's digest is logged before the challenge, so that no attack, setting or level follows from a
result; the verdict follows from the suite and the data alone.
Assumes: the profile's levels were read by `auditor.profile`.
Does not: let a plan soften a profile. Where both speak, the stricter one holds: the smaller margin and level, the
larger counts, all attacks of both, all required ones of both. Only settings of attacks are the plan's alone.
Source: SPEC 13.3.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import yaml

from auditor.attacks import Attack
from auditor.attacks.catalogue import ATTACKS, ENTRIES, PROPERTIES, Kind, Settings, defaults, make, read_settings
from auditor.attacks.observation import Scores, Unavailable
from auditor.attacks.plan import MembershipPlan
from auditor.section import Section
from auditor.strict_yaml import refuse_unknown
from protocol.errors import AuditorError, Schema

_NUMBERS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "margin": (0.0, 0.5),
        "level": (0.0, 0.5),
        "exchangeability_level": (0.002, 1.0),
        "delta": (0.0, 1.0),
    }
)
"""Levels that a plan may set, each strictly between these ends."""
_COUNTS: Mapping[str, tuple[int, int]] = MappingProxyType({"shadows": (1, 4096), "controls": (1000, 100_000)})
CHEAP = ("difference", "patch-strip", "gate-probe")
"""Properties that are measured even if nobody names them."""
DELTA = 1e-5
RATES = (0.01, 0.001)


def _settings(value: Any, known: tuple[str, ...], where: str) -> dict[str, Settings]:
    if not isinstance(value, dict):
        raise Schema("is not a mapping of attacks to their settings", where=where)
    found: dict[str, Settings] = {}
    for name, given in value.items():
        if name not in known:
            raise Schema(f"no {str(name)[:40]!r} here; there are {', '.join(known)}", where=where)
        try:
            found[name] = MappingProxyType(read_settings(name, given))
        except AuditorError as error:
            raise Schema(error.message, where=where) from None
    return found


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def parse_section(value: Any, *, where: str) -> Section:
    """Read a plan's section `membership`.

    Raises:
        Schema: not one.
    """
    if not isinstance(value, dict):
        raise Schema("is not a mapping", where=where)
    refuse_unknown(value, {"attacks", "properties", "required", "rates", *_NUMBERS, *_COUNTS}, where)
    attacks = _settings(value.get("attacks", {}), ATTACKS, f"{where}.attacks")
    properties = _settings(value.get("properties", {}), PROPERTIES, f"{where}.properties")
    required = value.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) and name in attacks for name in required):
        raise Schema("required is not a list of attacks that the plan names", where=where)
    if len(set(required)) != len(required):
        raise Schema("required names an attack twice", where=where)
    found: dict[str, Any] = {}
    for name, (low, high) in _NUMBERS.items():
        number: Any = value.get(name)
        if name in value and not (_number(number) and low < number < high):
            raise Schema(f"{name} is not a number between {low:g} and {high:g}", where=where)
        found[name] = None if number is None else float(number)
    for name, (least, most) in _COUNTS.items():
        count = value.get(name)
        if name in value and not (isinstance(count, int) and not isinstance(count, bool) and least <= count <= most):
            raise Schema(f"{name} is not a whole number from {least} to {most}", where=where)
        found[name] = count
    rates = value.get("rates")
    if "rates" in value:
        if not isinstance(rates, list) or not 0 < len(rates) <= 8 or not all(_number(r) and 0 < r < 1 for r in rates):
            raise Schema("rates is not a list of one to eight numbers between 0 and 1", where=where)
        found["rates"] = tuple(float(rate) for rate in rates)
    return Section(attacks=attacks, properties=properties, required=tuple(required), **found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenPlan(MembershipPlan):
    """A plan whose attacks were made with settings of their own, or have been run already.

    Attributes:
        chosen: each attack by name.
    """

    chosen: Mapping[str, Attack] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def attack(self, name: str) -> Attack:
        """Return the attack of this name.

        Raises:
            AuditorError: there is none.
        """
        if name not in self.chosen:
            raise AuditorError(f"no attack called {name!r} was chosen")
        return self.chosen[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What is run, and at which levels.

    Attributes:
        attacks: name to settings, in the order of the catalogue's.
        required: those that CONSISTENT needs.
        properties: name to settings.
        limits: property to `{at_most}` or `{at_least}`: what the profile lets decide.
        margin: the largest difference of AUC that counts as none.
        level: error probability of accusation and of reassurance.
        exchangeability_level: level of the test that precedes everything.
        delta: of the epsilon lower bound.
        rates: false-positive rates.
        shadows: number of shadow models.
        controls: control draws.
    """

    attacks: Mapping[str, Settings]
    required: tuple[str, ...]
    properties: Mapping[str, Settings]
    limits: Mapping[str, Mapping[str, float]]
    margin: float
    level: float
    exchangeability_level: float
    delta: float
    rates: tuple[float, ...]
    shadows: int
    controls: int

    def named(self, kind: Kind) -> tuple[str, ...]:
        """Return the attacks of a kind that are run."""
        return tuple(name for name in self.attacks if ENTRIES[name].kind == kind)

    def plan(
        self, ready: Mapping[str, Scores | Unavailable] | None = None, *, kinds: tuple[Kind, ...] = ("outputs",)
    ) -> ChosenPlan:
        """Return the plan for one assessment.

        Args:
            ready: attacks that have been run already, with what they found.
            kinds: kinds of attacks to make from their settings.

        Raises:
            AuditorError: nothing required is left, or a level out of its range.
        """
        given = ready or {}
        chosen: dict[str, Attack] = {}
        for name, settings in self.attacks.items():
            if name in given:
                chosen[name] = _already(given[name])
            elif ENTRIES[name].kind in kinds:
                chosen[name] = make(name, settings)
        required = tuple(name for name in self.required if name in chosen)
        if not required:
            raise AuditorError("no attack on outputs or by queries is required; name at least one")
        return ChosenPlan(
            attacks=tuple(chosen),
            required=required,
            margin=self.margin,
            level=self.level,
            exchangeability_level=self.exchangeability_level,
            draws=self.controls,
            rates=self.rates,
            delta=self.delta,
            duplicates="drop",
            chosen=MappingProxyType(chosen),
        )

    def only(self, name: str, attack: Attack) -> ChosenPlan:
        """Return the plan for an assessment of one attack that needs records of its own."""
        return replace(self.plan(), attacks=(name,), required=(name,), chosen=MappingProxyType({name: attack}))


def _already(found: Scores | Unavailable) -> Attack:
    return lambda _: found


def settle(levels: Mapping[str, Any], section: Section | None) -> Suite:
    """Return the suite that a profile's levels and a plan's section make together.

    Args:
        levels: the profile's levels of the check membership.
        section: the plan's, if it has one.

    Raises:
        AuditorError: an unknown attack, or one that needs settings and has none.
    """
    given = section if section is not None else Section()
    names = [*map(str, levels["attacks"]), *given.attacks]
    unknown = [name for name in names if name not in ATTACKS]
    if unknown:
        raise AuditorError(f"no attack is called {unknown[0]!r}; there are {', '.join(ATTACKS)}")
    measured = [*CHEAP, *map(str, levels.get("properties", ())), *given.properties]
    measured += [str(name) for name in levels.get("property_limits", {})]
    strange = [name for name in measured if name not in PROPERTIES]
    if strange:
        raise AuditorError(f"no property is called {strange[0]!r}; there are {', '.join(PROPERTIES)}")
    required = tuple(dict.fromkeys([*map(str, levels["required_attacks"]), *given.required]))
    if not set(required) <= set(names):
        raise AuditorError("the profile requires an attack that it does not name")
    return Suite(
        attacks={
            name: given.attacks[name] if name in given.attacks else read_settings(name, None)
            for name in ATTACKS
            if name in names
        },
        required=required,
        properties={
            name: given.properties[name] if name in given.properties else defaults(name)
            for name in PROPERTIES
            if name in measured
        },
        limits=levels.get("property_limits", {}),
        margin=min(float(levels["margin"]), given.margin or 0.5),
        level=min(0.05, given.level or 0.05),
        # A larger one stops sooner, which accuses and reassures less.
        exchangeability_level=max(0.01, given.exchangeability_level or 0.01),
        delta=DELTA if given.delta is None else given.delta,
        rates=given.rates or RATES,
        shadows=max(int(levels["shadows"]), given.shadows or 0),
        controls=max(1000, int(levels["controls"]), given.controls or 0),
    )


def _flow(settings: Settings) -> str:
    text = yaml.safe_dump(dict(settings), default_flow_style=True, sort_keys=False, width=10_000)
    return str(text).strip()


def _list(words: Iterable[str]) -> str:
    return f"[{', '.join(words)}]"


def template(levels: Mapping[str, Any]) -> str:
    """Return a plan's section with everything that can be said in it; what is not run stands there as a comment."""
    suite = settle(levels, None)
    delta = _flow({"delta": suite.delta})[1:-1].split(": ")[1]
    told = {
        "margin": (f"{suite.margin:g}", "largest |AUC - AUC of the null control| that counts as none"),
        "level": (f"{suite.level:g}", "of wrong accusations (Holm over all attacks), and of wrong reassurance"),
        "exchangeability_level": (f"{suite.exchangeability_level:g}", "sets that differ before training: INCONCLUSIVE"),
        "rates": (_list(f"{rate:g}" for rate in suite.rates), "false-positive rates; withheld with too few negatives"),
        "delta": (delta, "of the epsilon lower bound"),
        "shadows": (f"{suite.shadows}", "models trained on halves of the reference data"),
        "controls": (f"{suite.controls}", "pseudo-forget draws of the null control"),
        "required": (_list(suite.required), "without these no CONSISTENT; any attack that is run can refute"),
    }
    lines = ["membership:  # beside the profile: the stricter of both holds; all attacks of both are run"]
    lines += [f"  {name}: {value}  # {words}" for name, (value, words) in told.items()]
    lines.append("  attacks:  # each is read in its signed score and its distance from the centre, each in both tails")
    for name in ATTACKS:
        entry, mark = ENTRIES[name], "" if name in suite.attacks else "# "
        settings = dict(defaults(name))
        if name == "rerun":
            settings["command"] = "METHOD --base {base} --train {train} --forget {forget} --out {out} --seed {seed}"
        lines.append(f"    {mark}{name}: {_flow(settings)}  # {entry.number}: {entry.says}")
    lines.append("  properties:  # never counted, unless the profile has property_limits")
    for name in PROPERTIES:
        entry, mark = ENTRIES[name], "" if name in suite.properties else "# "
        lines.append(f"    {mark}{name}: {_flow(defaults(name))}  # {entry.number}: {entry.says}")
    return "\n".join(lines) + "\n"


__all__ = ["CHEAP", "ChosenPlan", "Section", "Suite", "parse_section", "settle", "template"]
