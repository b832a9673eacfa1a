"""summary.json: the shape that cli.md promises, and numbers that any JSON reader takes."""

import json
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from auditor.report import to_summary
from auditor.report.text import clean, is_hex, is_number, percent, plain, shown
from tests.auditor.report.views import audit, hostile


def test_shape():
    view = audit()
    summary = to_summary(view)
    assert list(summary) == ["verdict", "profile", "checks", "findings", "figures"]
    assert summary["verdict"] == "REFUTED"
    assert summary["profile"] == "indistinguishable"
    assert list(summary["checks"]) == [c.check for c in view.checks]
    assert summary["checks"]["binding"] == {
        "verdict": "CONSISTENT",
        "required": True,
        "summary": "Every file has the signed digest; the deployed file equals base and patch.",
        "evidence": {"files": 9, "bytes": 1482230, "nodes compared": 41},
    }
    assert summary["checks"]["disclosure"]["required"] is False
    assert [f["threat"] for f in summary["findings"]] == ["over-forgetting", "pair-leakage"]
    assert set(summary["findings"][0]) == {"threat", "check", "message"}
    assert summary["figures"]["membership"]["lira_two_sided"]["auc_two_sided"] == 0.830412


def test_hostile_is_still_json():
    text = json.dumps(to_summary(hostile()), allow_nan=False)
    text.encode("utf-8")
    assert json.loads(text)["checks"]["0<script>alert(1)</script>"]["required"] is True


def test_plain_values():
    assert plain(1.23456789) == 1.23457
    assert plain(np.float32(0.1)) == 0.1
    assert plain(np.array([1, 2])) == [1, 2]
    assert plain(np.bool_(1)) is True
    assert str(plain(-0.0)) == "0.0"
    assert plain(-1.0000004e-300) == -1e-300
    assert plain([float("nan"), float("inf"), -np.inf, None]) == [None] * 4
    assert plain({1: (2, {3})}) == {"1": [2, [3]]}
    assert plain(frozenset({"b", "a"})) == ["a", "b"]
    assert plain(b"\x01") == "01"
    assert plain(Decimal("1.50")) == "1.50"
    assert plain(Fraction(1, 3)) == "1/3"
    assert plain(2**63 - 1) == 2**63 - 1
    assert plain(2**64) == "0x10000000000000000"
    assert plain("a\ud800") == "a?"
    with pytest.raises(TypeError, match="object"):
        plain({"a": object()})


def test_shown_values():
    assert [shown(v) for v in (None, True, False, 1234567, "x")] == ["not available", "yes", "no", "1,234,567", "x"]
    assert [shown(v) for v in (0.123456, -0.5, -0.0, 1e-9)] == ["0.1235", "−0.5", "0", "1e−09"]
    assert shown(float("nan")) == "not a finite number"
    assert percent(0.12345) == "12.3 %"
    assert percent(float("inf")) == "not a finite number"


def test_clean():
    assert clean("a\nb\tc") == "a b c"
    assert clean("\u200b\U0010ffff") == "‹U+200B›‹U+10FFFF›"
    assert clean("e\u0301\u0301\u0301\u0301") == "e\u0301\u0301\u0301"
    assert clean("abcdef", 3) == "abc… (3 more characters)"
    assert clean(clean("\x00" * 10)) == clean("\x00" * 10)


def test_kinds_of_cells():
    assert is_hex("0123456789abcdef")
    assert not is_hex("0123456789ABCDEF")
    assert not is_hex(7)
    assert all(map(is_number, ("1", "−0.5", "1,234", "3.0 %", "1e−09")))
    assert not any(map(is_number, ("", "a", "1 to 2", "-")))
