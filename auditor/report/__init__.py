"""The report as people read it: one self-contained page, and the same facts as JSON.

Proves nothing: it shows what the checks found, in the order in which a reader needs it. Nothing in a
report comes from the network, and no script runs in it.
"""

from auditor.report.drawings import svg_files
from auditor.report.html import render
from auditor.report.summary import to_summary

__all__ = ["render", "svg_files", "to_summary"]
