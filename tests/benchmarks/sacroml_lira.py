"""SACRO-ML's LiRA on the same data, run by `shadow_bench` in an environment of its own (`make sacroml`).

    .venv-sacroml/bin/python tests/benchmarks/sacroml_lira.py target DATA.npz OUT.npz
    .venv-sacroml/bin/python tests/benchmarks/sacroml_lira.py attack DATA.npz OUT.npz SHADOWS

`target` trains the attacked model, scikit-learn's perceptron, and writes its probabilities: both sides attack this one.
`attack` times the attack alone: no imports, no training of the target, no report. Imports nothing of prune-audit.
"""

import json
import logging
import pickle
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sacroml.attacks.likelihood_attack import LIRAAttack
from sacroml.attacks.target import Target
from sklearn.neural_network import MLPClassifier


def perceptron(epochs: int) -> MLPClassifier:
    """100-256-10 for a fixed number of epochs of batches of 64, Adam at 0.001, no decay, no early stop."""
    return MLPClassifier(
        (256,), solver="adam", alpha=0.0, batch_size=64, learning_rate_init=1e-3, max_iter=epochs, tol=0.0,
        n_iter_no_change=epochs + 1, random_state=0,
    )  # fmt: skip


def main() -> None:
    """Do what the command line says."""
    warnings.simplefilter("ignore")  # scikit-learn warns that the fixed number of epochs is over
    logging.disable(logging.CRITICAL)
    what, data, out = sys.argv[1:4]
    with np.load(data) as archive:
        x, y, member, epochs = archive["x"], archive["y"], archive["member"], int(archive["epochs"])
    if what == "target":
        model = perceptron(epochs).fit(x[member], y[member])
        np.savez(out, probabilities=model.predict_proba(x))
        with Path(out + ".model").open("wb") as file:
            pickle.dump(model, file)
        return
    with Path(data).with_name("target.npz.model").open("rb") as file:
        model = pickle.load(file)
    with tempfile.TemporaryDirectory() as folder:
        target = Target(
            model=model, dataset_name="bench", X_train=x[member], y_train=y[member], X_test=x[~member],
            y_test=y[~member],
        )  # fmt: skip
        found = {}
        for mode in ("offline", "offline-carlini", "online-carlini"):
            # The first mode trains the shadow models, the others take them from its folder and are not timed.
            attack = LIRAAttack(output_dir=folder, write_report=False, n_shadow_models=int(sys.argv[4]), mode=mode)
            wall, cpu = time.perf_counter(), time.process_time()
            attack.attack(target)
            if mode == "offline":
                spent = time.perf_counter() - wall, time.process_time() - cpu
            found[mode] = float(attack.attack_metrics[0]["AUC"])
    Path(out).write_text(json.dumps({"wall": spent[0], "cpu": spent[1], "auc": found, "version": version("sacroml")}))


if __name__ == "__main__":
    main()
