"""Does the audit see that a patch which misclassifies makes forgotten records stand out, where a one-sided test does not?

    python -m tests.benchmarks.misclassify_study [--data ../shared/data/mnist.npz] [--seeds 5]

The set-up of the measured table: one base for each seed, 100 forgotten records, 1,000 never-seen ones, 32 shadow
models, a local patch that misclassifies, made by the owner's own `prune` and composed by the auditor; beside it the
same architecture retrained without the forgotten records. The digits have fewer records: 100 against 600 with 16
shadow models, which is what the test runs. Figures: AUC of LiRA offline read one-sided (a high score is a member) and
read two-sided (unlikely on either side is a member), and the audit's verdict with its default plan.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from auditor import compose
from auditor.attacks.observation import Observation
from auditor.execute import Program
from auditor.membership import MembershipPlan, assess
from auditor.shadows import train_shadows
from owner.export import to_onnx
from owner.methods import prune
from owner.methods.job import Job
from owner.targets import Target
from owner.training import train
from owner.workspace import Workspace
from protocol.messages.request import Request, Scope
from protocol.model.recipe import Recipe
from tests.benchmarks.match_study import mnist
from tests.demo.__main__ import START, Demo
from tests.demo.data import Parts, digits
from tests.demo.world import Clock, World
