"""Counts signatures for a threshold, not different keys (SPEC 6.1)."""

from protocol import envelope as dsse
from protocol.errors import BadSignature, UnknownKey
from protocol.trust import Trust
from tests.conformance.broken import start

FAILS = ("receipt/same-key-threshold",)


def patch(put):
    def verify(self, envelope, *, role, origin, witnessed, where="envelope"):
        message = dsse.pae(envelope.payload_type, envelope.payload)
        found = []
        for signature in envelope.signatures:
            for signer in self.signers:
                if signer.role == role and origin in signer.logs:
                    try:
                        signer.key.verify(signature.value, message)
                    except BadSignature:
                        continue
                    signer.check_time(witnessed, where)
                    found.append(signer)
        if len(found) < self.thresholds[role]:
            raise UnknownKey("too few", where=where)
        return tuple(found)

    put(Trust, "verify", verify)


if __name__ == "__main__":
    start(patch)
