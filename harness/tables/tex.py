r"""LaTeX: a table a section for a paper, with booktabs rules; best bold, second underlined, marks of significance.

The result is a fragment for ``\input``; its preamble needs ``\usepackage{booktabs}`` and nothing else. Texts are in
what pdfLaTeX with its default fonts can set: what it cannot is written as its code point.
"""

from __future__ import annotations

import unicodedata

from harness.tables import _words as words
from harness.tables._table import Row, Section, Table

SPECIAL = {
    **{char: f"\\{char}" for char in "#$%&_{}"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after a line break or a rule, a bracket would begin an argument
    "]": "{]}",
    "-": "{-}",  # no ligatures to dashes
    **{"–": "--", "—": "---", "…": r"\dots{}", "−": "$-$", "≥": r"$\geq$", "≤": r"$\leq$"},
    **{"×": r"$\times$", "·": r"$\cdot$", "±": r"$\pm$", "≈": r"$\approx$"},
    "★": r"$\star$",
    "☆": r"$\circ$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "◆": r"$\diamond$",
}
SIGNS = {"differs": "*", "tied": r"\approx", "short": r"\dagger", "less": r"\ddagger"}


def render(table: Table) -> str:
    """All tables, one after the other."""
    blocks = ["% Needs \\usepackage{booktabs}.", *(_section(table, section) for section in table.sections)]
    blocks += [_across(*words.across_rows(one), words.across_lines(one), one.backbone) for one in table.across]
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    r"""Text that LaTeX sets as it is, on one line.

    >>> escape("50% of a_b\\x"), escape("é 中")
    ('50\\% of a\\_b\\textbackslash{}x', "\\'{e} U+4E2D")
    """
    return "".join(_set(char) for char in words.safe(text))


def _set(char: str) -> str:
    if char in SPECIAL or char.isascii():
        return SPECIAL.get(char, char)
    base, *marks = unicodedata.normalize("NFD", char)
    accents = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"'}
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in accents:
        return f"\\{accents[marks[0]]}{{{base}}}"
    return f"U+{ord(char):04X}"


def _section(table: Table, section: Section) -> str:
    """Rows with every metric, the gain over `id`, and holes with their state."""
    best = {name: _places(section, name) for name in table.metrics}
    titles = ["adapter", "encoder", *table.metrics, "vs id %"]
    lines = [" & ".join(map(escape, titles)), *(_row(table, row, best) for row in section.rows)]
    notes = [*words.section_lines(section), words.parity(table, section), *words.notes(section)]
    notes += words.header_lines(table, words.ABOVE) + words.footnotes(table)
    caption = f"Test scores on {words.title(section)}, mean over users and seeds."
    return _float(caption, "ll" + "r" * (len(titles) - 2), lines, notes)


def _places(section: Section, name: str) -> list[float]:
    """The best and the second mean of a metric, as they are printed."""
    means = {round(row.metrics[name].mean, 4) for row in section.rows if row.metrics}
    return sorted(means, reverse=True)[:2]


def _row(table: Table, row: Row, best: dict[str, list[float]]) -> str:
    own = [escape(words.adapter(row.cell)), escape(words.encoder(row.cell))]
    if not row.metrics:
        return " & ".join([*own, rf"\multicolumn{{{len(table.metrics) + 1}}}{{l}}{{\emph{{{escape(row.state)}}}}}"])
    scores = [_score(row, name, best[name], name == table.headline) for name in table.metrics]
    percent = words.gain(row.vs_id)
    return " & ".join([*own, *scores, escape(percent)])


def _score(row: Row, name: str, best: list[float], headline: bool) -> str:
    mean = round(row.metrics[name].mean, 4)
    text = words.score(row.metrics[name].mean)
    text = rf"\textbf{{{text}}}" if mean == best[0] else rf"\underline{{{text}}}" if mean in best else text
    signs = "".join(SIGNS[mark] for mark in row.marks if mark in SIGNS) if headline else ""
    group = rf"\mathrm{{{row.group}}}" if headline and row.group else ""
    return f"{text}$^{{{signs}{group}}}$" if signs or group else text


def _across(titles: list[str], rows: list[list[str]], notes: list[str], backbone: str) -> str:
    lines = [" & ".join(map(escape, cells)) for cells in (titles, *rows)]
    return _float(f"Over data sets, {backbone}.", "l" + "r" * (len(titles) - 1), lines, notes)


def _float(caption: str, columns: str, lines: list[str], notes: list[str]) -> str:
    head, *body = (f"{line} \\\\" for line in lines)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\medskip\raggedright\footnotesize",
            *(f"{escape(note)}\\par" for note in notes),
            r"\end{table}",
        ]
    )
