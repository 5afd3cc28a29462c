r"""LaTeX: tables for a paper, with booktabs rules; best bold, second underlined, marks of significance.

The result is a fragment for ``\input``; the preamble needs only ``\usepackage{booktabs}``. The scores of each section
are floats; the tables that follow (costs, parity, parts of the test) are set in place, and the notes come once, at the
end. Only characters that pdfLaTeX sets with its default outline fonts (no bitmaps) are used; others are written as
their code point.
"""

from __future__ import annotations

import unicodedata

from harness.report.tables import _captions as captions
from harness.report.tables import _columns, _format
from harness.report.tables._across import Across
from harness.report.tables._parity import parity
from harness.report.tables._table import Row, Section, Table
from harness.stats import resampling

SPECIAL = {
    **{char: f"\\{char}" for char in "#%&_{}"},
    "$": r"$\mathdollar$",  # the text-mode command uses a font that may exist only as bitmaps
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",
    "'": "{'}",  # avoids ligatures to double quotes, and those of ?` and !`
    "`": "{`}",
    "[": "{[}",  # after a line break or a rule, a bracket would begin an argument
    "]": "{]}",
    "*": "{*}",  # after a line break, a star would be part of it
    "-": "{-}",  # avoids ligatures to dashes
    **{"–": "{--}", "—": "{---}", "…": r"\dots{}", "−": "$-$", "≥": r"$\geq$", "≤": r"$\leq$"},
    **{"×": r"$\times$", "·": r"$\cdot$", "±": r"$\pm$", "≈": r"$\approx$"},
    "★": r"$\star$",
    "☆": r"$\circ$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "◆": r"$\diamond$",
    "↑": r"$\uparrow$",
}
SIGNS = {"differs": "*", "tied": r"\approx", "short": r"\dagger", "less": r"\ddagger", "rising": r"\uparrow"}
SMALL = r"\scriptsize "
EXPLAINED = ("group", "vs id %", "vs best rival %")  # columns of the scores, explained once at the end
SUPERSCRIPTS = "Superscript letters: groups, rows that share one do not differ significantly"


def render(table: Table) -> str:
    """Render all tables, one after the other."""
    blocks = ["% Needs \\usepackage{booktabs}."]
    for section in table.sections:
        blocks += [_scores(table, section), *_further(table, section), *_intervals(table, section)]
        blocks += [*_topics(table, section), *_budget(section), *_slices(section)]
    blocks += map(_across, table.across)
    columns = [column for column in _columns.all_columns(table) if column.topic or column.title in EXPLAINED]
    notes = captions.explanations(table, columns) + captions.header_lines(table, ("statistics", "code"))
    blocks.append("\n".join([r"{\footnotesize", *map(_paragraph, notes), "}"]))
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    r"""Escape text so that LaTeX sets it literally, on one line.

    >>> escape("50% of a_b\\x"), escape("é 中")
    ('50\\% of a\\_b\\textbackslash{}x', "\\'{e} U+4E2D")
    """
    return "".join(_set(char) for char in _format.safe(text))


def _set(char: str) -> str:
    if char in SPECIAL or char.isascii():
        return SPECIAL.get(char, char)
    base, *marks = unicodedata.normalize("NFD", char)
    accents = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"'}
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in accents:
        return f"\\{accents[marks[0]]}{{{base}}}"
    return f"U+{ord(char):04X}"


def _scores(table: Table, section: Section) -> str:
    """Return the metrics at the headline's cut-off and the gain over `id`, with their notes."""
    names = [name for name in table.metrics if name.endswith(_cutoff(table))]
    caption = f"Test scores on {captions.title(section)}, mean over {captions.averaged(table)}."
    notes = [*captions.section_lines(section), parity(table, section), *captions.notes(section)]
    notes += [*captions.header_lines(table, ("protocol", "prep", "budget", "engine")), *_marks(section)]
    return _float(caption, _metrics(section, names, table.headline), notes)


def _further(table: Table, section: Section) -> list[str]:
    """Return the metrics at the other cut-offs, if there is a result."""
    names = [name for name in table.metrics if not name.endswith(_cutoff(table))]
    if not names or not any(row.metrics for row in section.rows):
        return []
    caption = f"Further test scores on {captions.title(section)}, mean over {captions.averaged(table)}."
    return [_float(caption, _metrics(section, names, ""), [])]


