"""The report's pictures as SVG files of their own, to be shown where a page cannot.

Each file is the page's own picture with the colours that it needs: it loads nothing, runs nothing, and follows dark
mode. The same view always gives the same bytes.
"""

import re
from functools import cache
from importlib.resources import files

from auditor.report import figures
from auditor.view import ReportView

_START = "<svg "


@cache
def _style() -> str:
    source = files("auditor.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    colours = source[: source.index("* {")]
    shapes = source[source.index("/* pictures */") : source.index("/* end of pictures */")]
    return f"{colours}svg {{ background: var(--paper); }}\n{shapes}"


def svg_files(view: ReportView) -> dict[str, bytes]:
    """Return every picture by its path in the report's folder."""
    found: dict[str, bytes] = {}
    for group in figures.groups(view.pictures):
        for place, panel in enumerate((*group.panels, *group.more)):
            drawn = str(panel.svg)
            assert drawn.startswith(_START)  # our own `svg.picture`
            words = re.sub("[^a-z0-9]+", "-", panel.title.lower()).strip("-")[:60].strip("-")
            name = f"pictures/{group.ident}-{place}" + (f"-{words}" if words else "") + ".svg"
            content = f'<svg xmlns="http://www.w3.org/2000/svg" width="720" {drawn[len(_START) :]}'
            head, _, rest = content.partition(">")
            found[name] = f"{head}><style>{_style()}</style>{rest}\n".encode()
    return found
