"""Fixtures of the auditor's tests: a workshop for signed bundles, and one honest bundle made in it."""

import pytest


@pytest.fixture(scope="session")
def workshop(small_demo, tmp_path_factory):
    """A copy of the small world in which bundles can be made and signed; only added to, never broken."""
    from tests.auditor.workshop import Workshop

    return Workshop(small_demo, tmp_path_factory.mktemp("workshop") / "world")


@pytest.fixture
def own_workshop(small_demo, tmp_path):
    """One for a test that lets time pass: deadlines of everybody's bundles would be over."""
    from tests.auditor.workshop import Workshop

    return Workshop(small_demo, tmp_path / "world")


@pytest.fixture(scope="session")
def honest(workshop):
    """An honest bundle in answer to 40 records, with its answer."""
    return workshop.forge()


@pytest.fixture(scope="session")
def honest_evidence(workshop, honest):
    """What the checks look at for the honest bundle."""
    return workshop.evidence(honest)
