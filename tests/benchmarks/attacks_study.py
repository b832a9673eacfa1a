"""What the attacks say of a base, of a model retrained without the forgotten records, and of patched models: five data sets.

    python -m tests.benchmarks.attacks_study [--data ../shared/data] [--sets mnist,adult] [--state attacks.jsonl]

The owner's programs make the commitment and the bundles (`commit`, `request`, `unlearn --target match|misclassify`); the
auditor's library reads them, trains shadow models on its reference by the committed recipe and attacks with the suite
of the profile `indistinguishable`. Only the base and the control are trained here: the control is the base's architecture
and recipe without the forgotten records, put in the patched model's place under the same shadows and plan.

Records of all roles (trained, the owner's unseen ones, the auditor's reference) are one random draw from the whole
data file, official test part included, so that they are exchangeable before training: UCI HAR's own split is by
person, and there a difference would say nothing about membership. Without `--data` the digits of scikit-learn.

Three draws of forgotten records on one base, pooled (`auditor.membership.pool`): a statement about this base and
these draws. Intervals are of the AUC's difference from its class-matched control, at 95 %. A finished data set is
one line of the state file, under a digest of the settings; an interrupted study goes on with the next one.
"""

import argparse
import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from auditor import attacking
from auditor.evidence import Evidence
from auditor.execute import Program
from auditor.membership import MembershipAssessment, PooledAssessment, assess, pool
from auditor.profile import load_profile
from auditor.statistics.power import detectable_difference
from auditor.suite import settle
from owner.training import train
from protocol.digests import jcs_digest
from tests.benchmarks.redirection_study import UNSEEN, Data, Study, load, table
from tests.benchmarks.resuming import part

SETS = ("mnist", "fashion_mnist", "location30", "adult", "uci_har")
MODELS = ("base", "retrained", "match", "misclassify")
FOLDS = {"uci_har": 5}
"""Of the cross-fitted models that `match` takes its outputs from, where two are not enough: half of 2,999 records make
models that are less sure of themselves than the base, and outputs that lie further from the usual."""
SHOWN = ("loss", "lira-offline", "lira-offline-two-sided", "rmia")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what a data set's line says."""

    trained: int = 4_000
    reference: int = 1_500
    forgotten: int = 200
    draws: int = 3
    epochs: int = 30
    folds: int = 2
    seed: int = 2026

    def digest(self, name: str) -> str:
        return jcs_digest({"data": name, **{key: str(value) for key, value in asdict(self).items()}})


