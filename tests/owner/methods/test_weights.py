"""What is trained and what is shipped are one model, whatever an earlier certificate's weights were."""

import numpy as np
import pytest
import torch

from owner.execute import Program
from owner.methods.job import Job
from owner.methods.weights import Pace, Split, adjust, changed
from owner.network import Network, graph_with_parameters, parameters_of
from owner.targets import parse_target
from owner.workspace import Workspace
from protocol.errors import OwnerError
from tests.auditor.samples import conv_net


@pytest.mark.parametrize("steps", [0, 3])
def test_statistics_of_earlier_weights_are_kept(tiny, monkeypatch, steps):
    """Retraining moves a normalisation's averages; who trains on from there must not fall back to the base's."""
    base, random = conv_net(side=4), np.random.default_rng(0)
    averages = Network(base).averages
    moved = {name: parameters_of(base)[name] + np.float32(0.5) for name in averages}
    start = graph_with_parameters(base, moved)
    monkeypatch.setattr(Job, "start", property(lambda _job: start))
    job = Job(
        workspace=Workspace(folder=tiny.commitment), requests=(), target=parse_target("match"), radius=None,
        ceiling=1, generator=random,
    )  # fmt: skip
    inputs = random.normal(size=(7, *base.input_shape)).astype(np.float32)

    def loss(model, _parameters, _step):
        return model(torch.from_numpy(inputs)).square().mean()

    found, taken = adjust(job, loss, Pace(steps=steps, rate=0.01))
    assert taken == steps
    # Base and patch, as whoever gets the bundle composes them.
    shipped = graph_with_parameters(base, {weight.name: weight.values for weight in changed(base, found)})
    assert averages
    assert all((parameters_of(shipped)[name] == array).all() for name, array in moved.items())
    same = Program(shipped)(inputs).tobytes() == Program(start)(inputs).tobytes()
    assert same is (steps == 0)
    # From the base itself nothing but learned parameters change.
    monkeypatch.setattr(Job, "start", property(lambda _job: base))
    found, _ = adjust(job, loss, Pace(steps=1, rate=0.01))
    assert not {weight.name for weight in changed(base, found)} & set(averages)


def test_a_class_without_records_leaves_nothing_to_train_on(tiny):
    """A class of the model of which no record was committed may be removed; there are no batches of its records."""
    job = Job(
        workspace=Workspace(folder=tiny.commitment), requests=(), target=parse_target("match"), radius=None,
        ceiling=1, generator=np.random.default_rng(0),
    )  # fmt: skip
    with pytest.raises(OwnerError, match="nothing to train on"):
        Split.of(job)
