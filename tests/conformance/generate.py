"""Write every generated case into a folder: `python -m tests.conformance.generate FOLDER`.

The same bytes on every run and machine, but for deflate streams (`*.npz`), which zlib may pack differently.
`cases.sha256` beside this file is the digest of all the rest.
"""

import hashlib
import sys
from pathlib import Path

from tests.conformance import cases_log, cases_receipt, cases_report

DIGEST = Path(__file__).with_name("cases.sha256")


def generate(root: Path) -> None:
    """Write the cases of every group that needs nothing but messages and logs."""
    for module in (cases_receipt, cases_log, cases_report):
        module.write(root)


def digest(root: Path) -> str:
    """SHA-256 over names and contents of all files, links by their targets."""
    found = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            data = str(path.readlink()).encode()
        elif path.is_file() and path.suffix != ".npz":
            data = path.read_bytes()
        else:
            continue
        found.update(f"{path.relative_to(root)}\n{hashlib.sha256(data).hexdigest()}\n".encode())
    return found.hexdigest()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    generate(target)
    print(f"{target}: {sum(1 for _ in target.rglob('case.json'))} cases, SHA-256 {digest(target)}")
