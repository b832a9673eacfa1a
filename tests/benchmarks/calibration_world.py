"""The worlds of the calibration study: records, models with a known past, and the evidence an audit would have of them.

What it makes: everything is drawn anew for each run. One class is removed and records of the other classes are
forgotten, so that every attack of the catalogue that decides has something to attack. The models of a run are

- `base`, trained with everything;
- `honest`, trained without the forgotten records and without the removed class;
- in even runs `under s`: trained with the share s of what should have been forgotten;
- in odd runs `over s`: trained with the share s of it under wrong labels, three times each, so that these records stand out by
  being wrong.

Assumes: scikit-learn's 1,797 digits, a part of all labels replaced at random, so that models have something to
memorise. Records of all roles are one random permutation within their class, hence exchangeable: the honest model's
true difference is 0 in every attack but the one on retained records, which compares two models.
Does not: sign or open anything. `World` stands where the evidence of a bundle does; the attacks, the statistics and
the decision are the auditor's own code. There is no patch: what a patch gives away (A5 with decoys, A7) is measured
elsewhere, on patches.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from sklearn.datasets import load_digits

from auditor import membership as deciding
from auditor.attacks import rerun
from auditor.evidence import Evidence, Reference
from auditor.execute import Program
from auditor.profile import load_profile
from auditor.statistics import control
from auditor.suite import Suite, parse_section, settle
from owner.architectures import mlp
from owner.training import train
from protocol.digests import jcs_digest
from protocol.model import profile as model_profile
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema
from tests.benchmarks import retraining

CLASSES = 10
SHOWN = ("roc", "operating_point", "epsilon_bound", "detectable_difference", "equivalence_power")
"""Functions of `auditor.membership` whose results are printed and decide nothing."""
SCHEMA = InputSchema.uniform((64,), scale=16.0, low=0, high=16)
DECIDING = ("lira-online", "near-duplicates", "gap", "boundary-distance", "retained", "neighbour-class")
"""Attacks beside those of the profile, with their default settings. Quantile regression, with smaller trees than by
default, and the re-run come on top in some runs."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what a run is."""

    forgotten: int = 100
    members: int = 40  # of the removed class
    trained: int = 250
    opened: int = 100  # of the trained ones, as retained records
    never_seen: int = 700  # of other classes than the removed one; of that one all there are
    hidden: int = 48
    shadows: int = 16  # one record in 4,000 is left out by fewer than two of them: LiRA then cannot be run on its set
    epochs: int = 30
    batch: int = 100
    rate: float = 2e-2
    wrong_labels: float = 0.3
    margin: float = 0.1
    level: float = 0.05
    shares: tuple[float, ...] = (0.25, 0.5, 1.0)
    rerun_every: int = 13  # the method is re-run on 16 shadow models in one run of so many
    quantiles_every: int = 5  # trees are half the cost of a run
    seed: int = 2026

    def again(self, number: int) -> bool:
        """Whether the method is re-run in this run."""
        return number % self.rerun_every == 0

    @property
    def recipe(self) -> Recipe:
        return Recipe(epochs=self.epochs, batch=self.batch, rate=self.rate)

    @property
    def digest(self) -> str:
        return jcs_digest({"version": "2", **{name: repr(value) for name, value in asdict(self).items()}})

    def suite(self, number: int) -> Suite:
        """What the profile and a plan that names every attack make together; in most runs without the two dear ones."""
        attacks: dict[str, object] = dict.fromkeys(DECIDING)
        if number % self.quantiles_every == 0:
            attacks["quantile-regression"] = {"folds": 2, "rounds": 15, "depth": 3}
        if self.again(number):
            attacks["rerun"] = {"command": command(self.recipe)}
        section = {"attacks": attacks, "margin": self.margin, "level": self.level, "shadows": self.shadows}
        levels = {**load_profile("indistinguishable").levels["membership"], "shadows": self.shadows}
        properties = {"properties": {"export-float16": None, "export-int8": None}}
        return settle(levels, parse_section(section | properties, where="plan"))


