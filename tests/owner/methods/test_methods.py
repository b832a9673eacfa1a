"""Every method end to end on the tiny world: a bundle that is signed, and a model that does what the method aims at."""

import numpy as np
import pytest
import torch

from owner.execute import Program
from owner.methods.instance_wise import hinge
from owner.methods.registry import METHODS
from protocol import claims as claim_lines
from protocol import messages
from protocol.claims import ClassRemoval, NoRedirection, Redirection
from protocol.messages.certificate import Certificate
from protocol.model import patch as patch_file
from protocol.model import profile
from protocol.model.operators import PATCHED
from protocol.model.profile import DEPLOYED
from tests.owner.tiny import one_line, records

TRAINING = ("retrain", "fine-tune", "gradient-ascent", "distribution-matching", "instance-wise")
AIM = {
    "instance-wise": ("--target", "misclassify", "--set", "steps=150"),
    "deny-list": ("--target", "misclassify"),
    "prune-paper": ("--target", "misclassify"),
}
_WIDE = [
    word for pair in ("steps=1000", "room=40", "strain=1", "keep=0", "adv=0", "imp=false") for word in ("--set", pair)
]
_BRISK = ("--set", "steps=1500", "--set", "strain=0.05", "--set", "growth=1.2")


def bundle_of(tiny, method, *options, request=None):
    ran = tiny.unlearn("--method", method, "--beside", *AIM.get(method, ()), *options, request=request)
    assert ran.code == 0, ran.err
    return tiny.root / "bundle"


def many(tiny):
    request = tiny.root / "many.json"
    rows = sorted(np.random.default_rng(1).choice(60, 25, replace=False).tolist())
    assert tiny.ask("--records", ",".join(map(str, rows)), out=request).code == 0
    return request


def read(bundle):
    patch = patch_file.parse((bundle / "patch.json").read_bytes(), (bundle / "patch.safetensors").read_bytes())
    lines = (bundle / "claims.jsonl").read_bytes().splitlines()
    graph = profile.parse((bundle / "patched.onnx").read_bytes(), operators=PATCHED, limits=DEPLOYED)
    return patch, tuple(claim_lines.parse_claim(line) for line in lines), graph


def certificate(bundle):
    return messages.read((bundle / "certificate.dsse.json").read_bytes(), Certificate)[1]


# In the tiny world no record has a linear region to itself; `test_prune_paper` has one of its own.
@pytest.mark.parametrize("method", [method for method in METHODS if method != "prune-paper"])
def test_every_method_answers_a_request(tiny, method):
    bundle = bundle_of(tiny, method, request=many(tiny))
    patch, claims, _ = read(bundle)
    found = certificate(bundle)
    assert found.method == method
    assert len(claims) == found.claim_count == 25
    assert bool(patch.weights) == (method in TRAINING)
    assert found.inert_outside_supports == (method not in TRAINING)
    if method in ("retrain", "fine-tune", "gradient-ascent", "distribution-matching"):
        assert all(isinstance(claim, NoRedirection) for claim in claims)


@pytest.mark.parametrize("method", TRAINING)
def test_the_same_seed_gives_the_same_model(tiny, method):
    request = many(tiny)  # of three records' predictions the base's may well match unseen data's already
    first = read(bundle_of(tiny, method, "--seed", "4", request=request))[0]
    again = read(bundle_of(tiny, method, "--seed", "4", "--force", request=request))[0]
    assert first == again


@pytest.mark.parametrize("method", TRAINING)
def test_a_removed_class_has_a_cap(tiny, method):
    request = tiny.root / "class.json"
    assert tiny.ask("--class", "1", out=request).code == 0
    options = ("--target", "relabel:0", "--set", "steps=100") if method == "instance-wise" else ()
    _, claims, graph = read(bundle_of(tiny, method, *options, request=request))
    assert [type(claim) for claim in claims] == [ClassRemoval]
    X, _ = records(200, 9)
    shown = Program(graph)((X.reshape(200, -1) / 16).astype(np.float32).reshape(200, *graph.input_shape))
    assert (shown.argmax(axis=1) != 1).all()


