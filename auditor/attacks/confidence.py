"""A1: attacks that need nothing but the attacked model's output.

Proves: a lower bound on what anybody who can query the model sees.
Assumes: nothing about training; these attacks compare records that are easy with records that are hard, so
much of what they could see hides in that difference.
Does not: calibrate per record; a low value here is sanity, not safety.

Scores are put on a logarithmic scale, which leaves their order as published. Otherwise most confident records
would crowd at one end, closer together than the centres are known that they are measured from.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from auditor.attacks.observation import Scores, View, label_margin, log_probability


def class_margins(logits: Float[np.ndarray, "record class"]) -> Float[np.ndarray, "record class"]:
    """Return phi for every class: its logit minus the log-sum-exp of all others, stably.

    Args:
        logits: finite, at least two classes, double precision.

    Returns:
        log p - log(1 - p) for every class.
    """
    rows = np.arange(len(logits))
    best = logits.argmax(axis=1).astype(np.int64)
    shifted = logits - logits[rows, best][:, None]
    weights = np.exp(shifted)
    # What is left contains the best class's weight of 1, so nothing cancels and nothing underflows.
    margins: np.ndarray = shifted - np.log(np.maximum(weights.sum(axis=1, keepdims=True) - weights, 1.0))
    margins[rows, best] = label_margin(logits, best)
    return margins


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """Confidence in whatever class the model prefers; needs no label.

    The score is the top class's log p - log(1 - p), which orders records as its probability does but keeps
    apart what rounds to 1.

    Source: Salem et al., "ML-Leaks", NDSS 2019, adversary 3.
    """

    def __call__(self, view: View) -> Scores:
        """Return the top class's logit-scaled confidence."""
        best = view.logits.argmax(axis=1).astype(np.int64)
        return Scores(values=label_margin(view.logits, best), settings=repr(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The cross-entropy loss of the record's label, negated.

    Source: Yeom et al., "Privacy Risk in Machine Learning", CSF 2018, adversary 2.
    """

    def __call__(self, view: View) -> Scores:
        """Return phi, which falls as the loss log(1 + exp(-phi)) rises."""
        return Scores(values=view.phi, settings=repr(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """The entropy of the predicted distribution, negated; needs no label.

    Source: Song and Mittal, "Systematic Evaluation of Privacy Risks", USENIX Security 2021, section 3.2.
    """

    def __call__(self, view: View) -> Scores:
        """Return -log of the entropy."""
        logs = log_probability(class_margins(view.logits))
        return Scores(values=_minus_log(-(np.exp(logs) * logs).sum(axis=1)), settings=repr(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModifiedEntropy:
    """Entropy that falls with confidence in the right class and rises with it in a wrong one, negated.

    Source: Song and Mittal, 2021, equation 8.
    """

    def __call__(self, view: View) -> Scores:
        """Return -log of -(1 - p_y) log p_y - sum over other classes of p_j log(1 - p_j)."""
        rows = np.arange(len(view.labels))
        margins = class_margins(view.logits)
        logs = log_probability(margins)
        complements = log_probability(-margins)  # log(1 - p)
        terms = np.exp(logs) * complements
        terms[rows, view.labels] = np.exp(complements[rows, view.labels]) * logs[rows, view.labels]
        return Scores(values=_minus_log(-terms.sum(axis=1)), settings=repr(self))


def _minus_log(amount: Float[np.ndarray, "record"]) -> Float[np.ndarray, "record"]:
    score: np.ndarray = -np.log(np.maximum(amount, np.finfo(np.float64).tiny))
    return score
