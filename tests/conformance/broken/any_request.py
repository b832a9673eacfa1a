"""Does not ask whether certificate, request and commitment are about each other (SPEC 14.2, step 5)."""

import dataclasses

from auditor import receipts
from protocol import messages as real
from protocol.messages.certificate import Certificate
from tests.conformance.broken import start

FAILS = (
    "receipt/certificate-answers-another-request",
    "receipt/certificate-of-another-commitment",
    "receipt/request-about-another-commitment",
)


def patch(put):
    class Anything(str):
        __slots__ = ()

        def __eq__(self, other):
            return True

        def __ne__(self, other):
            return False

        __hash__ = str.__hash__

    class All(tuple):
        __slots__ = ()

        def __contains__(self, _):
            return True

    class Obedient:
        @staticmethod
        def read(data, kind, *, where=""):
            envelope, message = real.read(data, kind, where=where)
            if kind is Certificate:
                message = dataclasses.replace(message, requests=All(), commitment=Anything())
            elif kind.__name__ == "Request":
                message = dataclasses.replace(message, subject=Anything())
            return envelope, message

    put(receipts, "messages", Obedient)


if __name__ == "__main__":
    start(patch)