def drawn(data: Data, settings: Settings) -> Data:
    """The roles drawn anew from all records of the file, and a perceptron of two hidden layers."""
    X, y = np.concatenate([data.X, data.X_test]), np.concatenate([data.y, data.y_test])
    order = np.random.default_rng([settings.seed, 0]).permutation(len(y))
    others = UNSEEN + settings.reference
    count = min(settings.trained, (len(y) - UNSEEN) * 3 // 5)
    trained, rest = order[:count], order[count : count + others]
    return replace(data, X=X[trained], y=y[trained], X_test=X[rest], y_test=y[rest], hidden=(128, 64))


def one_draw(study: Study, settings: Settings, number: int, cache: Path) -> dict[str, MembershipAssessment]:
    """Every model's assessment for one draw of forgotten records."""
    found: dict[str, MembershipAssessment] = {}
    suite = settle(load_profile("indistinguishable").levels["membership"], None)
    for target in ("match", "misclassify"):
        bundle, _ = study.unlearn(settings.forgotten, "--target", target, seed=number)
        evidence: Evidence = replace(study.evidence(bundle), seed=settings.seed, shadow_cache=cache)
        # The folder of shadow models is keyed by what made them: they are trained once for all draws and targets.
        field = attacking.prepare(evidence, suite)
        base, patched = field.observe(*evidence.requested_records, field.spared)
        mask = np.arange(len(base.labels)) < len(evidence.requested_records[0])
        assert int(mask.sum()) == settings.forgotten

        def asked(observation: object, evidence: Evidence = evidence, mask: np.ndarray = mask) -> MembershipAssessment:
            return assess(observation, mask, suite.plan(), evidence.planned("membership"))  # type: ignore[arg-type]

        found[target] = asked(patched)
        if target == "match":
            schema = evidence.case.schema
            assert schema is not None
            rows = np.random.default_rng(number).permutation(len(study.data.y))[: settings.forgotten]
            kept = np.setdiff1d(np.arange(len(study.data.y)), rows)
            inputs = study.data.inputs.reshape(len(study.data.y), -1)
            without = train(
                study.graph, inputs, study.data.y, members=[kept], recipe=study.recipe,
                rng=np.random.default_rng([settings.seed, 1, number]),
            ).model(0)  # fmt: skip
            values = np.concatenate([evidence.requested_records[0], field.values[field.spared]])
            logits = Program(without)(schema.dequantise(values))
            found["base"], found["retrained"] = asked(base), asked(replace(base, logits=logits))
    return found


def _cell(pooled: PooledAssessment, attack: str, form: str) -> str:
    for one in pooled.comparisons:
        if (one.attack, one.form) == (attack, form):
            return f"{one.auc:.3f}, {one.value:+.3f} [{one.equivalence.low:+.3f}, {one.equivalence.high:+.3f}]"
    return "not available"


def _largest(pooled: PooledAssessment) -> str:
    """The largest upper bound of a required attack's |difference|, and the smallest difference that it would see."""
    plan = pooled.draws[0].plan
    required = [one for one in pooled.comparisons if one.attack in plan.required]
    if not required:
        return "none"
    worst = max(required, key=lambda one: one.equivalence.upper_bound)
    seen = detectable_difference(worst.standard_error, worst.freedom, level=plan.level / 2.0)
    return f"{worst.equivalence.upper_bound:.3f} ({worst.attack}, {worst.form}; sees {seen:.3f})"


def section(name: str, data: Data, settings: Settings) -> list[str]:
    """One data set's part of the table, as Markdown."""
    started = time.process_time()
    data = drawn(data, settings)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        study = Study(
            root, data, epochs=settings.epochs, folds=settings.folds, fold_epochs=settings.epochs,
            reference=settings.reference,
        )  # fmt: skip
        draws = [one_draw(study, settings, number, root / "shadows") for number in range(settings.draws)]
    pooled = {model: pool([one[model] for one in draws]) for model in MODELS}
    rows = [
        [f"{attack}, {form}", *(_cell(pooled[model], attack, form) for model in MODELS)]
        for attack in SHOWN
        for form in ("signed", "distance")
    ]
    rows.append(["largest 95 % bound, required", *(_largest(pooled[model]) for model in MODELS)])
    single = {model: [one[model].verdict for one in draws] for model in MODELS}
    rows.append(["verdict, pooled", *(pooled[model].verdict for model in MODELS)])
    rows.append(
        [
            "single draws",
            *(", ".join(f"{single[m].count(v)} {v}" for v in sorted(set(single[m]))) for m in MODELS),
        ]
    )
    for model in MODELS:
        print(f"# {name}, {model}: {pooled[model].reasons[0]}", flush=True)
    return [
        f"### {name}: {settings.draws} draws of {settings.forgotten} forgotten, {len(draws[0]['base'].records) - settings.forgotten} never seen",
        "",
        f"{len(data.y)} training records, perceptron {int(np.prod(data.inputs.shape[1:]))}-128-64-"
        f"{int(max(data.y.max(), data.y_test.max())) + 1}, {settings.epochs} epochs, {settings.folds} fold models, 32 shadow models, margin 0.10; "
        f"{time.process_time() - started:.0f} s of the processor.",
        "",
        *table(["AUC, difference [95 %]", *MODELS], rows),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the data folder; digits without it")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--state", type=Path, default=Path("attacks.jsonl"), help="finished data sets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings() if options.data is not None else Settings(forgotten=100, reference=500)
    names = options.sets.split(",") if options.data is not None else ["digits"]
    for name in names:
        own = replace(settings, folds=FOLDS.get(name, settings.folds))
        lines = part(
            options.state, own.digest(name), lambda name=name, own=own: section(name, load(name, options.data), own)
        )
        print("\n".join(lines), flush=True)
    print(
        f"One of {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"torch {torch.__version__}, seed {settings.seed}."
    )


if __name__ == "__main__":
    main()
