"""The receipt page: what is in the file, and what a person sees in a real headless Chromium, by keyboard, drop and thumb."""

import base64
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from auditor import page
from auditor.ledger import Ledger, leaf_of, sign
from protocol import envelope, trust
from protocol import statement as intoto
from protocol.digests import sha256_hex
from protocol.errors import MalformedError
from protocol.keys import generate, load_signing_key
from protocol.messages.report import CheckLine, FindingLine, Receipt, Report
from protocol.receipt_file import parse as parse_receipt
from tests.demo.world import run
from tests.peers import ABSENT, HERE, MODULES, node

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


def test_the_page_is_self_contained_and_always_the_same(small_demo):
    policy, signers = small_demo.world.policy.read_bytes(), small_demo.world.trust.read_bytes()
    data = page.build(policy=policy, trust=signers)
    assert data == page.build(policy=policy, trust=signers)
    text = data.decode()
    assert len(data) < 200_000
    rules = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in rules
    assert "unsafe" not in rules
    code = re.search(r'<script type="module">(.*?)</script>', text, re.DOTALL)[1]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert page._source(code) in rules
    assert page._source(style) in rules
    assert "<!--" not in code
    assert not re.search(r"^import |^export ", code, re.MULTILINE)
    assert not re.search(r'\b(?:src|href)="(?!data:,)', text)
    assert not re.search(r"<[a-z]+[^>]* (?:on[a-z]+|style)=", text.replace(code, ""))
    assert not re.search(r"\binnerHTML\b|\beval\b|\bfetch\b|\bXMLHttpRequest\b|localStorage", code)
    baked = json.loads(re.search(r'<script type="application/json" id="trusted">(.*?)</script>', text)[1])
    assert base64.b64decode(baked["policy"]) == policy
    assert base64.b64decode(baked["trust"]) == signers


def test_the_command(small_demo, tmp_path):
    world = small_demo.world
    given = ["receipt-page", *world.trusted(), "--out", tmp_path / "receipt.html"]
    ran = run("prune-auditor", *given, "--json")
    assert ran.code == 0, ran.err
    owner = load_signing_key(world.key("owner")).verifier
    assert f"owner owner, key id {owner.key_id.hex()}: {sha256_hex(owner.public)}" in ran.json["fingerprints"]
    assert len(ran.json["fingerprints"]) == 8
    assert (tmp_path / "receipt.html").read_bytes() == page.build(
        policy=world.policy.read_bytes(), trust=world.trust.read_bytes()
    )
    again = run("prune-auditor", *given)
    assert again.code == 2
    assert "--force" in again.err
    (tmp_path / "policy.txt").write_text("quorum nobody\n")
    broken = run("prune-auditor", "receipt-page", "--policy", tmp_path / "policy.txt", "--trust", world.trust)
    assert broken.code == 4
    with pytest.raises(MalformedError):
        page.build(policy=b"quorum none\n", trust=b"{}")


# --- in the browser --------------------------------------------------------------------------------


