"""The threat catalogue: valid under its schema, true about the source, printable, and what profiles may promise."""

import ast
import json
import re
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import auditor
from auditor import audit
from auditor.cli import main
from auditor.profile import CHECKS, PROFILE_VERSION, built_in, load_profile, parse_profile
from auditor.strict_yaml import parse_mapping, refuse_unknown
from auditor.threats import PARTIES, STATUSES, Threat, as_table, check_profile, load_threats, parse_threat
from protocol.errors import AuditorError, MalformedError, Schema, TooLarge

CATALOGUE = resources.files("threat_models")
FILES = sorted(entry.name for entry in CATALOGUE.iterdir() if entry.name.endswith(".yaml"))
SCHEMA = json.loads((CATALOGUE / "schema.json").read_bytes())
THREATS = load_threats()
IDS = [threat.id for threat in THREATS]


# --- the part of JSON Schema 2020-12 that schema.json uses -------------------------------------------------------


def faults(value, schema, where="$"):
    """Every way in which `value` breaks `schema`; refuses keywords that it does not know."""
    unknown = set(schema) - {
        *("$schema", "$id", "$defs", "$ref", "title", "description", "type", "enum", "const", "pattern", "minLength"),
        *("maxLength", "properties", "required", "additionalProperties", "items", "minItems", "uniqueItems"),
        *("allOf", "if", "then"),
    }
    assert not unknown, unknown
    found = []
    if "$ref" in schema:
        assert schema["$ref"].startswith("#/$defs/")
        found += faults(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], where)
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool}
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return [*found, f"{where}: not of type {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: {value!r} is not one of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{where}: not {schema['const']!r}")
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9):
            found.append(f"{where}: {len(value)} characters")
        if "pattern" in schema and not re.search(schema["pattern"], value):
            found.append(f"{where}: does not match")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            found.append(f"{where}: too few")
        if schema.get("uniqueItems") and len({json.dumps(entry) for entry in value}) != len(value):
            found.append(f"{where}: twice the same")
        for place, entry in enumerate(value):
            found += faults(entry, schema.get("items", {}), f"{where}[{place}]")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{where}: {name} is missing" for name in schema.get("required", ()) if name not in value]
        if schema.get("additionalProperties", True) is False:
            found += [f"{where}: {name} is unknown" for name in value if name not in properties]
        for name, own in properties.items():
            if name in value:
                found += faults(value[name], own, f"{where}.{name}")
    for part in schema.get("allOf", ()):
        found += faults(value, part, where)
    if "if" in schema and not faults(value, schema["if"], where):
        found += faults(value, schema["then"], where)
    return found


def raw(name):
    return (CATALOGUE / name).read_bytes()


def plain(name="noop-patch.yaml"):
    return yaml.safe_load(raw(name))


def test_there_are_threats():
    assert len(FILES) == 37
    assert [f"{name}.yaml" for name in IDS] == FILES


@pytest.mark.parametrize("name", FILES)
def test_file_is_valid_under_the_schema(name):
    assert faults(plain(name), SCHEMA) == []


@pytest.mark.parametrize("name", FILES)
def test_id_is_the_file_name_and_checks_exist(name):
    threat = parse_threat(raw(name), where=name)
    assert f"{threat.id}.yaml" == name
    assert set(threat.checks) <= set(CHECKS)
    assert bool(threat.checks) != (threat.status == "out-of-reach")


def test_schema_and_reader_agree_on_names():
    properties = SCHEMA["properties"]
    assert set(properties) == {field.name for field in fields(Threat)}
    assert set(SCHEMA["required"]) == set(properties) - {"formal", "out_of_reach", "planned"}
    assert properties["checks"]["items"]["enum"] == list(CHECKS)
    assert properties["party"]["enum"] == list(PARTIES)
    assert properties["status"]["enum"] == list(STATUSES)


