"""A signer for the protocol of SPEC 4.6, as somebody would write it for a token: one call, one line each way.

python reference_signer.py KEYFILE [honest|refuse|other|silent|garbage|two|dies]
"""

import base64
import json
import sys
import time
from pathlib import Path

from protocol.keys import SigningKey, parse_skey


def main(path, mode):
    key = parse_skey(Path(path).read_bytes())
    request = json.loads(sys.stdin.readline())
    assert request["version"] == "prune-audit/signer/v1"
    if mode == "silent":
        time.sleep(60)
    if mode == "dies":
        sys.exit(7)
    if mode == "garbage":
        print("hello")
        return
    if mode == "refuse" or (request["name"], request["type"]) != (key.name, key.use):
        print(json.dumps({"error": "not this time"}))
        return
    if request["call"] == "public-key":
        answer = {"publicKey": base64.b64encode(key.verifier.public).decode()}
    else:
        if mode == "other":
            key = SigningKey(name=key.name, use=key.use, seed=bytes(32))
        answer = {"signature": base64.b64encode(key.sign(base64.b64decode(request["message"]))).decode()}
    print(json.dumps(answer))
    if mode == "two":
        print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "honest")
