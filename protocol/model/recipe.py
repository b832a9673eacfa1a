"""The training recipe that a commitment names: how the base model was trained, as its owner says.

Proves nothing: an auditor uses it so that its shadow models resemble the base, and says so. Does not
train anything. Source: SPEC 8.5.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from protocol.canonical import Fields, parse_json, to_bytes
from protocol.encoding import format_decimal, parse_decimal
from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, UnsupportedVersion

VERSION = "prune-audit/recipe/v1"
_LARGEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe.

    Args:
        optimiser: `adam`, or `sgd` with momentum 0.9.
        rate: learning rate, above 0, at most 10.
        epochs: passes over the data, 1 to 10,000.
        batch: records in a step, 1 to 2^20.
        weight_decay: L2 factor, 0 to 10.
    """

    optimiser: Literal["adam", "sgd"] = "adam"
    rate: float = 1e-3
    epochs: int = 30
    batch: int = 64
    weight_decay: float = 0.0


def _real(fields: Fields, name: str) -> float:
    text = fields.text(name)
    number = float(parse_decimal(text))
    if abs(number) > _LARGEST:
        raise Schema(f"{name} is beyond +-{_LARGEST}")
    if format_decimal(Decimal(repr(number))) != text:
        raise NonCanonical(f"{name} is not the shortest spelling of a float64")
    return number


def parse(data: bytes, *, where: str = "recipe.json") -> Recipe:
    """Read a recipe.

    Raises:
        MalformedError: not one.
    """
    with Fields(parse_json(data, limit=4096, where=where), where=where) as fields:
        version = fields.text("version")
        if version != VERSION:
            raise UnsupportedVersion(f"version {version[:40]!r}, this reads {VERSION}", where=where)
        rate, decay = _real(fields, "rate"), _real(fields, "weightDecay")
        if rate <= 0 or decay < 0:
            raise Schema("the rate is not above 0, or the weight decay is negative")
        return Recipe(
            optimiser=fields.text("optimiser", choices=("adam", "sgd")),  # type: ignore[arg-type]
            rate=rate,
            epochs=fields.integer("epochs", low=1, high=10_000),
            batch=fields.integer("batch", low=1, high=1 << 20),
            weight_decay=decay,
        )


def serialise(recipe: Recipe) -> bytes:
    """File form.

    Raises:
        EncodingError: a field out of its range.
    """
    try:
        data = to_bytes(
            {
                "version": VERSION,
                "optimiser": recipe.optimiser,
                "rate": format_decimal(Decimal(repr(float(recipe.rate)))),
                "epochs": recipe.epochs,
                "batch": recipe.batch,
                "weightDecay": format_decimal(Decimal(repr(float(recipe.weight_decay)))),
            }
        )
        parse(data)
    except MalformedError as error:
        raise EncodingError(f"not a recipe: {error.message}") from None
    return data
