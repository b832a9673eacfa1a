"""The page: well-formed, self-contained, escaped, small, and always the same for the same view."""

import base64
import hashlib
import html.parser
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.report import render, to_summary
from auditor.report.words import QUESTIONS, WORDS, absent, aside, deciding, meaning
from auditor.view import CheckResult, Finding, Pictures
from tests.auditor.report.views import HOSTILE, audit, bare, hostile, pictures

VOID = {"meta", "br", "hr", "img", "link", "input"}
ALLOWED = set(
    re.findall(
        "[a-z0-9]+",
        """html head meta title style body header main nav section div p span h1 h2 h3 h4 a ul ol li dl dt dd
        table thead tbody tr th td details summary figure figcaption code bdi
        svg symbol use path rect circle line text desc""",
    )
)
ADDRESSES = {"href", "src", "srcset", "action", "data", "poster", "xlink:href", "formaction", "background"}


class Page(html.parser.HTMLParser):
    """Reads a page and asserts on the way that every element is closed where it should be."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts, self.style = [], [], [], ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        raise AssertionError(f"<{tag}/> closes itself")

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        elif data.strip():
            self.texts.append(data)

    def handle_comment(self, data):
        raise AssertionError("a comment")

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag, **attributes):
        return [a for name, a, _ in self.elements if name == tag and attributes.items() <= a.items()]


VIEWS = {
    "refuted": audit(),
    "consistent": audit("CONSISTENT", shift=0.0),
    "inconclusive": audit("INCONCLUSIVE"),
    "one": audit(members=1, strangers=20),
    "bare": bare(),
    "hostile": hostile(),
}


@pytest.fixture(params=list(VIEWS), scope="module")
def view(request):
    return VIEWS[request.param]


def test_structure(view):
    page = Page(render(view))
    assert {name for name, _, _ in page.elements} <= ALLOWED
    idents = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(idents) == len(set(idents))
    for _, attributes, _ in page.elements:
        for reference in attributes.get("aria-labelledby", "").split():
            assert reference in idents
    assert len(page.all("h1")) == 1
    assert page.all("html", lang="en")


def test_nothing_is_loaded_and_nothing_runs(view):
    text = render(view)
    page = Page(text)
    for name, attributes, _ in page.elements:
        for key, value in attributes.items():
            assert not key.startswith("on"), (name, key)
            assert key != "style", "the policy would drop it"
            if key in ADDRESSES:
                assert re.fullmatch(r"#[a-z0-9-]+", value), (name, key, value)
                assert value[1:] in {a.get("id") for _, a, _ in page.elements}
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert "http" not in page.style
    policies = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert [p["content"] for p in policies] == [
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ]
    assert text.index("Content-Security-Policy") < text.index("<style")


def test_deterministic(view):
    assert render(view) == render(replace(view))
    assert json.dumps(to_summary(view)) == json.dumps(to_summary(replace(view)))


def test_encodes_and_stays_small(view):
    assert len(render(view).encode("utf-8")) < 600_000


@pytest.mark.parametrize("name", ["refuted", "consistent", "inconclusive"])
def test_order(name):
    view = VIEWS[name]
    text = Page(render(view)).text
    places = [text.index(part) for part in (
        WORDS[view.verdict] + " " + meaning(view), "Findings", "Checks", "Required by the profile",
        "Shown only: not counted", "Membership: what an attacker gains", "Membership: record by record",
        "Outputs before and after", "Persistence: just", "Certified radii",
    )]  # fmt: skip
    assert places == sorted(places)
    tail = [text.rindex("What this report does not say"), text.rindex("Names and digests")]
    assert places[-1] < tail[0] < tail[1]
    for sentence in view.not_claimed:
        assert tail[0] < text.index(sentence) < tail[1]
    for digest in view.names.values():
        assert digest in text[tail[1] :]
    for check in view.checks:
        assert check.summary in text
    for finding in view.findings:
        assert finding.message in text[: places[2]] or finding.message in text
        assert f"{finding.threat} shown by {finding.check}" in text


def test_own_words_promise_nothing():
    text = Page(render(VIEWS["consistent"])).text.lower()
    words = [
        *QUESTIONS.values(),
        *WORDS.values(),
        *(meaning(VIEWS[v]) for v in ("refuted", "consistent", "bare")),
        text,
    ]
    for sentence in words:
        assert "unlearned" not in sentence.lower()
        assert "forgotten" not in sentence.lower().replace("forgotten records stand out", "")
        assert "erased" not in sentence.lower()


def test_hostile_strings_are_text():
    page = Page(render(hostile()))
    assert not page.all("script")
    assert not page.all("img")
    assert not page.all("b")
    for value in HOSTILE[:4]:
        assert value in page.text
    assert "alert(1)" not in page.style
    assert len(page.all("style")) == 1
    assert len(page.all("title")) == 1 + len(page.all("svg", role="img"))


def test_hidden_characters_are_shown():
    text = render(hostile())
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\ufeff\x00\x1b\ud800]", text)
    assert "‹U+202E›evil‹U+2066›" in text
    assert "\u0300" * 4 not in text
    assert "\u05d0\u05d1\u05d2" in text
    assert "A" * 4_001 not in text
    assert "(96,001 more characters)" in text


def test_pictures_have_names_and_descriptions(view):
    page = Page(render(view))
    drawn = [a for a in page.all("svg") if a.get("role") == "img"]
    hidden = [a for a in page.all("svg") if a.get("aria-hidden") == "true"]
    assert len(drawn) + len(hidden) == len(page.all("svg"))
    for attributes in drawn:
        assert len(attributes["aria-labelledby"].split()) == 2
        assert attributes["viewbox"].startswith("0 0 360 ")


def test_verdicts_are_words_not_only_colours():
    page = Page(render(VIEWS["refuted"]))
    for verdict, word in WORDS.items():
        found = sum(c.verdict == verdict for c in VIEWS["refuted"].checks)
        assert page.texts.count(word) == found + (verdict == "REFUTED")


def test_evidence_of_undecided_required_checks_is_open():
    page = Page(render(VIEWS["refuted"]))
    assert len(page.all("details", open=None)) == 1  # membership; freshness has no evidence


def test_missing_check_and_its_verdict():
    text = Page(render(bare())).text
    assert "redirection (no result)" in text
    assert "No result" in text
    assert "No check found evidence" in text
    assert "Pictures" not in text
    refuted = Page(render(bare("REFUTED"))).text
    assert "Decided by" not in refuted


def test_words():
    view = VIEWS["refuted"]
    assert deciding(view) == ("membership",)
    assert aside(view) == ("disclosure",)
    assert absent(view) == ()
    assert deciding(VIEWS["consistent"]) == ()
    assert deciding(VIEWS["inconclusive"]) == ("freshness",)
    assert deciding(bare()) == absent(bare()) == ("redirection",)
    text = Page(render(view)).text
    assert "Decided by: membership" in text
    assert "the profile does not require it: disclosure" in text
    assert "disclosure" not in Page(render(VIEWS["consistent"])).text[:600]


def test_finding_of_a_check_without_a_result():
    check = CheckResult(
        check="a",
        verdict="REFUTED",
        summary="s",
        findings=(Finding(threat="t", check="elsewhere", message="m"),),
    )
    text = Page(render(replace(bare(), checks=(check,)))).text
    assert "t shown by elsewhere , which this profile does not require" in text


def test_ten_thousand_records():
    view = audit(members=10_000, strangers=10_000)
    many = replace(
        view,
        pictures=replace(
            view.pictures,
            outputs=view.pictures.outputs * 2_000,
            scores={f"attack {k}": next(iter(view.pictures.scores.values())) for k in range(24)},
            tables={"records": (("record", "radius"), tuple((f"{k:064x}", f"{k}") for k in range(10_000)))},
        ),
        checks=tuple(replace(c, evidence={"records": [f"{k:064x}" for k in range(10_000)]}) for c in view.checks),
    )
    text = render(many)
    assert len(text.encode()) < 3_000_000
    assert "9,940 more, all of them in summary.json" in text
    assert "9,500 more rows are not shown" in text
    assert "The first 8 of 10,000 records are drawn" in text


def test_no_string_can_fail_it():
    @settings(max_examples=25, deadline=None)
    @given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
    def check(value):
        result = CheckResult(
            check=value,
            verdict="REFUTED",
            summary=value,
            evidence={value: [{value: value}]},
            findings=(Finding(threat=value, check=value, message=value),),
        )
        view = replace(
            bare("REFUTED"),
            profile=value,
            names={value: value},
            checks=(result,),
            required=(value,),
            not_claimed=(value,),
            pictures=Pictures(scores={value: (np.zeros(1), np.ones(2))}, unit=value, radii=(1,)),
        )
        text = render(view)
        text.encode("utf-8")
        page = Page(text)
        assert {name for name, _, _ in page.elements} <= ALLOWED
        json.dumps(to_summary(view), allow_nan=False).encode()

    check()


def test_nested_evidence():
    view = replace(
        bare(),
        checks=(
            CheckResult(
                check="redirection",
                verdict="INCONCLUSIVE",
                summary="s",
                evidence={
                    "table_of": {"a": {"x": 1, "y": [0.5, 0.25]}, "b": {"x": 2, "y": [1, 2]}},
                    "unequal": {"a": {"x": 1}, "b": {"z": 2}},
                    "deeper": {"a": {"x": {"y": 1}}},
                    "long": {"a": {"x": [1, 2, 3, 4, 5]}},
                    "lists": {"a": {"x": [[1]]}},
                    "mixed": [{"a": 1}, 2],
                    "empty": {"a": {}},
                    "too_deep": [[[[[1]]]]],
                    "root": "ab" * 32,
                },
            ),
        ),
    )
    page = Page(render(view))
    assert len(page.all("table")) == 3
    assert "x y a 1 0.5, 0.25 b 2 1, 2" in page.text
    assert page.all("span", **{"class": "hex"})
    assert "1 more inside: see summary.json" in page.text


def test_facts_need_the_figures():
    view = bare()
    text = Page(render(replace(view, figures={"forget_records": 1, "certified_radius": "odd"}))).text
    assert "Forget set 1 record " in text
    assert "Certified radius" not in text
    assert "median 6 steps" in Page(render(VIEWS["refuted"])).text
    assert "Forget set" not in Page(render(replace(view, figures={"forget_records": "many"}))).text


def test_table_rows_of_any_length():
    odd = Pictures(tables={"t": ((), ()), "u": (("a",), (("1", "2"), ())), "v": (("h",), ())})
    page = Page(render(replace(bare(), pictures=odd)))
    data = [a for name, a, _ in page.elements if name == "td" and a.get("role") != "cell"]
    assert len(data) == 4


def test_pictures_only_some():
    for name in ("roc", "control", "base", "scores", "outputs", "persistence", "radii", "frontier"):
        some = Pictures(**{name: getattr(pictures(), name)})
        page = Page(render(replace(bare(), pictures=some)))
        assert page.all("svg", role="img"), name
