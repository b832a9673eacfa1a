"""The receipt page: one static HTML file with which a data subject checks a receipt in a browser, offline.

Trust file and policy are baked in; the page implements SPEC 14 itself (the `.mjs` files beside this one, which the
second auditor under `tests/conformance` shares). What it proves is what `verify-receipt` proves. It assumes that the
reader got the page, or at least the fingerprints in it, from somebody whom the reader trusts. Its content security
policy allows exactly this script and this style and no connection, so a dropped file cannot leave the device.

The page depends on nothing but its two inputs: the same trust file and policy give the same bytes.
"""

import base64
import hashlib
import json
import re
from importlib import resources

from protocol import trust as trust_file
from protocol.digests import sha256_hex
from protocol.keys import VerifierKey
from protocol.log import policy as policy_file

# In the order in which each uses only names of those before it.
MODULES = ("bytes", "ed25519", "mldsa44", "json", "merkle", "notes", "messages", "slip", "receipt", "page")

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./[a-z0-9]+\.mjs";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|function|class) (?:(\w+)|\[([^\]]*)\]))", re.MULTILINE)


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _scoped(source: str) -> str:
    """A module as one statement that declares nothing but what the module exports."""
    exports = ", ".join(single or several for single, several in _EXPORT.findall(source))
    body = _EXPORT.sub("", _IMPORT.sub("", source))
    return f"const {{ {exports} }} = (() => {{\n{body}return {{ {exports} }};\n}})();\n"


def script() -> str:
    """All modules as one script, for a page that can fetch nothing; two exports of one name would not even parse."""
    return "\n" + "\n".join(_scoped(_part(f"{name}.mjs")) for name in MODULES)


def _source(text: str) -> str:
    """A text as a source of a content security policy (CSP 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def build(*, policy: bytes, trust: bytes) -> bytes:
    """The page for readers who trust what these two files list.

    Args:
        policy: The exact bytes of `policy.txt`.
        trust: The exact bytes of `trust.json`.

    Returns:
        One self-contained HTML file.

    Raises:
        MalformedError: If one of the files is not what SPEC 5.6 or 6.3 says.
    """
    policy_file.parse(policy)
    trust_file.parse(trust)
    code, style = script(), _part("page.css")
    trusted = json.dumps({"policy": base64.b64encode(policy).decode(), "trust": base64.b64encode(trust).decode()})
    rules = (
        "default-src 'none'",
        f"script-src {_source(code)}",
        f"style-src {_source(style)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    )
    page = _part("page.html")
    for name, text in {"policy": "; ".join(rules), "style": style, "trusted": trusted, "script": code}.items():
        page = page.replace(f"@{name}@", text, 1)
    return page.encode()


def fingerprints(*, policy: bytes, trust: bytes) -> list[str]:
    """What the page shows of each key, one line each, for telling people by another way."""
    logs, signers = policy_file.parse(policy), trust_file.parse(trust)
    named: list[tuple[str, VerifierKey]] = [(signer.role, signer.key) for signer in signers.signers]
    named += [("log", entry.key) for entry in logs.logs] + [("witness", entry.key) for entry in logs.witnesses]
    return [f"{role} {key.name}, key id {key.key_id.hex()}: {sha256_hex(key.public)}" for role, key in named]
