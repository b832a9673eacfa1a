"""The figures of one cell, from the deployed file run by onnxruntime, and from the signed report's summary.

Nothing here knows how a method works: accuracies come from `patched.onnx`, everything else from `summary.json` and sizes of
files.
"""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from auditor.attacks.lira import LiraOffline
from auditor.attacks.observation import Observation, Scores, view
from auditor.shadows import train_shadows
from protocol.model import profile
from tests.benchmarks.table.flow import PROFILES, Flow, Made

RATES = {
    "A1": ("confidence", "loss", "entropy", "modified-entropy"),
    "LiRA": ("lira-offline", "lira-offline-two-sided"),
    "RMIA": ("rmia",),
}
"""Attacks whose true-positive rates stand in one column."""
_REPEATS = 31


def session(path: Any) -> onnxruntime.InferenceSession:
    """A session with one thread: other worlds may run beside it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _share(session_: onnxruntime.InferenceSession, x: np.ndarray, y: np.ndarray) -> float | None:
    if not len(y):
        return None
    shown = session_.run(None, {session_.get_inputs()[0].name: x})[0].argmax(axis=1)
    return float((shown == y).mean())


def _overhead(base: onnxruntime.InferenceSession, patched: onnxruntime.InferenceSession, x: np.ndarray) -> float:
    # Turn by turn, so that what else the machine does falls on both.
    ratios = []
    name = base.get_inputs()[0].name
    for _ in range(_REPEATS):
        times = []
        for one in (base, patched):
            started = time.perf_counter()
            one.run(None, {name: x})
            times.append(time.perf_counter() - started)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios)


def _membership(summary: Mapping[str, Any]) -> dict[str, Any]:
    found = summary["figures"].get("membership", {})
    if not found:
        return {"reason": summary["checks"]["membership"]["summary"]}
    strongest = max(found, key=lambda name: abs(found[name]["difference"]))
    rates: dict[str, dict[str, float]] = {}
    for name, attacks in RATES.items():
        for tail in ("high", "low"):
            seen = [
                rate["rate"]
                for attack in attacks
                for form in ("signed", "distance")
                if isinstance(
                    rate := found.get(f"{attack}.{form}", {}).get("rates", {}).get(f"{tail} tail at 0.01"), dict
                )
            ]
            if seen:
                rates.setdefault(name, {})[tail] = max(seen)
    return {
        "strongest": strongest,
        "difference": abs(found[strongest]["difference"]),
        "bound": max(one["bound"] for one in found.values()),
        "tpr": rates,
    }


def _bytes(bundle: Path) -> int:
    return sum((bundle / name).stat().st_size for name in ("patch.json", "patch.safetensors"))


def _step(base: onnxruntime.InferenceSession, step: Mapping[str, Any], x: np.ndarray) -> dict[str, Any]:
    """What is shown after one of several requests."""
    summary, bundle = step["summary"], step["bundle"]
    return {
        **{name: step[name] for name in ("request", "seconds", "parts", "items", "dropped")},
        "bytes": _bytes(bundle),
        "overhead": _overhead(base, session(bundle / "patched.onnx"), x),
        "radius": summary["figures"].get("certified_radius"),
        "membership": _membership(summary),
        "verdict": summary["verdict"],
        "findings": sorted({finding["threat"] for finding in summary["findings"]}),
    }


def single_z(flow: Flow, bundle: Path) -> dict[str, float] | None:
    """How far a single forgotten record's confidence lies from what models without it give, in standard deviations.

    The auditor's own shadow models, view and offline LiRA, with the audit's settings; None if the record is in the
    reference as well, or LiRA could not be run.
    """
    roles = flow.roles
    own, reference = flow.inputs(roles.X[roles.forget]), flow.inputs(roles.X_reference)
    if (reference.reshape(len(reference), -1) == own.reshape(1, -1)).all(axis=1).any():
        return None
    labels = roles.y_reference.astype(np.int64)
    where: dict[str, Any] = {} if flow.device == "cpu" else {"device": flow.device}
    shadows = train_shadows(
        profile.parse((flow.root / "base.onnx").read_bytes()), reference, labels, recipe=flow.recipe, seed=flow.seed,
        count=flow.size.shadows, cache=flow.cache / "shadows", **where,
    )  # fmt: skip
    together, forget = np.concatenate([own, reference]), np.arange(1 + len(reference)) < 1
    found = {}
    for name, path in (("base", flow.root / "base.onnx"), ("patched", bundle / "patched.onnx")):
        one = session(path)
        observed = Observation(
            logits=one.run(None, {one.get_inputs()[0].name: together})[0],
            labels=np.concatenate([roles.y[roles.forget], labels]).astype(np.int64),
            shadow_logits=shadows.logits(together),
            out=np.concatenate([np.ones((len(shadows.out), 1), bool), shadows.out], axis=1),
            features=together.reshape(len(together), -1),
        )
        scores = LiraOffline()(view(observed, forget, np.random.default_rng(flow.seed)))
        if not isinstance(scores, Scores):
            return None
        found[name] = float(scores.values[0])
    return found


def measure(flow: Flow, made: Made) -> dict[str, Any]:
    """Everything that the table shows of one method in one world."""
    roles = flow.roles
    base, patched = session(flow.root / "base.onnx"), session(made.bundle / "patched.onnx")
    gone = np.zeros(len(roles.y), dtype=bool)
    gone[roles.forget] = True
    known = roles.y_reference != roles.klass if roles.klass is not None else np.ones(len(roles.y_reference), bool)
    x, x_reference = flow.inputs(roles.X), flow.inputs(roles.X_reference[known])
    y_reference = roles.y_reference[known]
    accuracy = {
        name: {
            "forget": _share(one, x[gone], roles.y[gone]),
            "retain": _share(one, x[~gone], roles.y[~gone]),
            "test": _share(one, x_reference, y_reference),
        }
        for name, one in (("base", base), ("patched", patched))
    }
    backdoor = None
    if roles.X_triggered is not None:
        stamped = flow.inputs(roles.X_triggered)
        backdoor = {
            name: _share(one, stamped, np.zeros(len(stamped), np.int64))
            for name, one in (("base", base), ("patched", patched))
        }
    last = made.summaries[PROFILES[-1]] if PROFILES[-1] in made.summaries else next(iter(made.summaries.values()))
    checks, figures = last["checks"], last["figures"]
    return {
        "accuracy": accuracy,
        "backdoor": backdoor,
        "seconds": made.seconds,
        "training": flow.training,
        "committing": flow.committing,
        "memory": made.memory,
        "device": flow.device,
        "bytes": _bytes(made.bundle),
        "overhead": _overhead(base, patched, x_reference[:64]),
        "membership": _membership(last),
        "z": single_z(flow, made.bundle) if len(roles.forget) == 1 else None,
        "properties": {name: one.get("value") for name, one in figures.get("properties", {}).items()},
        "radius": figures.get("certified_radius"),
        "claims": checks["redirection"]["evidence"].get("claims"),
        "persistence": checks["persistence"]["evidence"].get("share"),
        "rebuilt": checks["disclosure"]["evidence"].get("ratio"),
        "verdicts": {name: summary["verdict"] for name, summary in made.summaries.items()},
        "findings": {
            name: sorted({finding["threat"] for finding in summary["findings"]})
            for name, summary in made.summaries.items()
        },
        "notes": list(made.notes),
        "steps": [_step(base, one, x_reference[:64]) for one in made.steps],
        "times": list(made.times),
    }
