"""The report as one HTML file: no script, no request to anywhere, readable on a phone and on paper.

Assumes: nothing about the strings it shows; the template engine escapes them all, `text.clean` makes hidden
characters visible, and the page's own policy (CSP) lets a browser run or load nothing but its style sheet.
Does not: decide anything. Every sentence on the page comes from the view or from `words`.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from auditor.report import figures, words
from auditor.report.figures import Table
from auditor.report.text import CELL, SHORT, clean, is_hex, plain, shown
from auditor.view import CheckResult, ReportView

DEEPEST = 4  # levels of nested evidence
ITEMS = 60  # of one list or mapping of evidence
TABLE_COLUMNS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A piece of evidence: text, a list of texts, named pieces, or a table of equal pieces.

    Attributes:
        text: a single value.
        items: several single values, one after the other.
        pairs: named values.
        table: where several pieces have the same names.
        left_out: items or pairs too many for the page; summary.json has them all.
    """

    text: str | None = None
    items: tuple[str, ...] = ()
    pairs: tuple[tuple[str, "Shown"], ...] = ()
    table: Table | None = None
    left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table of checks; `verdict` is None for a required check without a result."""

    ident: str
    check: str
    verdict: str | None
    question: str
    summary: str
    evidence: Shown
    open: bool


def _words(key: str) -> str:
    return clean(key, SHORT).replace("_", " ")


def _cell(value: Any) -> str:
    """Return a single value or a short list of them as a table's cell."""
    return clean(", ".join(map(shown, value)) if isinstance(value, list) else shown(value), CELL)


def _table(pairs: list[tuple[str, Any]], corner: str) -> Table | None:
    """Return named pieces as a table if all have the same few names and single values or short lists of them."""
    first = pairs[0][1]
    if not isinstance(first, dict) or not 0 < len(first) < TABLE_COLUMNS:
        return None
    for _, piece in pairs:
        if not isinstance(piece, dict) or piece.keys() != first.keys():
            return None
        if any(isinstance(v, dict) for v in piece.values()):
            return None
        lists = [v for v in piece.values() if isinstance(v, list)]
        if any(len(v) > 4 or any(isinstance(inner, dict | list) for inner in v) for v in lists):
            return None
    rows = tuple((name, *(_cell(piece[key]) for key in first)) for name, piece in pairs)
    return Table(title="Evidence", header=(corner, *map(_words, first)), rows=rows)


def _shown(value: Any, depth: int = 0) -> Shown:
    """Return a JSON value as the page shows it."""
    if isinstance(value, dict | list) and not value:
        return Shown(text="none")
    if isinstance(value, dict | list) and depth >= DEEPEST:
        return Shown(text=f"{len(value):,} more inside: see summary.json")
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return Shown(
            items=tuple(clean(shown(item), CELL) for item in value[:ITEMS]),
            left_out=max(len(value) - ITEMS, 0),
        )
    if isinstance(value, dict | list):
        named = value.items() if isinstance(value, dict) else enumerate(value, start=1)
        pairs = [(_words(str(key)), item) for key, item in named][:ITEMS]
        table = _table(pairs, "" if isinstance(value, dict) else "No.")
        return Shown(
            pairs=() if table else tuple((key, _shown(item, depth + 1)) for key, item in pairs),
            table=table,
            left_out=len(value) - len(pairs),
        )
    return Shown(text=shown(value))


def _row(place: int, result: CheckResult, *, required: bool) -> Row:
    return Row(
        ident=f"check-{place}",
        check=clean(result.check, SHORT),
        verdict=result.verdict,
        question=words.QUESTIONS.get(result.check, ""),
        summary=result.summary,
        evidence=_shown(plain(result.evidence)),
        open=required and result.verdict != "CONSISTENT",
    )


def _missing(check: str) -> Row:
    return Row(
        ident="",
        check=clean(check, SHORT),
        verdict=None,
        question=words.QUESTIONS.get(check, ""),
        summary="The profile requires this check, but there is no result of it.",
        evidence=Shown(text="none"),
        open=False,
    )


def _tally(rows: tuple[Row, ...]) -> tuple[tuple[str, int], ...]:
    """Return how many rows gave which verdict, the gravest first, without those that none gave."""
    counts = {v: sum((row.verdict or "INCONCLUSIVE") == v for row in rows) for v in ("REFUTED", "INCONCLUSIVE")}
    counts["CONSISTENT"] = len(rows) - sum(counts.values())
    return tuple((verdict, count) for verdict, count in counts.items() if count)


def _facts(view: ReportView) -> tuple[tuple[str, str], ...]:
    """Return the few facts that stand under the verdict."""
    facts = [("Profile", clean(view.profile, SHORT)), ("Audited", clean(view.audited_at, SHORT))]
    records = view.figures.get("forget_records")
    if isinstance(records, int):
        facts.append(("Forget set", f"{records:,} record" + "s" * (records != 1)))
    radius = view.figures.get("certified_radius")
    if isinstance(radius, Mapping) and {"min", "median"} <= radius.keys():
        smallest, middle = (clean(str(radius[key]), 40) for key in ("min", "median"))
        facts.append(("Certified radius", f"{smallest} at least, median {middle} {clean(view.pictures.unit, 20)}"))
    return tuple(facts)


@cache
def _environment() -> Environment:
    """Return the template engine: it escapes everything, fails on an unknown name, and cleans every string."""
    environment = Environment(
        loader=PackageLoader("auditor.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.tests["hexadecimal"] = is_hex
    environment.filters["cut"] = clean
    return environment


@cache
def _style() -> tuple[Markup, str]:
    """Return the style sheet, and its hash as the page's policy names it."""
    source = files("auditor.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return Markup(source), f"sha256-{digest}"  # noqa: S704  (our own file, not input)


def render(view: ReportView) -> str:
    """Return the report as a whole HTML page; the same view always gives the same characters.

    Args:
        view: what to show; none of its strings is trusted.

    Raises:
        TypeError: evidence that has no JSON form.
    """
    style, style_hash = _style()
    rows = tuple(_row(k, result, required=result.check in view.required) for k, result in enumerate(view.checks))
    counted = [row for row, result in zip(rows, view.checks, strict=True) if result.check in view.required]
    required = (*counted, *(_missing(check) for check in words.absent(view)))
    others = tuple(row for row in rows if row not in counted)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            view=view,
            style=style,
            style_hash=style_hash,
            verdict_word=words.WORDS[view.verdict],
            verdict_words=words.WORDS,
            meaning=words.meaning(view),
            deciding=words.deciding(view),
            aside=words.aside(view),
            facts=_facts(view),
            required=required,
            others=others,
            tallies=(_tally(required), _tally(others)),
            places={result.check: f"check-{k}" for k, result in enumerate(view.checks)},
            groups=figures.groups(view.pictures),
            tables=figures.tables(view.pictures),
            figures=_shown(plain(view.figures)) if view.figures else None,
        )
    )
