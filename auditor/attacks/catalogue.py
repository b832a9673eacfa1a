"""Every attack that a plan can name, with its hyper-parameters and their defaults.

Proves: nothing; it turns `name: {settings}` of a plan into an attack, and says what there is.
Assumes: an attack is a frozen dataclass whose plain fields are its hyper-parameters and whose constructor refuses
values out of range.
Does not: run anything. What each kind of attack works on is for `auditor.attacking`.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

from auditor.attacks.confidence import Confidence, Entropy, Loss, ModifiedEntropy
from auditor.attacks.difference import Difference
from auditor.attacks.export import PRECISIONS, ExportRoundTrip
from auditor.attacks.gate_probe import GateProbe
from auditor.attacks.label_only import BoundaryDistance, Gap
from auditor.attacks.lira import LiraOffline, LiraOfflineTwoSided, LiraOnline
from auditor.attacks.near import NearDuplicates
from auditor.attacks.neighbour_class import NeighbourClass
from auditor.attacks.patch_read import PatchRead
from auditor.attacks.quantile import QuantileRegression
from auditor.attacks.rerun import Rerun
from auditor.attacks.retained import Retained
from auditor.attacks.rmia import Rmia
from auditor.attacks.strip import PatchStrip
from protocol.errors import AuditorError
from protocol.model.graph import Graph

Kind = Literal["outputs", "queries", "class", "rerun", "retained", "property"]
Settings = Mapping[str, Any]
_NO_GRAPH = Graph(opset=18, nodes=(), initialisers={}, input="x", output="y", input_shape=(1,), classes=2)
"""In the place of the model to export, while only settings are looked at."""
LARGEST = 100_000
"""Of a whole-numbered setting: a plan may be somebody else's, and replaying it should end."""
LONGEST = 4000
"""Characters of a textual setting: a command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One attack.

    Attributes:
        number: A1 to A14, as the literature list of the project numbers them.
        kind: what it works on: outputs of the attacked and shadow models; further queries; held-out members of a
            removed class; the owner's method re-run; retained records; or a property, which never counts by itself.
        make: its dataclass.
        says: a short sentence for the plan's template.
        preset: settings that the name itself stands for.
    """

    number: str
    kind: Kind
    make: type
    says: str
    preset: Settings = field(default_factory=dict)


ENTRIES: Mapping[str, Entry] = {
    "confidence": Entry(number="A1", kind="outputs", make=Confidence, says="confidence in whatever class is preferred"),
    "loss": Entry(number="A1", kind="outputs", make=Loss, says="loss of the record's label"),
    "entropy": Entry(number="A1", kind="outputs", make=Entropy, says="entropy of the prediction"),
    "modified-entropy": Entry(number="A1", kind="outputs", make=ModifiedEntropy, says="entropy that knows the label"),
    "lira-offline": Entry(
        number="A2", kind="outputs", make=LiraOffline, says="against shadow models without the record"
    ),
    "lira-offline-two-sided": Entry(
        number="A2", kind="outputs", make=LiraOfflineTwoSided, says="the same, unlikely on either side"
    ),
    "lira-online": Entry(
        number="A2", kind="outputs", make=LiraOnline, says="needs shadow models with the record: see rerun"
    ),
    "rmia": Entry(
        number="A3", kind="outputs", make=Rmia, says="against the population; offline_a null: chosen by shadows"
    ),
    "rerun": Entry(
        number="A4",
        kind="rerun",
        make=Rerun,
        says="the owner's published method re-run on shadow models; runs `command`, a program of somebody else",
    ),
    "near-duplicates": Entry(number="A8", kind="queries", make=NearDuplicates, says="copies a few steps away"),
    "gap": Entry(number="A9", kind="queries", make=Gap, says="the predicted label alone"),
    "boundary-distance": Entry(
        number="A9", kind="queries", make=BoundaryDistance, says="label only, by many questions"
    ),
    "retained": Entry(
        number="A10", kind="retained", make=Retained, says="are retained records more exposed than before?"
    ),
    "neighbour-class": Entry(
        number="A11",
        kind="class",
        make=NeighbourClass,
        says="held-out members of a removed class, by the other classes",
    ),
    "quantile-regression": Entry(number="A14", kind="queries", make=QuantileRegression, says="no shadow models"),
    "difference": Entry(number="A5", kind="property", make=Difference, says="patched model against base, with decoys"),
    "patch-strip": Entry(number="A6", kind="property", make=PatchStrip, says="what comes back with the patch off"),
    "patch-read": Entry(number="A7", kind="property", make=PatchRead, says="records rebuilt from the patch alone"),
    **{
        f"export-{precision}": Entry(
            number="A12",
            kind="property",
            make=ExportRoundTrip,
            says=f"answers that survive an export to {precision} in onnxruntime",
            preset={"precision": precision},
        )
        for precision in PRECISIONS
    },
    "gate-probe": Entry(
        number="A13", kind="property", make=GateProbe, says="constancy inside a core, jump at its edge"
    ),
}
ATTACKS = tuple(name for name, entry in ENTRIES.items() if entry.kind != "property")
PROPERTIES = tuple(name for name, entry in ENTRIES.items() if entry.kind == "property")


