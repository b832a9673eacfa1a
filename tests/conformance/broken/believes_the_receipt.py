"""Takes the receipt's verdict without looking at the report's (SPEC 14.2, step 4)."""

import dataclasses

from auditor import receipts
from protocol import messages as real
from protocol.messages.report import Receipt, Report
from tests.conformance.broken import start

FAILS = ("receipt/better-verdict", "receipt/findings-left-out", "receipt/another-profile")


def patch(put):
    class Obedient:
        said = None

        @classmethod
        def read(cls, data, kind, *, where=""):
            envelope, message = real.read(data, kind, where=where)
            if kind is Receipt:
                cls.said = message
            if kind is Report:
                said = cls.said
                message = dataclasses.replace(
                    message,
                    verdict=said.verdict,
                    findings=said.findings,
                    profile=said.profile,
                    certificate=said.certificate,
                )
            return envelope, message

    put(receipts, "messages", Obedient)


if __name__ == "__main__":
    start(patch)
