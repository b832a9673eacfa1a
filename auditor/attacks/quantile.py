"""A14: quantile regression in place of shadow models.

Proves: a lower bound on what somebody sees who cannot train models like the attacked one, but holds records that
it never saw: they show what confidence to expect of a record with these features.
Assumes: the never-seen records are many enough to learn that from.
Does not: see what distinguishes a record from others with the same features.

Cross-fitting: a never-seen record is measured against a regression that was fitted without it, and a forgotten
one against the regression of a random fold, so that both are treated alike.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float

from auditor.attacks.observation import Scores, Unavailable, label_margin
from auditor.attacks.subjects import Subjects, ask
from protocol.errors import AuditorError

FEWEST_REFERENCE = 50


class _Regressor(Protocol):
    def fit(self, features: Float[np.ndarray, "record feature"], target: Float[np.ndarray, "record"], /) -> object: ...
    def predict(self, features: Float[np.ndarray, "record feature"], /) -> Float[np.ndarray, "record"]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileRegression:
    """How far phi lies above its conditional median, in units of a conditional spread.

    Attributes:
        kind: gradient-boosted trees, or a linear model with an L1 penalty.
        low: lower quantile of the spread, in (0, 0.5).
        high: upper quantile, in (0.5, 1).
        folds: parts of the never-seen records, at least 2.
        rounds: boosting rounds of the trees.
        depth: their depth.
        penalty: of the linear model, at least 0.

    Source: Bertran et al., "Scalable Membership Inference Attacks via Quantile Regression", NeurIPS 2023; they
        predict one quantile of the non-members' score and compare.
    """

    kind: Literal["trees", "linear"] = "trees"
    low: float = 0.1
    high: float = 0.9
    folds: int = 3
    rounds: int = 60
    depth: int = 4
    penalty: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse parameters outside their range.

        Raises:
            AuditorError: quantiles out of order, or a size below its least value.
        """
        if not 0.0 < self.low < 0.5 < self.high < 1.0 or self.kind not in {"trees", "linear"}:
            raise AuditorError("quantile regression is of trees or linear, with quantiles on both sides of 0.5")
        if self.folds < 2 or min(self.rounds, self.depth) < 1 or not self.penalty >= 0.0:
            raise AuditorError("quantile regression needs 2 folds, a round, a depth of 1 and a penalty of at least 0")

    def _regressor(self, quantile: float, seed: int) -> _Regressor:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from sklearn.linear_model import QuantileRegressor

        model: _Regressor
        if self.kind == "linear":
            model = QuantileRegressor(quantile=quantile, alpha=self.penalty, solver="highs")
        else:
            model = HistGradientBoostingRegressor(
                loss="quantile", quantile=quantile, max_iter=self.rounds, max_depth=self.depth, early_stopping=False,
                random_state=seed,
            )  # fmt: skip
        return model

    def __call__(self, subjects: Subjects, generator: np.random.Generator) -> Scores | Unavailable:
        """Return the standardised distances."""
        negatives = np.flatnonzero(~subjects.forget)
        if negatives.size < FEWEST_REFERENCE:
            return Unavailable(reason=f"{negatives.size} never-seen records; quantiles need {FEWEST_REFERENCE}")
        logits = ask(subjects.patched, subjects.inputs, subjects.labels)
        if isinstance(logits, Unavailable):
            return logits
        phi = label_margin(logits, subjects.labels)
        if np.ptp(phi[negatives]) == 0.0:
            return Unavailable(reason="all never-seen records have the same confidence")
        columns = subjects.values / np.maximum(subjects.schema.high - subjects.schema.low, 1)
        features = np.concatenate([columns, np.eye(logits.shape[1])[subjects.labels]], axis=1)
        fold = generator.integers(0, self.folds, len(phi))
        fold[negatives] = generator.permutation(np.arange(negatives.size) % self.folds)
        seed = int(generator.integers(2**31))
        quantiles = np.zeros((3, len(phi)))
        for number in range(self.folds):
            train, test = negatives[fold[negatives] != number], np.flatnonzero(fold == number)
            if not test.size:
                continue
            for place, quantile in enumerate((self.low, 0.5, self.high)):
                model = self._regressor(quantile, seed)
                model.fit(features[train], phi[train])
                quantiles[place, test] = model.predict(features[test])
        # Separately fitted quantiles can meet or cross; a spread far below the usual one is an artefact.
        spread = quantiles[2] - quantiles[0]
        usual = float(np.median(spread[negatives]))
        spread = np.maximum(spread, 0.1 * usual if usual > 0.0 else float(phi[negatives].std()))
        return Scores(values=(phi - quantiles[1]) / spread, settings=f"{self!r}: {negatives.size} never-seen records")