@pytest.mark.parametrize("threat", THREATS, ids=IDS)
def test_json_is_the_file(threat):
    assert faults(threat.to_json(), SCHEMA) == []
    assert threat.to_json() == plain(f"{threat.id}.yaml")
    assert parse_threat(json.dumps(threat.to_json()).encode(), where=f"{threat.id}.yaml") == threat


def test_sources_are_listed_in_the_readme():
    readme = " ".join((CATALOGUE / "README.md").read_text("utf-8").split())
    used = {source for threat in THREATS for source in threat.sources}
    assert [source for source in sorted(used) if f"- {source}" not in readme] == []


def test_words():
    for name in [*FILES, "README.md", "schema.json"]:
        assert "unlearned" not in raw(name).decode().lower(), name
    assert all("CONSISTENT" in t.game.wins_if for t in THREATS if t.status == "detectable")


# --- the catalogue against the auditor's source ------------------------------------------------------------------


def _strings(node):
    # The values an expression can have; a condition's own test does not count.
    if isinstance(node, ast.IfExp):
        return _strings(node.body) | _strings(node.orelse)
    assert isinstance(node, ast.Constant), ast.dump(node)
    assert isinstance(node.value, str), ast.dump(node)
    return {node.value}


def _keyword(call, name):
    return next(keyword.value for keyword in call.keywords if keyword.arg == name)


def named_in(source):
    """Threat ids that a module can put into findings, and the checks that it names there.

    Understood are literals, variables called `threat`, and calls of local functions whose first parameter is `threat`.
    """
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    accusers = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and [a.arg for a in node.args.args if a.arg != "self"][:1] == ["threat"]
    }
    threats, checks, indirect = set(), set(), bool(accusers)
    for call in calls:
        called = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        if called == "Finding":
            value = _keyword(call, "threat")
            checks |= _strings(_keyword(call, "check"))
            if isinstance(value, ast.Name):
                assert value.id == "threat", f"a finding from an unknown variable {value.id}"
                indirect = True
            else:
                threats |= _strings(value)
        elif called in accusers and not isinstance(call.args[0], ast.Name):
            threats |= _strings(call.args[0])
    for node in ast.walk(tree):
        if indirect and isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == ["threat"]:
            threats |= _strings(node.value)
    return threats, checks


def findings_of_the_source():
    """For each threat id in the auditor's source, the checks that report it."""
    found = {}
    for path in sorted(Path(auditor.__file__).parent.rglob("*.py")):
        if path.name == "threats.py":  # makes no findings, and calls a threat a threat
            continue
        threats, checks = named_in(path.read_text("utf-8"))
        # history.py compares checkpoints; the inclusion check makes findings of what it finds.
        for threat in threats:
            found.setdefault(threat, set()).update(checks or {"inclusion"})
    return found


def test_the_scan_sees_each_way_of_making_a_finding():
    source = """
def check(evidence):
    def accuse(threat, message):
        findings.append(Finding(threat=threat, check="one", message=message))
    accuse("called", "m")
    threat = "kept"
    threat = "left" if name == "not-this" else "right"
    accuse(threat, "m")
    Finding(threat="literal", check="two", message="not-that")
class Reader:
    def report(self, threat, message):
        view.Finding(threat=threat, check="three", message=message)
    def read(self):
        self.report("method", "m")
"""
    assert named_in(source) == ({"called", "kept", "left", "right", "literal", "method"}, {"one", "two", "three"})
    assert named_in('threat = "unrelated"\n') == (set(), set())
    with pytest.raises(AssertionError, match="unknown variable"):
        named_in('Finding(threat=other, check="c", message="m")')


def test_every_finding_of_the_source_is_a_threat_and_implemented_means_so():
    source = findings_of_the_source()
    assert "noop-patch" in source
    assert set(source) <= set(IDS)
    assert {threat.id for threat in THREATS if threat.implemented} == set(source)


