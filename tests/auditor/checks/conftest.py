"""Small changes to an honest bundle's evidence."""

import dataclasses

import pytest


@pytest.fixture
def changed(honest_evidence):
    """A function that replaces parts of the honest evidence: fields of it, of its case (`case__x`) or transcript."""

    def change(**parts):
        own = {name: value for name, value in parts.items() if "__" not in name}
        for place in ("case", "transcript"):
            inner = {n.removeprefix(f"{place}__"): v for n, v in parts.items() if n.startswith(f"{place}__")}
            if inner:
                own[place] = dataclasses.replace(getattr(honest_evidence, place), **inner)
        return dataclasses.replace(honest_evidence, **own)

    return change


@pytest.fixture
def levels(honest_evidence):
    """The honest evidence under other levels of one check."""

    def change(check, **values):
        profile = honest_evidence.profile
        merged = {**profile.levels, check: {**profile.levels[check], **values}}
        return dataclasses.replace(honest_evidence, profile=dataclasses.replace(profile, levels=merged))

    return change


@pytest.fixture
def unreadable(changed):
    """Evidence whose patch could not be read."""
    return changed(case__patch=None)
