"""The data that an attack sees.

Proves: nothing. It turns logits into the one signal that most attacks use, and makes the records that were
never seen by a shadow model comparable with those that were left out of a random half of them.
Assumes: logits come from the auditor's own execution of the attacked model and from its own shadow models.
Does not: judge. Non-finite logits and too few records are refused in `auditor/membership.py`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from protocol.errors import AuditorError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """One attacked model, seen through the logits of forgotten and of never-seen records.

    Attributes:
        logits: output of the attacked model.
        labels: the records' labels, in 0..class-1.
        shadow_logits: output of each shadow model; the first axis may be empty.
        out: whether the shadow model was trained without the record.
        features: the records' inputs, or any features that do not depend on the base model; used to test
            whether forgotten and never-seen records are exchangeable, and to find duplicates.
    """

    logits: Float32[np.ndarray, "record class"]
    labels: Int64[np.ndarray, "record"]
    shadow_logits: Float32[np.ndarray, "shadow record class"]
    out: Bool[np.ndarray, "shadow record"]
    features: Float32[np.ndarray, "record feature"]

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit each other.

        Raises:
            AuditorError: mismatched shapes or types, or a label outside the classes.
        """
        if self.logits.ndim != 2 or self.features.ndim != 2 or self.shadow_logits.ndim != 3:
            raise AuditorError("logits and features have two axes, shadow logits three")
        records, classes = self.logits.shape
        shadows = self.shadow_logits.shape[0]
        fits = (
            self.labels.shape == (records,)
            and self.shadow_logits.shape == (shadows, records, classes)
            and self.out.shape == (shadows, records)
            and self.features.shape[0] == records
        )
        if not fits:
            raise AuditorError("logits, labels, shadow logits, out and features disagree on their shapes")
        if self.out.dtype != np.bool_ or not np.issubdtype(self.labels.dtype, np.integer):
            raise AuditorError("out is boolean and labels are integers")
        if records and (int(self.labels.min()) < 0 or int(self.labels.max()) >= classes):
            raise AuditorError(f"a label outside 0..{classes - 1}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """An observation, prepared once for all attacks.

    Attributes:
        logits: output of the attacked model, in double precision.
        labels: the records' labels.
        phi: logit-scaled confidence of each record's label under the attacked model.
        shadow_phi: the same under each shadow model.
        out: which shadow models an attack may use as "trained without this record"; see `view`.
        inside: which shadow models were trained with the record.
        reference: the never-seen records (the negatives).
    """

    logits: Float[np.ndarray, "record class"]
    labels: Int64[np.ndarray, "record"]
    phi: Float[np.ndarray, "record"]
    shadow_phi: Float[np.ndarray, "shadow record"]
    out: Bool[np.ndarray, "shadow record"]
    inside: Bool[np.ndarray, "shadow record"]
    reference: Bool[np.ndarray, "record"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """What an attack says about every record.

    Attributes:
        values: one score for each record; higher means more like a member.
        settings: every hyper-parameter, also those that were chosen from the data, in words.
    """

    values: Float[np.ndarray, "record"]
    settings: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """An attack that cannot be run on this observation.

    Attributes:
        reason: why, as a readable phrase.
    """

    reason: str


def label_margin(
    logits: Float[np.ndarray, "record class"], labels: Int64[np.ndarray, "record"]
) -> Float[np.ndarray, "record"]:
    """Return phi: the label's logit minus the log-sum-exp of all other logits.

    It equals log p - log(1 - p) for the label's softmax probability p, but stays exact where p rounds to 0
    or 1.

    Args:
        logits: finite, at least two classes.
        labels: in 0..class-1.

    Returns:
        phi in natural-log units, in double precision.

    Source: Carlini et al., "Membership Inference Attacks From First Principles", IEEE S&P 2022, section IV-C.
    """
    wide = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(labels))
    own = wide[rows, labels]
    others = wide.copy()
    others[rows, labels] = -np.inf
    top = others.max(axis=1)
    np.exp(others - top[:, None], out=others)
    phi: np.ndarray = own - top - np.log(others.sum(axis=1))
    return phi


def log_probability(phi: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return log p for a logit-scaled confidence phi = log p - log(1 - p), without overflow."""
    value: np.ndarray = -np.logaddexp(0.0, -phi)
    return value


def view(observation: Observation, forget: Bool[np.ndarray, "record"], generator: np.random.Generator) -> View:
    """Prepare an observation for the attacks.

    Shadow models are trained on random halves of the reference records. A reference record is compared with
    the half that left it out; a forgotten record was left out by all of them, and comparing it with all would
    give it a better estimated null than its negatives have: scores would differ without any membership. Such
    a record therefore borrows the set of shadow models of a random reference record.

    Args:
        observation: finite logits.
        forget: the forgotten records (positives); all others are the reference.
        generator: decides what is borrowed; the same state gives base and patched model the same shadows.

    Returns:
        The prepared view.
    """
    reference = ~forget
    inside = ~observation.out
    out = observation.out.copy()
    donors = np.flatnonzero(reference)
    borrowers = np.flatnonzero(forget & observation.out.all(axis=0))
    if borrowers.size and donors.size:
        out[:, borrowers] = observation.out[:, generator.choice(donors, size=borrowers.size)]
    shadow_phi = np.empty(observation.out.shape, dtype=np.float64)
    for index, logits in enumerate(observation.shadow_logits):
        shadow_phi[index] = label_margin(logits, observation.labels)
    return View(
        logits=np.asarray(observation.logits, dtype=np.float64),
        labels=observation.labels,
        phi=label_margin(observation.logits, observation.labels),
        shadow_phi=shadow_phi,
        out=out,
        inside=inside,
        reference=reference,
    )
