"""Every attack of the catalogue through the audit itself: plan, verdict, report, files, replay; what a plan may say."""

import json
import sys
from dataclasses import replace

import pytest
import yaml

from auditor import audit, membership_pages, verify
from auditor.attacks.catalogue import ATTACKS, ENTRIES, PROPERTIES, defaults, read_settings
from auditor.checks import membership
from auditor.engine import Engine
from auditor.profile import load_profile, parse_plan, parse_profile, plan_template
from auditor.suite import settle
from protocol.errors import AuditorError, MalformedError

PROFILE = b"""version: prune-audit/profile/v1
name: everything
required: [binding, membership]
levels:
  membership:
    margin: 0.3
    shadows: 8
    attacks: [loss, lira-offline, rmia]
    required_attacks: [loss]
    property_limits: {gate-probe: {at_most: 1.0}}
"""
# Somebody's method that forgets nothing: it hands the shadow model back.
METHOD = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"
SMALL = {
    "near-duplicates": {"copies": 2},
    "boundary-distance": {"directions": 1, "scan": 3, "halvings": 2},
    "quantile-regression": {"kind": "trees", "rounds": 5, "depth": 2},
    "rerun": {
        "command": f'{sys.executable} -c "{METHOD}" {{base}} {{out}} {{train}} {{forget}}',
        "shadows": 8,
        "never_seen": 160,
    },
    "patch-read": {"steps": 10},
    "gate-probe": {"walks": 1},
}


def everything(profile, **changes):
    plan = yaml.safe_load(plan_template(parse_profile(profile), seed=3))
    plan["openings"] = 60
    plan["membership"]["attacks"] = {name: SMALL.get(name) for name in ATTACKS}
    plan["membership"]["properties"] = {name: SMALL.get(name) for name in PROPERTIES}
    plan["membership"] |= changes
    return yaml.safe_dump(plan, sort_keys=False).encode()


@pytest.fixture(scope="module")
def audited(workshop, tmp_path_factory):
    """An audit under a plan that names every attack there is, shadows trained by two processes; its report."""
    (workshop.root / "plan-everything.yaml").write_bytes(everything(PROFILE))
    forged = workshop.forge(plan="everything")
    inputs = workshop.inputs(forged, profile=parse_profile(PROFILE), engine=Engine(backend="loky", workers=2))
    outcome = audit.examine(inputs)
    out = tmp_path_factory.mktemp("everything") / "report"
    audit.write_report(inputs, outcome, out, force=False)
    workshop.demo.settle(forged.bundle, forged.openings)
    return forged, outcome, out


def test_every_attack_is_run_and_stands_in_the_signed_report(workshop, audited):
    _, _, out = audited
    summary = json.loads((out / "summary.json").read_bytes())
    figures = summary["figures"]
    ran = {name.rsplit(".", 1)[0] for name in figures["membership"]}
    not_run = set(summary["checks"]["membership"]["evidence"]["not_run"])
    expected = {name for name in ATTACKS if ENTRIES[name].kind in ("outputs", "queries")}
    assert ran | {name.split(" ")[0] for name in not_run} == expected
    assert "lira-online" in not_run  # it needs shadow models with the record, and says so
    assert {"loss.signed", "loss.distance", "near-duplicates.signed"} <= set(figures["membership"])
    one = figures["membership"]["loss.signed"]
    assert {"high tail at 0.01", "low tail at 0.01"} <= set(one["rates"])
    assert one["rates"]["high tail at 0.001"].startswith("withheld:")
    assert one["control_draws"][0] < one["control"] < one["control_draws"][1]
    assert one["epsilon_at_least"] >= 0.0
    assert set(figures["properties"]) == set(PROPERTIES)
    again = figures["membership_further"]["the owner's method re-run"]
    assert set(again["attacks"]) == {"rerun.signed", "rerun.distance"}, again
    assert figures["membership_retained"]
    assert "Not a differential-privacy epsilon" in summary["checks"]["membership"]["evidence"]["epsilon"]["meaning"]