def _intervals(table: Table, section: Section) -> list[str]:
    """Return the headline's intervals and the gains over the best rival, for which the scores have no room."""
    rows = [row for row in section.rows if row.metrics]
    titles = ["adapter", "encoder", table.headline, "[low, high]", "vs best rival %"]
    lines = []
    for row in rows:
        score = row.metrics[table.headline]
        texts = [_format.adapter(row.cell), _format.encoder(row.cell), _format.score(score.mean), _format.bounds(score)]
        lines.append(_cells([*texts, _minus(_format.gain(row.vs_rival))]))
    about = f"Intervals of {table.headline}: {captions.title(section)}"
    return [_block(about, _tabular("llrrr", [_cells(titles, SMALL)], lines))] if rows else []


def _cutoff(table: Table) -> str:
    return table.headline[table.headline.rindex("@") :]


def _metrics(section: Section, names: list[str], headline: str) -> str:
    """Return a column per metric; with a headline, also its marks and the gains over `id`. Holes show their state."""
    best = {name: _places(section, name) for name in names}
    gains = ["vs id %"] if headline else []
    titles = ["adapter", "encoder", *names, *gains]
    lines = []
    for row in section.rows:
        cells = [_state(row.state, len(titles) - 2)]
        if row.metrics:
            cells = [_score(row, name, best[name], name == headline) for name in names]
            cells += [escape(_minus(_format.gain(row.vs_id))) for _ in gains]
        lines.append([escape(_format.adapter(row.cell)), escape(_format.encoder(row.cell)), *cells])
    return _tabular("ll" + "r" * (len(titles) - 2), [_cells(titles, "" if headline else SMALL)], lines)


def _state(state: str, columns: int) -> str:
    return rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{escape(state)}}}}}"


def _places(section: Section, name: str) -> list[float]:
    """Return the best and second-best mean of a metric."""
    means = {row.metrics[name].mean for row in section.rows if row.metrics}
    return sorted(means, reverse=True)[:2]


def _score(row: Row, name: str, best: list[float], headline: bool) -> str:
    mean = row.metrics[name].mean
    text = _format.score(mean)
    text = rf"\textbf{{{text}}}" if mean == best[0] else rf"\underline{{{text}}}" if mean in best else text
    signs = "".join(SIGNS[mark] for mark in row.marks if mark in SIGNS) if headline else ""
    group = rf"\mathrm{{{row.group}}}" if headline and row.group else ""
    return f"{text}$^{{{signs}{group}}}$" if signs or group else text


def _marks(section: Section) -> list[str]:
    """Explain the marks of the section's scores."""
    used = {mark for row in section.rows for mark in row.marks}
    signs = [f"{_format.SYMBOLS[mark]} {_format.MEANINGS[mark]}" for mark in SIGNS if mark in used]
    scored = any(row.metrics for row in section.rows)
    return [f"Bold: best, underlined: second. {'; '.join([SUPERSCRIPTS, *signs])}."] if scored else []


def _topics(table: Table, section: Section) -> list[str]:
    blocks = []
    for topic, title in _columns.TOPICS.items():
        if facts := _columns.of_topic(table, topic):
            columns = [column for column in _columns.names() if column.title in ("adapter", "encoder")] + facts
            rows = [_cells([column.text(row) for column in columns]) for row in section.rows]
            spec = "".join("r" if column.right else "l" for column in columns)
            head = [_cells([column.title for column in columns], SMALL)]
            blocks.append(_block(f"{title}: {captions.title(section)}", _tabular(spec, head, rows)))
    return blocks


def _budget(section: Section) -> list[str]:
    """Return searches at smaller budgets: best of the first k trials, and below it the expected best of any k."""
    titles, rows = captions.budget_rows(section)
    if not rows:
        return []
    lines = []
    for name, *texts in rows:
        pairs = [text.partition(" ") for text in texts]
        lines += [
            _cells([name, *(first for first, _, _ in pairs)]),
            _cells(["", *(last for _, _, last in pairs)], SMALL),
        ]
    about = "Validation NDCG@10 after k trials: best of the first k (expected best of any k)"
    tabular = _tabular("l" + "r" * (len(titles) - 1), [_cells(titles)], lines)
    return [_block(f"{about}: {captions.title(section)}", tabular)]


