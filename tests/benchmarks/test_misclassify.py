"""A patch that misclassifies is what a one-sided test calls safe, and the audit refutes; a retrained model is not."""

from dataclasses import replace

from protocol.model.recipe import Recipe
from tests.benchmarks.misclassify_study import draw
from tests.demo.data import digits


def test_a_misclassifying_patch_is_refuted_and_its_retrained_control_is_not():
    whole = digits()
    parts = replace(
        whole, X_train=whole.X_train[:500], y_train=whole.y_train[:500],
        X_unseen=whole.X_unseen[:50], y_unseen=whole.y_unseen[:50],
    )  # fmt: skip
    found = draw(parts, 1, forgotten=60, reference=600, shadows=24, recipe=Recipe(epochs=15, batch=32))
    # Error budget: a fixed seed; over five seeds of the full study the two-sided AUC is .98 to 1 (RESULTS.md).
    assert found.two_sided("misclassify") >= 0.75
    assert found.one_sided("misclassify") <= 0.25
    assert found.found["misclassify"].verdict == "REFUTED"
    assert found.found["retrained"].verdict != "REFUTED"
