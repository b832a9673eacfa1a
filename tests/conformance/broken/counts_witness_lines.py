"""Counts cosignature lines, not witnesses (SPEC 5.6, step 3)."""

import dataclasses

from protocol.log import cosignature
from protocol.log.checkpoint import parse_signed
from protocol.log.policy import Policy
from tests.conformance.broken import start

FAILS = ("receipt/witness-counted-twice",)


def patch(put):
    real = Policy.verify_checkpoint

    def verify(self, data, *, origin=None):
        found = real(self, data, origin=origin)
        signed, _ = parse_signed(data)
        times = sorted(
            cosignature.verify(line, w.key, signed.text)
            for w in self.witnesses
            for line in signed.signatures
            if line.is_by(w.key)
        )
        if len(times) >= 2:
            return dataclasses.replace(found, quorum_met=True, time=times[1])
        return found

    put(Policy, "verify_checkpoint", verify)


if __name__ == "__main__":
    start(patch)