def _slices(section: Section) -> list[str]:
    """Return scores and gains on the parts of the test, each above its interval."""
    blocks = []
    for dimension, slices in captions.slice_groups(section).items():
        by_cell = [{score.cell: score for score in one.scores} for one in slices]
        scores, gains = [], []
        for row in (row for row in section.rows if row.metrics):
            parts = [scores_of[row.cell] for scores_of in by_cell]
            scores += _two_lines(_format.label(row.cell), [(part.score, ".4f", ".3f") for part in parts])
            if any(part.vs_id for part in parts):
                gains += _two_lines(_format.label(row.cell), [(part.vs_id, "+.1f", "+.0f") for part in parts])
        names = [_halves(one.name) for one in slices]
        counts = [f"{last} ({one.queries:,})".strip() for (_, last), one in zip(names, slices, strict=True)]
        head = [_cells(["row", *(first for first, _ in names)], SMALL), _cells(["", *counts], SMALL)]
        spec, about = "l" + "r" * len(slices), f"by {dimension} (number of targets): {captions.title(section)}"
        blocks.append(_block(f"Test NDCG@10 {about}", _tabular(spec, head, scores)))
        if gains:
            blocks.append(_block(f"Gain over id in % {about}", _tabular(spec, head, gains)))
    return blocks


def _across(one: Across) -> str:
    """Return the comparison over data sets, each number above its interval."""
    titles, texts = captions.across_rows(one)
    rows = []
    for standing, row in zip(one.standings, texts, strict=True):
        formats = ((standing.rank, ".2f"), (standing.wins, ".2f"), (standing.gain, "+.1f"), (standing.elo, ".0f"))
        values = [(value, form, form) for value, form in formats]
        first, second = _two_lines(row[0], values[: len(titles) - 1])
        rows += [[*first, escape(standing.group)], [*second, ""]] if one.critical_difference else [first, second]
    head = [_cells([*half], SMALL) for half in zip(*map(_halves, titles), strict=True)]
    tabular = _tabular("l" + "r" * (len(titles) - 1), head, rows)
    return _float(f"Over data sets, {one.backbone}.", tabular, captions.across_lines(one))


def _two_lines(name: str, values: list[tuple[resampling.Interval | None, str, str]]) -> list[list[str]]:
    """Return a line of means and a smaller line of their intervals; `values`: with the formats of both."""
    means = [_format.DASH if value is None else f"{value.mean:{form}}" for value, form, _ in values]
    ends = ["" if value is None else f"[{value.low:{form}}, {value.high:{form}}]" for value, _, form in values]
    return [[SMALL + escape(name), *_cells([*map(_minus, means)])], _cells(["", *map(_minus, ends)], SMALL)]


def _halves(title: str) -> tuple[str, str]:
    """Break a long title into two lines at the blank nearest to its middle.

    >>> _halves("up to 5 events"), _halves("mean gain over id %"), _halves("no text")
    (('up to 5', 'events'), ('mean gain', 'over id %'), ('no text', ''))
    """
    blanks = [place for place, char in enumerate(title) if char == " "] if len(title) > 8 else []
    place = min(blanks, key=lambda at: abs(2 * at - len(title)), default=len(title))
    return title[:place], title[place + 1 :]


def _minus(number: str) -> str:
    """Replace the hyphen of a negative number by a minus sign."""
    return number.replace("-", "−")


def _cells(texts: list[str], size: str = "") -> list[str]:
    return [size + escape(text) if text else "" for text in texts]


def _tabular(columns: str, head: list[list[str]], rows: list[list[str]]) -> str:
    lines = [rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule", *map(_line, head), r"\midrule"]
    return "\n".join([r"\setlength{\tabcolsep}{2pt}", *lines, *map(_line, rows), r"\bottomrule", r"\end{tabular}"])


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _float(caption: str, tabular: str, notes: list[str]) -> str:
    lines = [r"\begin{table}", r"\centering\footnotesize", rf"\caption{{{escape(caption)}}}\medskip", tabular]
    below = [r"\par\medskip\raggedright", *map(_paragraph, notes)] if notes else []
    return "\n".join([*lines, *below, r"\end{table}"])


def _block(title: str, tabular: str) -> str:
    """Return a table that is not a float: LaTeX cannot defer that many floats."""
    return "\n".join([r"\begin{center}", rf"\footnotesize\textbf{{{escape(title)}}}\\*[1ex]", tabular, r"\end{center}"])


def _paragraph(text: str) -> str:
    return rf"\noindent {escape(text)}\par"
