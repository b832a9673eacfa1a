"""Lets every trusted key sign every message, in every log (SPEC 6.3, 6.4)."""

import dataclasses

from protocol.trust import Trust
from tests.conformance.broken import start

FAILS = ("receipt/auditor-signs-the-certificate", "receipt/owner-signs-the-report", "receipt/report-in-the-owners-log")


def patch(put):
    real = Trust.verify

    def verify(self, envelope, *, role, origin, witnessed, where="envelope"):
        everybody = dataclasses.replace(
            self,
            signers=tuple(
                {s.key.public: dataclasses.replace(s, role=role, logs=(origin,)) for s in self.signers}.values()
            ),
        )
        return real(everybody, envelope, role=role, origin=origin, witnessed=witnessed, where=where)

    put(Trust, "verify", verify)


if __name__ == "__main__":
    start(patch)
