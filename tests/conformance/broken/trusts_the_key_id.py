"""Believes the key id that stands beside a signature, instead of verifying it with that key (SPEC 6.1)."""

from protocol import envelope as dsse
from protocol.errors import UnknownKey
from tests.conformance.broken import start

FAILS = ("receipt/stranger-report", "receipt/forged-certificate")


def patch(put):
    def verify(envelope, keys, *, threshold=1, where="envelope"):
        named = {signature.keyid for signature in envelope.signatures}
        found = tuple(key for key in keys if f"{key.name}+{key.key_id.hex()}" in named)
        if not found:
            raise UnknownKey("nobody that is known", where=where)
        return found

    put(dsse, "verify", verify)


if __name__ == "__main__":
    start(patch)
