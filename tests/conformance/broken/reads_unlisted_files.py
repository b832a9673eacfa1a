"""Does not mind files in a report that the signed manifest does not list (SPEC 8.1 c)."""

from protocol import manifest
from tests.conformance.broken import start

FAILS = ("report/file-unlisted",)


def patch(put):
    put(manifest, "verify_only_listed", lambda folder, listing, *, others: None)


if __name__ == "__main__":
    start(patch)
