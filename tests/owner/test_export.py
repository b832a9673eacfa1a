"""torch modules to model files in one call."""

import numpy as np
import pytest
import torch
from torch import nn

from owner.execute import Program
from owner.export import export_torch
from protocol.errors import OwnerError
from protocol.model.profile import DEPLOYED, parse, serialise


class Residual(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.other_norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        inner = torch.relu(self.norm(self.first(x)))
        return torch.relu(x + self.other_norm(self.second(inner)))


class Viewed(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(16, 3)

    def forward(self, x):
        return self.linear(self.drop((x * 2 - 0.5).view(x.size(0), -1)))


MODULES = {
    "perceptron": (nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)), (1, 4, 4)),
    "residual": (
        nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), Residual(), nn.AvgPool2d(2, padding=1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 3),
        ),
        (1, 8, 8),
    ),
    "viewed": (Viewed(), (4, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_the_file_gives_the_modules_logits(name):
    module, shape = MODULES[name]
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.running_mean)
    module.train()
    data = export_torch(module, shape, classes=3)
    assert module.training
    graph = parse(data, limits=DEPLOYED)
    assert serialise(graph) == data
    x = torch.randn(5, *shape)
    with torch.no_grad():
        wanted = module.eval()(x).numpy()
    # The same kernels in the same order, but for normalisation: a few units in the last place.
    assert np.abs(Program(graph)(x.numpy()) - wanted).max() <= 1e-5
    norms = sum(isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)) for part in module.modules())
    assert sum(node.op == "BatchNormalization" for node in graph.nodes) == norms


@pytest.mark.parametrize(
    ("module", "shape", "reason"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()), (4,), "Sigmoid"),
        (nn.LSTM(4, 3), (5, 4), "operator"),
        (nn.Linear(4, 2), (4,), "2 logits"),
        (nn.Linear(5, 3), (4,), "torch cannot export"),
    ],
)
def test_what_the_profile_does_not_have_is_refused(module, shape, reason):
    with pytest.raises(OwnerError, match=reason):
        export_torch(module, shape, classes=3)