def _plain(default: Any) -> bool:
    return default is None or isinstance(default, (int, float, str))


def defaults(name: str) -> dict[str, Any]:
    """Return the hyper-parameters of an attack with their defaults, in the order of its dataclass.

    Raises:
        AuditorError: an unknown name.
    """
    if name not in ENTRIES:
        raise AuditorError(f"no attack is called {name!r}; there are {', '.join(ENTRIES)}")
    own = ENTRIES[name].preset
    return {
        field.name: field.default
        for field in fields(ENTRIES[name].make)
        if field.repr and field.default is not MISSING and _plain(field.default) and field.name not in own
    }


def _fits(value: Any, kind: Any, default: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, bool):
        return False
    if isinstance(default, int):
        return isinstance(value, int) and abs(value) <= LARGEST
    if isinstance(default, str):
        return isinstance(value, str) and len(value) <= LONGEST
    number = isinstance(value, (int, float)) and math.isfinite(value)
    return number or (default is None and value is None)


def read_settings(name: str, given: Any) -> dict[str, Any]:
    """Return an attack's hyper-parameters with the given ones in place of the defaults.

    Args:
        name: of the attack.
        given: what a plan says; None stands for no setting.

    Raises:
        AuditorError: an unknown attack or setting, a value of another type, or one that the attack refuses.
    """
    known = defaults(name)
    kinds = {field.name: field.type for field in fields(ENTRIES[name].make)}
    chosen = {} if given is None else given
    if not isinstance(chosen, dict):
        raise AuditorError(f"the settings of {name} are not a mapping")
    for key, value in chosen.items():
        if key not in known:
            raise AuditorError(f"{name} has no setting {str(key)[:40]!r}; there are {', '.join(known) or 'none'}")
        if not _fits(value, kinds[key], known[key]):
            raise AuditorError(f"the setting {name}.{key} has a value of the wrong type")
        known[key] = float(value) if isinstance(known[key], float) else value
    make(name, known, **({"graph": _NO_GRAPH} if ENTRIES[name].make is ExportRoundTrip else {}))
    return known


def make(name: str, settings: Settings, **material: Any) -> Any:
    """Return the attack with these hyper-parameters.

    Args:
        name: one of `ENTRIES`.
        settings: from `read_settings`.
        material: what a plan cannot say: the model to export, a decoy.

    Raises:
        AuditorError: a value out of its range.
    """
    return ENTRIES[name].make(**settings, **ENTRIES[name].preset, **material)


__all__ = ["ATTACKS", "ENTRIES", "PROPERTIES", "Entry", "Kind", "Settings", "defaults", "make", "read_settings"]
