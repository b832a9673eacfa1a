"""README says what the programs do: every help block in it is what `--help` prints today.

python -m tests.test_readme --write      bring the blocks up to date
"""

import os
import re
import sys
from pathlib import Path

from click.testing import CliRunner

import auditor.cli
import owner.cli

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"<!-- help: (?P<command>[a-z -]+) -->\n```\n(?P<text>.*?)```\n", re.DOTALL)


def help_text(command: str) -> str:
    program, *rest = command.split()
    main = {"prune-owner": owner.cli.main, "prune-auditor": auditor.cli.main}[program]
    result = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(main, [*rest, "--help"], prog_name=program)
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.output.splitlines()) + "\n"


def updated(text: str) -> str:
    return BLOCK.sub(lambda m: f"<!-- help: {m['command']} -->\n```\n{help_text(m['command'])}```\n", text)


def test_every_help_block_is_what_the_program_prints():
    text = README.read_text()
    commands = [match["command"] for match in BLOCK.finditer(text)]
    assert "prune-owner" in commands
    assert "prune-auditor" in commands
    assert updated(text) == text, "run: python -m tests.test_readme --write"


def test_the_two_commands_come_first():
    body = README.read_text()
    assert body.index("make demo") < body.index("make test") < body.index("## ")


def test_pictures_and_files_that_the_readme_names_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (README.parent / target).exists(), target


if __name__ == "__main__" and "--write" in sys.argv:
    os.environ["COLUMNS"] = "100"
    README.write_text(updated(README.read_text()))