def spelled(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def refuted(small_demo, folder):
    """A receipt that says REFUTED, signed and logged by the world's auditor, in a copy of the world."""
    world = replace(small_demo.world, root=folder / "refuted-world")
    shutil.copytree(small_demo.world.root, world.root)
    file = parse_receipt((world.root / "honest" / "report" / "receipts" / "000.receipt").read_bytes())
    key, ledger = load_signing_key(world.key("auditor")), Ledger(log=world.auditor_log)
    report = Report.parse(intoto.parse(envelope.parse(file.envelopes["report"]).payload))
    receipt = Receipt.parse(intoto.parse(envelope.parse(file.envelopes["receipt"]).payload))
    found = (FindingLine(threat="base-swap", check="binding"),)
    checks = tuple(
        CheckLine(check=c.check, required=c.required, verdict="REFUTED" if c.check == "binding" else c.verdict)
        for c in report.checks
    )
    signed = sign(replace(report, checks=checks, verdict="REFUTED", findings=found).payload(), key)
    proofs = {"report": ledger.append(signed)}
    about = replace(receipt, report=leaf_of(signed), subject=sha256_hex(signed), verdict="REFUTED", findings=found)
    own = sign(about.payload(), key)
    proofs["receipt"] = ledger.append(own)
    world.witness(world.auditor_log)
    proofs = {name: ledger.refreshed(proof) for name, proof in proofs.items()}
    return replace(
        file, envelopes={**file.envelopes, "report": signed, "receipt": own}, proofs={**file.proofs, **proofs}
    ).to_bytes()


@pytest.fixture(scope="module")
def seen(small_demo, tmp_path_factory):
    """All cases in one run of the browser: starting it costs more than the cases."""
    if CHROMIUM is None or not (MODULES / "playwright-core").is_dir():
        pytest.skip(f"no chromium here (Debian: chromium), or no playwright-core: {ABSENT}")
    folder, world = tmp_path_factory.mktemp("page"), small_demo.world
    policy, signers = world.policy.read_bytes(), trust.parse(world.trust.read_bytes())
    (folder / "receipt.html").write_bytes(page.build(policy=policy, trust=world.trust.read_bytes()))
    # Names may hold anything but white space and +: markup in one has to stay text.
    nasty = generate("<img/src=x/onerror=window.ran=true></script><b>", use="statement").verifier
    hostile = trust.serialise(replace(signers, signers=(*signers.signers, replace(signers.signers[0], key=nasty))))
    (folder / "hostile.html").write_bytes(page.build(policy=policy, trust=hostile))
    rows = [int(row) for row in np.random.default_rng(3).choice(400, 40, replace=False)]
    other = next(row for row in range(400) if row not in rows)
    for name, row in (("own", rows[0]), ("other", other)):
        ran = run("prune-owner", "slip", "--commitment", world.root / "commitment", "--records", row,
                  "--out", folder / f"{name}.npz")  # fmt: skip
        assert ran.code == 0, ran.err
    good = (world.root / "honest" / "report" / "receipts" / "000.receipt").read_bytes()
    value = json.loads(good)
    claim = value["claims"][0]
    line = re.sub(rb'"radius":"[0-9]+"', b'"radius":"99"', base64.b64decode(claim["line"]))
    assert line != base64.b64decode(claim["line"])
    lines = base64.b64decode(value["proofs"]["report"]).split(b"\n")
    unseen = b"\n".join(text for text in lines if b"witness-" not in text)
    stranger = generate("auditor", use="statement")
    payload = envelope.parse(base64.b64decode(value["envelopes"]["receipt"])).payload
    forged = envelope.sign(payload, [stranger])
    files = {
        "good": good,
        "refuted": refuted(small_demo, folder),
        "claim": spelled(
            {**value, "claims": [{**claim, "line": base64.b64encode(line).decode()}, *value["claims"][1:]]}
        ),
        "quorum": spelled({**value, "proofs": {**value["proofs"], "report": base64.b64encode(unseen).decode()}}),
        "forged": spelled({**value, "envelopes": {**value["envelopes"], "receipt": base64.b64encode(forged).decode()}}),
        "spaced": json.dumps(value).encode(),
        "record": spelled({**value, "records": value["records"][1:], "claims": value["claims"]}),
        "junk": bytes(range(256)) * 40,
    }
    for name, data in files.items():
        (folder / f"{name}.receipt").write_bytes(data)

    def path(name):
        return str(folder / name)

    cases = [
        {"name": "keyboard", "receipt": path("good.receipt"), "slip": path("own.npz"), "axe": True, "attack": True},
        {"name": "narrow", "width": 360, "height": 740, "drop": [path("good.receipt"), path("own.npz")], "axe": True},
        {"name": "other slip", "receipt": path("good.receipt"), "slip": path("other.npz"), "dark": True, "axe": True},
        {"name": "slip first", "drop": [path("own.npz")], "receipt": path("good.receipt")},
        {"name": "only a slip", "drop": [path("own.npz")]},
        {"name": "refuted", "width": 360, "height": 740, "receipt": path("refuted.receipt"), "axe": True},
        {"name": "hostile", "page": path("hostile.html"), "drop": [path("good.receipt")]},
        {"name": "print", "print": True, "drop": [path("good.receipt")]},
        *({"name": name, "drop": [path(f"{name}.receipt")]} for name in files if name not in ("good", "refuted")),
    ]  # fmt: skip
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"chromium": CHROMIUM, "page": path("receipt.html"), "cases": cases}))
    ran = node(HERE / "browser.mjs", plan, timeout=240)
    assert ran.returncode == 0, ran.stderr[-3000:]
    results = json.loads(ran.stdout)
    for name, result in results.items():
        assert result["errors"] == [], name
        assert result["requests"] == [], name
        assert result["overflow"] == 0, name
        assert result.get("violations", []) == [], name
        assert result["heading"] is not None, name
        assert result["focused"], name
    return results


