"""Accepts a checkpoint that too few witnesses cosigned (SPEC 5.6, 6.4)."""

import dataclasses

from protocol.log.policy import Policy
from tests.conformance.broken import start

FAILS = ("receipt/no-quorum", "receipt/one-of-three", "report/no-quorum")


def patch(put):
    real = Policy.verify_checkpoint

    def verify(self, data, *, origin=None):
        found = real(self, data, origin=origin)
        return dataclasses.replace(found, quorum_met=True)

    put(Policy, "verify_checkpoint", verify)


if __name__ == "__main__":
    start(patch)
