"""What a cell of the table is about: data in three disjoint roles, a base, and what is asked to be forgotten.

Roles (trained, the owner's unseen data, the auditor's reference) are one random draw from the whole file, official
test part included, so that they are exchangeable before training; for `subject` the file's own training part keeps its
people. A backdoor is planted by stamping some training records with a trigger and another label.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.benchmarks.redirection_study import Data, load

SCENARIOS = ("single", "records", "subject", "class", "trigger", "sequence")
SETS = (
    "digits", "mnist", "fashion_mnist", "uci_har", "location30", "adult", "cifar10_jpeg", "cifar10_lossless_4k",
)  # fmt: skip
TARGET_LABEL = 0
REMOVED = 1


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many records each role gets, and how long things are trained."""

    trained: int = 4000
    unseen: int = 500
    reference: int = 2000
    epochs: int = 30
    shadows: int = 32
    share: float = 0.025
    poisoned: float = 0.03
    requests: int = 20

    def fit(self, total: int) -> "Size":
        """Scaled to a file with fewer records."""
        factor = min(1.0, total / (self.trained + self.unseen + self.reference))
        trained, unseen = int(self.trained * factor), int(self.unseen * factor)
        return replace(self, trained=trained, unseen=unseen, reference=min(self.reference, total - trained - unseen))


# Fewer than some 20 shadow models leave a reference record with fewer than the two that LiRA needs.
SMALL = Size(trained=800, unseen=150, reference=800, epochs=15, shadows=24, share=0.05)


@dataclass(frozen=True, kw_only=True)
class Roles:
    """One data set, drawn; `requests` are the parts of `forget` that are asked for one after another."""

    data: Data
    X: np.ndarray
    y: np.ndarray
    X_unseen: np.ndarray
    y_unseen: np.ndarray
    X_reference: np.ndarray
    y_reference: np.ndarray
    forget: np.ndarray
    requests: tuple[np.ndarray, ...] = ()
    subject: str | None = None
    subjects: np.ndarray | None = None
    klass: int | None = None
    X_triggered: np.ndarray | None = None


def stamp(data: Data, X: np.ndarray) -> np.ndarray:
    """Records with the trigger: a bright 3 x 3 corner of an image, or the last three columns at their largest."""
    X = X.copy()
    image = X.ndim >= 3
    top = {"digits": 16}.get(data.name, 255 if X.dtype == np.uint8 and image else 1)
    if image:
        X[:, :3, :3] = top
    elif data.schema is not None:
        numeric = np.flatnonzero(np.array(data.schema.kind) == "grid")[-3:]
        X[:, numeric] = data.schema.high[numeric]
    else:
        X[:, -3:] = top
    return X


def draw(name: str, scenario: str, seed: int, size: Size, folder: Path | None) -> Roles | None:
    """The roles of one cell; None where the data set has no such scenario."""
    data = load(name, None if name == "digits" else folder)
    random = np.random.default_rng([seed, SCENARIOS.index(scenario)])
    people = None
    if scenario == "subject":
        if folder is None or name == "digits":
            return None
        with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
            if "subject_train" not in archive.files:
                return None
            people = archive["subject_train"]
    X, y = np.concatenate([data.X, data.X_test]), np.concatenate([data.y, data.y_test])
    size = size.fit(len(y))
    order = random.permutation(len(y))
    if people is not None:
        # The people of the training part are trained on; everybody else is somebody nobody trained on.
        inside = random.permutation(len(data.y))
        order = np.concatenate([inside[: size.trained], len(data.y) + random.permutation(len(data.y_test))])
        size = replace(size, trained=min(size.trained, len(inside)))
    trained, unseen = order[: size.trained], order[size.trained : size.trained + size.unseen]
    reference = order[size.trained + size.unseen :][: size.reference]
    roles = Roles(
        data=data, X=X[trained], y=y[trained], X_unseen=X[unseen], y_unseen=y[unseen],
        X_reference=X[reference], y_reference=y[reference], forget=np.zeros(0, np.int64),
    )  # fmt: skip
    if scenario == "single":
        return replace(roles, forget=random.choice(len(trained), 1, replace=False))
    if scenario == "records":
        return replace(
            roles, forget=np.sort(random.permutation(len(trained))[: max(20, int(size.share * len(trained)))])
        )
    if scenario == "sequence":
        each = max(1, int(size.share * len(trained) / size.requests))
        chosen = random.permutation(len(trained))[: each * size.requests]
        return replace(
            roles, forget=np.sort(chosen), requests=tuple(np.sort(part) for part in np.split(chosen, size.requests))
        )
    if scenario == "class":
        return replace(roles, klass=REMOVED, forget=np.flatnonzero(roles.y == REMOVED))
    if scenario == "subject":
        assert people is not None
        names = people[trained].astype(str)
        chosen = str(random.choice(np.unique(names)))
        return replace(roles, subjects=names, subject=chosen, forget=np.flatnonzero(names == chosen))
    others = np.flatnonzero(roles.y != TARGET_LABEL)
    planted = np.sort(random.permutation(others)[: max(20, int(size.poisoned * len(trained)))])
    X_planted, y_planted = roles.X.copy(), roles.y.copy()
    X_planted[planted], y_planted[planted] = stamp(data, roles.X[planted]), TARGET_LABEL
    return replace(
        roles, X=X_planted, y=y_planted, forget=planted,
        X_triggered=stamp(data, roles.X_reference[roles.y_reference != TARGET_LABEL]),
    )  # fmt: skip
