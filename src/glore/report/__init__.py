"""A run's records → terminal tables and one self-contained HTML page.

build             reads a finished run; writes the page, prints the tables
tables            the tables: one source for terminal, page, Markdown and files
table_files       a table as CSV and as LaTeX
judging_tables    Tables 1 and 2 of them
decomposition_tables  when, where, how, which: the part that fails
weakest_part      that part as one sentence
views             names, cells as text, tables as Markdown
summary           what came out, in plain words
figures           inline SVG, drawn with `svg`
judging_figures   rerank curves, calibration, label balance
solution_browser  the data of the solution browser
page              the HTML page (page.css, page.js, solutions.js)
assets            style and scripts of pages, and the policy that allows no others
terminal          rich tables
paper             the paper's numbers, for orientation
"""

from __future__ import annotations

from glore.report.build import browser_data, build_report, print_tables

__all__ = ["browser_data", "build_report", "print_tables"]