def test_every_finding_comes_from_a_check_that_the_threat_names():
    known = {threat.id: threat for threat in THREATS}
    for name, checks in findings_of_the_source().items():
        assert checks & set(known[name].checks), name
        assert checks - set(known[name].checks) == set(), name


# --- reading ----------------------------------------------------------------------------------------------------


def changed(**values):
    threat = plain() | values
    return json.dumps({name: value for name, value in threat.items() if value is not None}).encode()


@pytest.mark.parametrize(
    "values",
    [
        {"id": "another"},
        {"title": "x" * 81},
        {"title": " padded"},
        {"goal": "two\nlines"},
        {"goal": ""},
        {"goal": 3},
        {"knowledge": None},
        {"party": "nobody"},
        {"party": ["owner"]},
        {"status": "fine"},
        {"implemented": "yes"},
        {"implemented": 1},
        {"implemented": False},
        {"checks": "redirection"},
        {"checks": ["magic"]},
        {"checks": ["redirection", "redirection"]},
        {"checks": [["redirection"]]},
        {"checks": []},
        {"formal": []},
        {"formal": "auth_request"},
        {"formal": ["auth_request", "auth_request"]},
        {"formal": ["Auth_request"]},
        {"formal": ["auth__request"]},
        {"formal": ["auth request"]},
        {"formal": ["a" * 61]},
        {"formal": [["auth_request"]]},
        {"formal": {}},
        {"sources": []},
        {"sources": [""]},
        {"status": "limited", "out_of_reach": None},
        {"status": "out-of-reach"},
        {"planned": ""},
        {"out_of_reach": 0},
        {"game": None},
        {"game": "a game"},
        {"game": {"play": "p"}},
        {"game": {"play": "p", "wins_if": "w", "draws_if": "d"}},
        {"colour": "red"},
    ],
    ids=str,
)
def test_reader_and_schema_refuse_the_same(values):
    data = changed(**values)
    with pytest.raises(Schema):
        parse_threat(data, where="noop-patch.yaml")
    # The file's name, and printable text without a margin, are beyond the schema.
    if values not in ({"id": "another"}, {"title": " padded"}, {"goal": "two\nlines"}):
        assert faults(json.loads(data), SCHEMA)


def test_unchanged_is_accepted_from_any_folder():
    assert parse_threat(changed(), where="threat_models/noop-patch.yaml").id == "noop-patch"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"x" * (1 << 14) + b"x", TooLarge),
        (b"\xff", MalformedError),
        (b"a: 1\na: 2\n", MalformedError),
        (b"a: &x [1]\nb: *x\n", MalformedError),
        (b"a: !!python/object/apply:os.getcwd []\n", MalformedError),
        (b"a: !!timestamp x\n", MalformedError),
        (b"a: !!int ''\n", MalformedError),
        (b"a: !!bool x\n", MalformedError),
        (b"a: 1\n---\nb: 2\n", MalformedError),
        (b"[" * 5000, MalformedError),
        (b"", Schema),
        (b"- a\n", Schema),
        (b"1: a\n", Schema),
    ],
)
def test_yaml_that_is_refused(data, error):
    with pytest.raises(error) as caught:
        parse_threat(data, where="x.yaml")
    assert caught.value.where == "x.yaml"


@given(
    st.one_of(st.binary(max_size=60), st.text(alphabet="ab12:-!&*[]{}<>|'\"\n .?#%,@~", max_size=60).map(str.encode))
)
def test_any_bytes_give_a_mapping_or_our_error(data):
    try:
        value = parse_mapping(data, where="w")
    except MalformedError:
        return
    assert all(isinstance(name, str) for name in value)


@given(
    st.sampled_from(["int", "float", "bool", "timestamp", "binary", "set", "omap", "pairs", "null"]),
    st.text(max_size=8),
)
def test_explicit_tags_give_a_mapping_or_our_error(tag, text):
    try:
        value = parse_mapping(f"a: !!{tag} {json.dumps(text)}\n".encode(), where="w")
    except MalformedError:
        return
    assert list(value) == ["a"]


