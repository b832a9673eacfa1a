"""Profiles and plans: strict readers of files that people write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.profile import CHECKS, DEFAULT_LEVELS, built_in, load_profile, parse_plan, parse_profile, plan_template
from protocol.errors import AuditorError, MalformedError, UnsupportedVersion

GOOD = b"version: prune-audit/profile/v1\nname: mine\nrequired: [binding, locality]\n"


def test_built_in_profiles_parse():
    assert {"redirection", "indistinguishable", "gdpr-erasure"} <= set(built_in())
    assert "deployment" in load_profile("gdpr-erasure").required
    for name in built_in():
        profile = load_profile(name)
        assert profile.name == name
        assert set(profile.required) <= set(CHECKS)
        assert ("membership" in profile.required) == (name != "redirection")


def test_defaults_are_filled_in():
    profile = parse_profile(GOOD + b"levels: {locality: {affected_at_most: 0.5}}\n")
    assert profile.levels["locality"] == {"affected_at_most": 0.5}
    assert profile.levels["utility"] == DEFAULT_LEVELS["utility"]
    assert profile.threats is None
    assert parse_profile(GOOD + b"threats: [replay]\n").threats == ("replay",)


@pytest.mark.parametrize(
    "text",
    [
        "version: prune-audit/profile/v2\nname: a\nrequired: [binding]",
        "name: a\nrequired: [binding]",
        "version: prune-audit/profile/v1\nname: ''\nrequired: [binding]",
        "version: prune-audit/profile/v1\nname: 5\nrequired: [binding]",
        "version: prune-audit/profile/v1\nname: a\nrequired: []",
        "version: prune-audit/profile/v1\nname: a\nrequired: binding",
        "version: prune-audit/profile/v1\nname: a\nrequired: [astrology]",
        "version: prune-audit/profile/v1\nname: a\nrequired: [[binding]]",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding, binding]",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nlevels: 5",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nlevels: {binding: {x: 1}}",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nlevels: {locality: 5}",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nlevels: {locality: {most: 1}}",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nlevels: {locality: {affected_at_most: x}}",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nlevels: {locality: {affected_at_most: true}}",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nlevels: {locality: {affected_at_most: -1}}",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nlevels: {locality: {affected_at_most: .nan}}",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nlevels: {membership: {shadows: 1.5}}",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nthreats: []",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nthreats: [a, a]",
        "version: prune-audit/profile/v1\nname: a\nrequired: [binding]\nsurprise: 1",
        "version: prune-audit/profile/v1\nname: !!python/object/apply:os.system ['true']\nrequired: [binding]",
        "[]",
        "",
    ],
)
def test_refused_profiles(text):
    with pytest.raises(MalformedError):
        parse_profile(text.encode())


@given(st.binary(max_size=120))
def test_any_bytes_are_a_profile_and_plan_or_our_error(data):
    for parse in (parse_profile, parse_plan):
        with pytest.raises(MalformedError):
            parse(data)


def test_load_by_path_and_by_name(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes(GOOD)
    assert load_profile(str(path)).name == "mine"
    with pytest.raises(AuditorError, match="there are gdpr-erasure, indistinguishable, redirection"):
        load_profile("nonsense")
    path.write_bytes(b"version: 1\n")
    with pytest.raises(UnsupportedVersion, match=r"p\.yaml"):
        load_profile(str(path))


def test_the_template_is_a_plan():
    profile = load_profile("redirection")
    plan = parse_plan(plan_template(profile, seed=5))
    assert (plan.profile, plan.profile_sha256, plan.seed) == ("redirection", profile.sha256, 5)
    assert (plan.openings, plan.answer_within) == (200, 72 * 3600)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("plan/v1", "plan/v2"), ("profile: redirection", "profile: 5"), ("openings: 200", "openings: 0"),
        ("openings: 200", "openings: -1"), ("openings: 200", "openings: many"), ("seed: 5", "seed: true"),
        ("answer_within_hours: 72", "answer_within_hours: 1000000"), ('profile_sha256: "', 'profile_sha256: "Z'),
        ("seed: 5", "seed: 5\nmore: 1"),
    ],
)  # fmt: skip
def test_refused_plans(old, new):
    text = plan_template(load_profile("redirection"), seed=5).decode()
    assert old in text
    with pytest.raises(MalformedError):
        parse_plan(text.replace(old, new, 1).encode())
