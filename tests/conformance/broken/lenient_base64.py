"""Decodes base64 as most libraries do: unused bits may be anything (SPEC 2.6)."""

import base64
import binascii

from protocol import receipt_file
from protocol.errors import Schema
from protocol.log import proof
from tests.conformance.broken import start

FAILS = ("receipt/proof-hash-spelling",)


def patch(put):
    def decode(text, *, where="", url_safe=False):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Schema("not base64", where=where) from None

    for module in (receipt_file, proof):
        put(module, "decode_base64", decode)


if __name__ == "__main__":
    start(patch)