def test_unknown_fields_of_any_type_are_named():
    with pytest.raises(Schema, match="unknown field '1'"):
        refuse_unknown({"b": 0, 1: 0, "known": 0}, {"known"}, "w")


# --- printing ---------------------------------------------------------------------------------------------------


def test_table_has_every_threat_and_stays_within_its_width():
    table = as_table(THREATS)
    lines = table.splitlines()
    assert max(len(line) for line in lines) <= 120
    rule = lines.index("OUT OF REACH")
    for threat in THREATS:
        starts = [place for place, line in enumerate(lines) if re.match(rf"{threat.id}\s", line)]
        assert sum(place < rule for place in starts) == 1, threat.id
        assert sum(place > rule for place in starts) == (threat.out_of_reach is not None), threat.id
        row = lines[starts[0]].split()
        assert row[1:5] == [threat.party, threat.status, threat.today, (threat.checks or ("none",))[0]]
    flat = " ".join(table.split())
    assert all(" ".join((threat.out_of_reach or "").split()) in flat for threat in THREATS)


def test_table_says_which_properties_of_the_models_speak_of_which_threat():
    lines = as_table(THREATS).splitlines()
    told = lines[next(place for place, line in enumerate(lines) if line.startswith("IN THE SYMBOLIC MODELS")) + 2 :]
    expected = {}
    for threat in THREATS:
        for name in threat.formal:
            expected.setdefault(name, []).append(threat.id)
    assert {line.split(": ")[0]: line.split(": ")[1].split(", ") for line in told} == expected
    assert expected["auth_request"] == ["forged-request"]


def test_table_of_nothing_is_the_heading_and_the_legend():
    assert as_table(()).splitlines()[0].split() == ["THREAT", "PARTY", "STATUS", "TODAY", "CHECKS", "BEHAVIOUR"]


def test_today():
    known = {threat.id: threat.today for threat in THREATS}
    assert known["noop-patch"] == "yes"
    assert known["silent-drop"] == known["curious-auditor"] == "yes"
    assert known["serving-swap"] == known["re-ingestion"] == "yes"
    assert known["colluding-auditor"] == known["forged-training-log"] == "no"


def test_command_prints_both_formats():
    table = CliRunner().invoke(main, ["threats"])
    assert (table.exit_code, table.output) == (0, as_table(THREATS) + "\n")
    listed = CliRunner().invoke(main, ["threats", "--format", "json"])
    assert listed.exit_code == 0
    assert json.loads(listed.output) == [threat.to_json() for threat in THREATS]


# --- profiles ---------------------------------------------------------------------------------------------------


def profile(required, threats=None):
    value = {"version": PROFILE_VERSION, "name": "own", "required": required}
    return parse_profile(json.dumps(value if threats is None else value | {"threats": threats}).encode())


@pytest.mark.parametrize("name", built_in())
def test_built_in_profiles_name_no_threats_and_pass(name):
    loaded = load_profile(name)
    assert loaded.threats is None
    check_profile(loaded, THREATS)


def test_profile_that_covers_what_it_names():
    named = profile(["redirection", "hygiene"], ["noop-patch", "hostile-artefact", "forged-training-log"])
    assert named.threats == ("noop-patch", "hostile-artefact", "forged-training-log")
    check_profile(named, THREATS)


def test_profile_must_require_a_check_of_each_threat_that_it_names():
    with pytest.raises(AuditorError, match="noop-patch but does not require redirection") as caught:
        check_profile(profile(["hygiene"], ["hostile-artefact", "noop-patch"]), THREATS)
    assert caught.value.where == "own"


def test_profile_cannot_name_an_unknown_threat():
    with pytest.raises(AuditorError, match="no threat 'no-such'"):
        check_profile(profile(["hygiene"], ["no-such"]), THREATS)


