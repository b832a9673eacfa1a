"""Targets: what the output becomes on a record's core.

`match` gives the logits that a model which never saw the record would give (cross-fitted, one
draw for each record, rescaled); `misclassify` and `relabel` give a typical output of another
class. Certified misclassification makes a record *easier* to find; the owner's program says so.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int

from owner.workspace import Prepared
from protocol.errors import OwnerError

TargetName = Literal["match", "misclassify", "relabel"]
Logits = Float32[np.ndarray, "record class"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What was asked for; `klass` only for `relabel`."""

    name: TargetName
    klass: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Head rows, and which row each record to forget gets."""

    rows: Float32[np.ndarray, "row class"]
    row_of_record: Int[np.ndarray, "record"]


def parse_target(text: str) -> Target:
    """Read `match`, `misclassify` or `relabel:K`.

    Raises:
        OwnerError: anything else.
    """
    name, _, klass = text.partition(":")
    if name == "relabel" and klass.isascii() and klass.isdigit() and len(klass) < 10:
        return Target(name="relabel", klass=int(klass))
    if name in ("match", "misclassify") and not klass and ":" not in text:
        return Target(name=name)  # type: ignore[arg-type]
    raise OwnerError(f"{text!r} is no target; choose match, misclassify or relabel:K (K a class number)")


def confidence(logits: Logits, labels: Int[np.ndarray, "record"]) -> np.ndarray:
    """Logit-scaled confidence phi = l_y - logsumexp of the others (Carlini et al. 2022, section VI.A)."""
    values = logits.astype(np.float64)
    rows = np.arange(len(values))
    own: np.ndarray = values[rows, labels].copy()
    values[rows, labels] = -np.inf
    top: np.ndarray = values.max(axis=1)
    own -= top + np.log(np.exp(values - top[:, None]).sum(axis=1))
    return own


def scale_factor(prepared: Prepared, base_unseen: Logits, labels: Int[np.ndarray, "unseen"]) -> float:
    """How much more confident the base is on unseen data than a fold model, which saw a little less data.

    Ratio of mean |phi| on the same unseen records: paired, so that which records these are hardly matters
    (a ratio of spreads over 100 records was off by 12 %, which an attacker saw). 1 where there is no unseen data.
    """
    if len(labels) < 20 or not len(prepared.unseen_logits):
        return 1.0
    own = np.abs(confidence(base_unseen, labels)).mean()
    folds = np.mean([np.abs(confidence(logits, labels)).mean() for logits in prepared.unseen_logits])
    return float(np.clip(own / folds, 0.5, 2.0)) if folds > 0 else 1.0


def match_rows(prepared: Prepared | None, rows: list[int], factor: float) -> Rows:
    """One row for each record: its cross-fitted logits times `factor`.

    Raises:
        OwnerError: nothing was prepared at `commit`.
    """
    if prepared is None:
        raise OwnerError(
            "the target match needs cross-fitted models; run commit without --no-prepare, or choose another"
        )
    logits = (prepared.logits[rows].astype(np.float64) * factor).astype(np.float32)
    return Rows(rows=logits, row_of_record=np.arange(len(rows), dtype=np.int64))


def class_rows(
    target: Target,
    base_forget: Logits,
    base_typical: Logits,
    typical_labels: Int[np.ndarray, "record"],
    banned: Bool[np.ndarray, "record class"],
) -> Rows:
    """Typical outputs of other classes: for `misclassify` of each record's likeliest wrong class.

    Args:
        target: `misclassify` or `relabel`.
        base_forget: the base's logits on the records to forget.
        base_typical: the base's logits on other training records.
        typical_labels: their classes.
        banned: for each record to forget the classes that its output must not become: its own, and removed ones.

    Raises:
        OwnerError: the class does not exist or is removed, or no record shows what its output looks like.
    """
    classes = base_forget.shape[1]
    shown = base_typical.argmax(axis=1)
    typical = {
        int(klass): base_typical[right].astype(np.float64).mean(axis=0).astype(np.float32)
        for klass in range(classes)
        if (right := (typical_labels == klass) & (shown == klass)).any()
    }
    if target.klass is not None:
        if target.klass >= classes:
            raise OwnerError(f"relabel:{target.klass}: classes are numbered 0 to {classes - 1}")
        if target.klass not in typical:
            raise OwnerError(f"no training record of class {target.klass} is classified as such; choose another target")
        wanted = np.full(len(base_forget), target.klass, dtype=np.int64)
    else:
        others = base_forget.astype(np.float64)
        others[banned] = -np.inf
        others[:, sorted(set(range(classes)) - set(typical))] = -np.inf
        if not np.isfinite(others.max(axis=1, initial=-np.inf)).all():
            raise OwnerError("no other class is left that a retained record shows the output of; choose another target")
        wanted = others.argmax(axis=1)
    used, row_of_record = np.unique(wanted, return_inverse=True)
    return Rows(rows=np.array([typical[int(klass)] for klass in used], dtype=np.float32), row_of_record=row_of_record)