def test_pages_and_pictures(audited):
    _, _, out = audited
    page = (out / "report.html").read_text()
    for words in ("Properties", "Low false-positive rates", "withheld:", "Not a differential-privacy epsilon", "A10"):
        assert (words in page) == (words != "A10"), words
    pictures = sorted(path.name for path in (out / "pictures").iterdir())
    for kind in ("roc", "scores", "shift", "outputs", "persistence"):
        assert any(name.startswith(f"{kind}-") for name in pictures), kind
    listed = {entry["path"] for entry in json.loads((out / "manifest.json").read_bytes())["files"]}
    assert {f"pictures/{name}" for name in pictures} <= listed
    from xml.etree import ElementTree as ET

    for name in pictures:
        root = ET.fromstring((out / "pictures" / name).read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.find("{http://www.w3.org/2000/svg}style") is not None


def again(workshop, forged, out, **changes):
    given = {
        "policy": workshop.world.policy.read_bytes(), "trust": workshop.world.trust.read_bytes(),
        "openings": forged.openings, "reference": workshop.root / "data" / "ref.npz", "owner_log": None,
        "key": workshop.inputs(forged).key, "seed": 99, "shadow_cache": None, "progress": lambda *_: None,
    }  # fmt: skip
    return verify.replay(out, forged.bundle, **(given | changes))


def test_a_replay_of_all_attacks_gives_the_same_numbers_and_runs_no_command_unasked(workshop, audited):
    forged, _, out = audited
    workshop.world.witness(workshop.world.auditor_log)
    verify.finish(out, workshop.ledger, write=lambda path, data: path.write_bytes(data))
    with pytest.raises(AuditorError, match="give --allow-command"):
        again(workshop, forged, out)
    # Without the two processes, without their shadow models, and with another seed than the plan's.
    differences, fresh = again(workshop, forged, out, allow_command=True)
    assert differences == []
    assert fresh["figures"] == json.loads((out / "summary.json").read_bytes())["figures"]


def test_two_auditors_with_one_plan_get_the_same_numbers(workshop, honest):
    """The nonce is each auditor's own secret; nothing of the attacks follows from it."""
    found = []
    for value in (b"1" * 32, b"2" * 32):
        evidence = workshop.evidence(honest, profile=parse_profile(PROFILE))
        assert evidence.transcript.challenge_value not in (None, value)
        other = replace(evidence, transcript=replace(evidence.transcript, challenge_value=value))
        outcome = membership.Outcome()
        result = membership.check(other, outcome)
        found.append((result.verdict, result.summary, membership_pages.all_figures(outcome)))
    assert found[0] == found[1]
    assert found[0][2]["membership"]


# --- what plans and profiles may say ----------------------------------------------------------------------


def test_the_template_is_a_plan_that_says_everything_and_changes_nothing():
    profile = load_profile("indistinguishable")
    text = plan_template(profile, seed=1)
    plan = parse_plan(text)
    alone, joined = (settle(profile.levels["membership"], section) for section in (None, plan.membership))
    assert alone == joined
    for name in (*ATTACKS, *PROPERTIES):
        assert f"{name}: {{" in text.decode()
    # Whatever is commented out can be let in, but for the command of a method, which somebody has to name.
    whole = text.decode().replace("    # ", "    ")
    section = parse_plan(whole.encode()).membership
    assert set(section.attacks) == set(ATTACKS)
    assert set(section.properties) == set(PROPERTIES)


def test_a_plan_adds_and_never_softens():
    levels = load_profile("indistinguishable").levels["membership"]
    soft = parse_plan(plan(margin=0.4, level=0.2, shadows=2, controls=1000, exchangeability_level=0.005)).membership
    assert settle(levels, soft) == settle(levels, None)
    strict = parse_plan(
        plan(
            margin=0.05, level=0.01, shadows=64, controls=2000, exchangeability_level=0.05, rates=[0.05],
            attacks={"gap": None, "loss": {}, "rmia": {"gamma": 2}}, required=["gap"], delta=0.001,
        )
    ).membership  # fmt: skip
    found = settle(levels, strict)
    assert (found.margin, found.level, found.shadows, found.controls) == (0.05, 0.01, 64, 2000)
    assert (found.exchangeability_level, found.rates, found.delta) == (0.05, (0.05,), 0.001)
    assert set(found.attacks) == {*levels["attacks"], "gap"}
    assert found.required == (*levels["required_attacks"], "gap")
    assert found.attacks["rmia"] == {"gamma": 2.0, "offline_a": None}


def plan(**membership):
    value = yaml.safe_load(plan_template(load_profile("redirection"), seed=1)) | {"membership": membership}
    return yaml.safe_dump(value).encode()


@pytest.mark.parametrize(
    "bad",
    [
        {"margin": 0.0}, {"margin": 0.5}, {"margin": "x"}, {"margin": True}, {"level": 0.6}, {"shadows": 0},
        {"shadows": 1.5}, {"controls": 999}, {"delta": -1}, {"rates": []}, {"rates": [1.0]}, {"rates": 0.1},
        {"exchangeability_level": 0.0001}, {"surprise": 1}, {"attacks": []}, {"attacks": {"palm-reading": {}}},
        {"attacks": {"difference": {}}}, {"properties": {"loss": {}}}, {"attacks": {"gap": {"x": 1}}},
        {"attacks": {"gap": 3}}, {"attacks": {"rmia": {"gamma": 0.5}}}, {"attacks": {"rmia": {"gamma": True}}},
        {"attacks": {"lira-offline": {"variance": "guessed"}}}, {"attacks": {"near-duplicates": {"copies": 1.5}}},
        {"attacks": {"near-duplicates": {"copies": 0}}}, {"attacks": {"near-duplicates": {"copies": 100_001}}}, {"attacks": {"rerun": {}}},
        {"attacks": {"rerun": {"command": "forget"}}}, {"attacks": {"rerun": {"command": "x" * 5000}}},
        {"attacks": {"gap": {}}, "required": ["loss"]}, {"attacks": {"gap": {}}, "required": ["gap", "gap"]},
        {"required": "gap"}, {"properties": {"export-int8": {"precision": "float32"}}},
        {"properties": {"export-int8": {"batch": 0}}}, {"properties": {"patch-strip": {"form": "sideways"}}},
        {"attacks": {"boundary-distance": {"reach": float("inf")}}}, {"attacks": {1: {}}},
    ],
    ids=str,
)  # fmt: skip
def test_refused_plans(bad):
    with pytest.raises(MalformedError):
        parse_plan(plan(**bad))


@pytest.mark.parametrize(
    "limits",
    ["5", "{a: 1}", "{a: {}}", "{a: {at_most: x}}", "{a: {below: 1}}", "{a: {at_most: .inf}}", "{1: {at_most: 1}}"],
)
def test_refused_limits(limits):
    text = f"version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nlevels: {{membership: {{property_limits: {limits}}}}}"
    with pytest.raises(MalformedError):
        parse_profile(text.encode())


def test_suites_that_cannot_be_made():
    levels = load_profile("indistinguishable").levels["membership"]
    for change in (
        {"attacks": ["palm-reading"]}, {"required_attacks": ["gap"]}, {"properties": ["loss"]},
        {"property_limits": {"loss": {"at_most": 1}}}, {"attacks": ["rerun", *levels["attacks"]]},
    ):  # fmt: skip
        with pytest.raises(AuditorError):
            settle({**levels, **change}, None)
    with pytest.raises(AuditorError):
        defaults("palm-reading")


def test_every_attack_has_settings_that_a_plan_can_write_down():
    for name in (*ATTACKS, *PROPERTIES):
        if name == "rerun":
            continue
        known = read_settings(name, None)
        assert known == defaults(name)
        assert read_settings(name, json.loads(json.dumps(known))) == known
    numbers = {entry.number for entry in ENTRIES.values()}
    assert numbers == {f"A{k}" for k in range(1, 15)}