def test_threat_without_check_must_be_out_of_reach():
    stranded = (*THREATS, replace(THREATS[0], id="stranded", checks=(), status="limited"))
    for own in (profile(["hygiene"]), profile(["hygiene"], ["stranded"])):
        with pytest.raises(AuditorError, match="no check catches stranded"):
            check_profile(own, stranded)
    check_profile(profile(["hygiene"], ["hostile-artefact"]), stranded)
    check_profile(profile(["hygiene"]), (*THREATS, replace(stranded[-1], status="out-of-reach")))


@pytest.mark.parametrize(
    "threats", [[], "noop-patch", [1], [["x"]], [""], ["a" * 61], ["noop-patch", "noop-patch"], {}, {"": {}}]
)
def test_threats_of_a_profile_are_a_list_of_names(threats):
    with pytest.raises(Schema, match="threats is not"):
        profile(["hygiene"], threats)


def test_threats_of_a_profile_may_not_be_empty_text():
    data = f"version: {PROFILE_VERSION}\nname: own\nrequired: [hygiene]\nthreats:\n".encode()
    with pytest.raises(Schema, match="threats is not"):
        parse_profile(data)


# --- levels for a threat, and the audit itself --------------------------------------------------------------------


def test_a_threat_can_bring_its_own_levels():
    required = ["persistence", "membership", "locality"]
    named = profile(
        required,
        {"point-lookup": {"persistence": {"distance": 2}}, "over-forgetting": {"membership": {"margin": 0.05}}},
    )
    assert named.threats == ("point-lookup", "over-forgetting")
    assert named.levels["persistence"] == {"distance": 2, "share_at_least": 0.9}
    assert named.levels["membership"]["margin"] == 0.05
    assert named.levels_for == {"point-lookup": ("persistence",), "over-forgetting": ("membership",)}
    check_profile(named, THREATS)


@pytest.mark.parametrize(
    ("threats", "reason"),
    [
        ({"point-lookup": {"persistence": {"distance": True}}}, "wrong type"),
        ({"point-lookup": {"persistence": {"distance": -1}}}, "out of range"),
        ({"point-lookup": {"persistence": {"speed": 1}}}, "unknown field"),
        ({"point-lookup": {"persistence": 3}}, "has no levels"),
        ({"point-lookup": {"hygiene": {}}}, "has no levels"),
        ({"point-lookup": None}, "not a mapping"),
        ({"point-lookup": {"utility": {"drop_at_most": 0.1}}, "hidden-damage": {"utility": {"drop_at_most": 0.2}}}, "twice"),
    ],
)  # fmt: skip
def test_levels_of_a_threat_that_are_refused(threats, reason):
    with pytest.raises(Schema, match=reason):
        profile(["persistence", "utility"], threats)


@pytest.mark.parametrize(
    ("threats", "required", "reason"),
    [
        ({"hostile-artefact": {"utility": {"drop_at_most": 0.1}}}, ["hygiene", "utility"], "does not catch"),
        ({"hidden-damage": {"locality": {"affected_at_most": 0.1}}}, ["utility"], "does not require it"),
    ],
)
def test_levels_have_to_be_of_a_required_check_that_catches_the_threat(threats, required, reason):
    with pytest.raises(AuditorError, match=reason):
        check_profile(profile(required, threats), THREATS)


def test_an_audit_refuses_a_profile_that_cannot_cover_what_it_names(workshop, honest):
    own = profile(["hygiene"], ["noop-patch"])
    with pytest.raises(AuditorError, match="names the threat noop-patch"):
        audit.examine(workshop.inputs(honest, profile=own))


def test_a_plan_for_such_a_profile_is_not_printed(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes(profile(["hygiene"], ["noop-patch"]).raw)
    ran = CliRunner().invoke(main, ["plan", "--template", "--profile", str(path)])
    assert ran.exit_code != 0