SMALL = Settings(
    forgotten=40,
    members=25,
    trained=120,
    opened=40,
    never_seen=300,
    hidden=24,
    epochs=8,
    shares=(1.0,),
    rerun_every=2,
    quantiles_every=2,
)


def command(recipe: Recipe) -> str:
    """The plan's command line for the honest owner's method."""
    script = Path(retraining.__file__)
    places = " ".join(f"--{name} {{{name}}}" for name in ("base", "train", "forget", "out", "seed"))
    return f"{sys.executable} {script} {places} --epochs {recipe.epochs} --batch {recipe.batch} --rate {recipe.rate}"


@cache
def data(seed: int, wrong_labels: float) -> tuple[np.ndarray, np.ndarray]:
    """Grid values and labels of all digits."""
    images, classes = load_digits(return_X_y=True)
    random = np.random.default_rng([seed, 0])
    noisy = classes.astype(np.int64)
    chosen = random.random(len(noisy)) < wrong_labels
    noisy[chosen] = random.integers(0, CLASSES, int(chosen.sum()))
    return images.astype(np.int64), noisy


class World(Evidence):
    """Evidence of models that were made here. Built by `made`, never by its constructor."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One run's records and models.

    Attributes:
        number: of the run.
        klass: the removed class.
        models: by name; the first is the base.
        worlds: evidence for each model but the base.
    """

    number: int
    klass: int
    models: dict[str, Graph]
    worlds: dict[str, World]