ALL_STEPS = ["file", "commitment", "request", "certificate", "report", "receipt", "links", "claims", "records", "slip"]


@pytest.mark.parametrize("case", ["keyboard", "narrow", "slip first"])
def test_a_good_receipt_with_its_slip(seen, case):
    result = seen[case]
    assert result["heading"] == "The receipt is genuine. It says CONSISTENT."
    assert result["tone"] == "consistent"
    assert result["steps"] == dict.fromkeys(ALL_STEPS, "held")
    assert "Your slip opens 1 of these records" in result["text"]
    assert "That the information is gone" in result["text"]
    assert "whose records" not in result["text"].lower()


def test_keys_are_shown_with_their_fingerprints(seen, small_demo):
    owner = load_signing_key(small_demo.world.key("owner")).verifier
    digest = sha256_hex(owner.public)
    [card] = [card for card in seen["keyboard"]["keys"] if card.startswith("owner ")]
    assert owner.key_id.hex() in card
    assert " ".join(digest[at : at + 4] for at in range(0, 64, 4)) in " ".join(card.split())
    assert len(seen["keyboard"]["keys"]) == 8
    assert "2 of 3 (witness-north; witness-south; witness-east)" in seen["keyboard"]["quorum"]
    assert sha256_hex(small_demo.world.trust.read_bytes()) in seen["keyboard"]["digests"]


def test_nothing_can_run_or_leave(seen):
    attack = seen["keyboard"]["attack"]
    assert attack["ran"] is False
    assert {"connect-src", "img-src", "form-action", "markup", "handler", "fetch"} <= set(attack["refused"])
    assert any("<img/src=x/onerror=window.ran=true></script><b>" in card for card in seen["hostile"]["keys"])
    assert seen["hostile"]["tone"] == "consistent"


def test_somebody_elses_slip(seen):
    result = seen["other slip"]
    assert result["heading"] == "The receipt is genuine, but this slip does not belong to it."
    assert result["tone"] == "unverified"
    assert result["steps"] == {**dict.fromkeys(ALL_STEPS, "held"), "slip": "failed"}
    assert result["background"] == "rgb(18, 23, 28)"


def test_only_a_slip(seen):
    assert "choose the receipt" in seen["only a slip"]["heading"]
    assert set(seen["only a slip"]["steps"].values()) == {"waiting"}


def test_a_receipt_that_refutes(seen):
    result = seen["refuted"]
    assert result["heading"] == "The receipt is genuine. It says REFUTED."
    assert result["tone"] == "refuted"
    assert "base-swap" in result["text"]
    assert "Whose records these are: no slip was given." in result["text"]
    assert result["steps"]["slip"] == "without"


@pytest.mark.parametrize(
    ("case", "step", "words"),
    [
        ("claim", "claims", "does not lead to the signed root"),
        ("quorum", "report", "quorum of witnesses has not cosigned"),
        ("forged", "receipt", ""),
        ("spaced", "file", "canonical spelling"),
        ("record", "claims", "a record that is not in this receipt"),
        ("junk", "file", ""),
    ],
)
def test_a_changed_receipt_is_never_genuine(seen, case, step, words):
    result = seen[case]
    assert result["heading"] == "This receipt is not verified."
    assert result["tone"] == "unverified"
    assert "CONSISTENT" not in result["text"]
    assert "accuses nobody" in result["text"]
    assert words in result["text"]
    place = ALL_STEPS.index(step)
    assert result["steps"][step] == "failed"
    assert [result["steps"][one] for one in ALL_STEPS[:place]] == ["held"] * place
    assert set(result["steps"][one] for one in ALL_STEPS[place + 1 :]) <= {"skipped", "without"}


def test_on_paper(seen):
    assert seen["print"]["background"] == "rgb(255, 255, 255)"