def test_instance_wise_does_what_it_aims_at(tiny):
    X, y = records(60, 5)
    rows = [3, 17, 40]
    inputs = X[rows].astype(np.float32)  # as the tiny world's schema reads them
    # A wide lead, for interval bounds to prove; nothing holds on to the rest.
    _, claims, graph = read(bundle_of(tiny, "instance-wise", "--radius", "0steps", *_WIDE))
    shown = Program(graph)(inputs.reshape(3, *graph.input_shape)).argmax(axis=1)
    assert (shown != y[rows]).all()
    held = [claim for claim in claims if isinstance(claim, Redirection)]
    assert held, "small perceptrons are within reach of interval bounds"
    assert {claim.gate for claim in held} == {"none"}
    assert {claim.property.klass for claim in held} <= set(shown.tolist())
    _, _, graph = read(bundle_of(tiny, "instance-wise", "--force", "--target", "relabel:2", *_BRISK))
    shown = Program(graph)(inputs.reshape(3, *graph.input_shape)).argmax(axis=1)
    assert (shown == 2).all()


def test_instance_wise_keeps_the_rest_by_records_to_keep(tiny):
    X, y = records(60, 5)
    rest = np.delete(np.arange(60), [3, 17, 40])
    shares = []
    for keep in ("256", "0"):
        _, _, graph = read(bundle_of(tiny, "instance-wise", "--force", "--set", f"keep={keep}", *_BRISK))
        shown = Program(graph)(X.astype(np.float32).reshape(60, *graph.input_shape)).argmax(axis=1)
        assert (shown[[3, 17, 40]] != y[[3, 17, 40]]).all()
        shares.append((shown == y)[rest].mean())
    assert shares[0] > shares[1] + 0.2, shares


def test_the_hinge_is_nothing_once_another_class_leads():
    logits = torch.tensor([[4.0, 1.0, 0.0], [1.0, 4.0, 0.0], [1.0, 1.2, 0.0]])
    labels = torch.tensor([0, 0, 0])
    assert hinge(logits, labels, away=True, room=0.5).tolist() == pytest.approx([3.5, 0, 0.3])
    assert hinge(logits, labels, away=False, room=0.5).tolist() == pytest.approx([0, 3.5, 0.7])


def test_a_deny_list_is_an_exact_match(tiny):
    patch, claims, _ = read(bundle_of(tiny, "deny-list"))
    (part,) = patch.parts
    assert (part.gate.matrix == np.eye(16)).all()
    assert {claim.region.radius for claim in claims} == {0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "prune", "--set", "x=1"), "prune has no --set"),
        (("--method", "fine-tune", "--set", "epoch=1"), "settings are epochs (5)"),
        (("--method", "fine-tune", "--set", "epochs=many"), "not a value like 5"),
        (("--method", "fine-tune", "--set", "epochs=0"), "epochs from 1"),
        (("--method", "fine-tune", "--set", "epochs"), "NAME=VALUE"),
        (("--method", "retrain", "--set", "rate=1"), "settings are none"),
        (("--method", "gradient-ascent", "--set", "weight=1"), "between 0 and 1"),
        (("--method", "distribution-matching", "--set", "batch=1"), "batch at least 2"),
        (("--method", "instance-wise", "--set", "imp=maybe"), "not a value like True"),
        (("--method", "instance-wise", "--set", "decay=11"), "decay"),
        (("--method", "instance-wise", "--set", "form=other"), "hinge or negated"),
        (("--method", "instance-wise"), "misclassify or relabel"),
        (("--method", "instance-wise", "--target", "relabel:7"), "classes are numbered 0 to 2"),
    ],
)
def test_refusals_say_what_to_do(tiny, options, words):
    before = tiny.entries()
    ran = tiny.unlearn(*options)
    one_line(ran, 2, words)
    assert tiny.entries() == before