def drawn(settings: Settings, number: int, cache_folder: Path) -> Draw:
    """Draw the records of a run and train its models."""
    values, labels = data(settings.seed, settings.wrong_labels)
    random = np.random.default_rng([settings.seed, 1, number])
    klass = number // 2 % CLASSES
    order = random.permutation(len(labels))
    own, rest = order[labels[order] == klass], order[labels[order] != klass]
    members = own[: settings.members]
    ends = np.cumsum([settings.forgotten, settings.trained, settings.never_seen])
    forgotten, trained, never = rest[: ends[0]], rest[ends[0] : ends[1]], rest[ends[1] : ends[2]]
    reference = np.concatenate([never, own[settings.members :]])
    # Records under a wrong label, which is neither their own nor the removed class, stand behind all others.
    doubled = np.concatenate([forgotten, members])
    choices = np.array([[c for c in range(CLASSES) if c not in (label, klass)] for label in labels[doubled]], object)
    wrong = np.array([random.choice(one) for one in choices], dtype=np.int64)
    x = SCHEMA.dequantise(np.concatenate([values, values[doubled]]))
    y = np.concatenate([labels, wrong])
    places = len(labels) + np.arange(len(doubled))
    share = settings.shares[number // 2 % len(settings.shares)]
    some, few = round(share * settings.forgotten), round(share * settings.members)
    graded = {
        f"under {share:g}": [forgotten[:some], members[:few]],
        f"over {share:g}": 3 * [places[:some], places[settings.forgotten : settings.forgotten + few]],
    }
    kind = list(graded)[number % 2]
    sets = {
        "base": np.concatenate([trained, doubled]),
        "honest": trained,
        kind: np.concatenate([trained, *graded[kind]]),
    }
    architecture = mlp(64, (settings.hidden,), classes=CLASSES)
    made = train(architecture, x, y, members=list(sets.values()), recipe=settings.recipe, rng=random)
    models = {name: made.model(place) for place, name in enumerate(sets)}
    opened = np.concatenate([trained[: settings.opened], members])
    worlds = {
        name: _world(settings, number, klass, (models["base"], model), values, labels, (forgotten, opened, reference),
                     cache_folder)
        for name, model in models.items() if name != "base"
    }  # fmt: skip
    return Draw(number=number, klass=klass, models=models, worlds=worlds)


def _world(
    settings: Settings,
    number: int,
    klass: int,
    models: tuple[Graph, Graph],
    values: np.ndarray,
    labels: np.ndarray,
    roles: tuple[np.ndarray, np.ndarray, np.ndarray],
    cache_folder: Path,
) -> World:
    base, patched = Program(models[0]), Program(models[1])
    forgotten, opened, reference = roles

    def run(asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = SCHEMA.dequantise(asked)
        return base(inputs, batch=4096), patched(inputs, batch=4096)

    case = SimpleNamespace(base=models[0], schema=SCHEMA, recipe=settings.recipe, patch=None, requests=())
    plan = SimpleNamespace(membership=None)
    world = object.__new__(World)
    vars(world).update(
        case=case,
        profile=load_profile("indistinguishable"),
        transcript=SimpleNamespace(plan=plan, challenge_value=None),
        reference=Reference(values=values[reference].astype(np.int32), labels=labels[reference], outside=0),
        reference_missing="",
        seed=settings.seed * 10_000 + number,
        shadow_cache=cache_folder,
        progress=lambda _stage, _share: None,
        engine=None,
        composed=models[1],
        requested=frozenset({b"listed"}),
        requested_missing=0,
        requested_records=(values[forgotten], labels[forgotten]),
        retained=(values[opened], labels[opened]),
        retained_gap="",
        removed_classes=(klass,),
        run=run,
        base_model=lambda inputs: base(inputs, batch=4096),
        patched_model=lambda inputs: patched(inputs, batch=4096),
        batch=4096,
    )
    return world


@contextmanager
def quick(recipe: Recipe) -> Iterator[None]:
    """Within it, what is the same for every model of a run is computed once, and the method runs in this process.

    Remembered are the exchangeability test and the control draws: functions of records and a generator's state alone,
    which they leave in the state that they would have left it in. ROC curves, rates, epsilons and powers, which are
    printed and which no decision reads, are those of the first comparison.
    """
    tested, draw, call = deciding.exchangeability, control.draw, rerun.Method.__call__
    known: dict[tuple[object, ...], tuple[object, object]] = {}

    def remembered(function):  # type: ignore[no-untyped-def]
        def inner(*arguments, **more):  # type: ignore[no-untyped-def]
            plain, generators = [], []
            for one in arguments:
                if isinstance(one, np.random.Generator):
                    generators.append(one)
                    plain.append(repr(one.bit_generator.state))
                else:
                    plain.append((one.shape, one.dtype.str, one.tobytes()) if isinstance(one, np.ndarray) else one)
            key = (function.__name__, *plain, *sorted(more.items()))
            if key not in known:
                known[key] = (function(*arguments, **more), generators[0].bit_generator.state)
            found, generators[0].bit_generator.state = known[key]
            return found

        return inner

    def method(self, model, inputs, labels, rows, *, folder, seed):  # type: ignore[no-untyped-def]
        graph = retraining.retrained(model, inputs, labels, rows, recipe=recipe, seed=seed)
        (folder / "out.onnx").write_bytes(model_profile.serialise(graph))
        return rerun.read_model((folder / "out.onnx").read_bytes(), model, self.size)

    def first(function):  # type: ignore[no-untyped-def]
        found = []

        def inner(*arguments, **more):  # type: ignore[no-untyped-def]
            if not found:
                found.append(function(*arguments, **more))
            return found[0]

        return inner

    shown = {name: getattr(deciding, name) for name in SHOWN}
    deciding.exchangeability, control.draw = remembered(tested), remembered(draw)
    for name, function in shown.items():
        setattr(deciding, name, first(function))
    rerun.Method.__call__ = method  # type: ignore[method-assign]
    try:
        yield
    finally:
        deciding.exchangeability, control.draw = tested, draw
        for name, function in shown.items():
            setattr(deciding, name, function)
        rerun.Method.__call__ = call  # type: ignore[method-assign]


__all__ = ["CLASSES", "SCHEMA", "SMALL", "Draw", "Settings", "World", "command", "data", "drawn", "quick"]
