"""Check the LaTeX of the tables without LaTeX: errors that TeX would stop at, and commands injected by a name.

No parser from the package index finds these (docs/decisions/0011-by-hand-or-library.md).
"""

from __future__ import annotations

import re

TOKEN = re.compile(r"\\([A-Za-z]+\*?|.)|([{}$&%#^_~])|(\n\s*\n)|([^\\{}$&%#^_~\n]+|\n)", re.DOTALL)
WORDS = {
    *("begin", "end", "caption", "centering", "raggedright", "noindent", "par", "medskip", "multicolumn"),
    *("footnotesize", "scriptsize", "ttfamily", "char", "setlength", "tabcolsep", "toprule", "midrule", "bottomrule"),
    *("textbf", "emph", "underline", "mathrm", "textbackslash", "textasciicircum", "textasciitilde", "textless"),
    *("textgreater", "textbar", "dots", "geq", "leq", "times", "cdot", "pm", "approx", "star", "circ", "dagger"),
    *("ddagger", "diamond", "uparrow", "mathdollar"),
}
SIGNS = set("\\#$%&_{}'`^\"~ ")  # allowed after a backslash: a line break, a special character, an accent
ENVIRONMENTS = {"table", "tabular", "center"}


def faults(text: str) -> list[str]:
    """Return the faults of a fragment, each with its line."""
    reader = _Reader(text)
    reader.read()
    return reader.faults


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.faults = text, []
        self.groups: list[str] = []  # open groups, innermost last: "{", "$", or the name of an environment
        self.at = 0

    def fault(self, message: str) -> None:
        self.faults.append(f"line {self.text.count(chr(10), 0, self.at) + 1}: {message}")

    def read(self) -> None:
        if not self.text.isascii():
            self.fault("characters other than ASCII")
        body = re.sub(r"(?m)^%.*\n", "", self.text)
        self.text = body
        for token in TOKEN.finditer(body):
            self.at = token.start()
            command, sign, blank, _ = token.groups()
            if command:
                self.command(command, body[token.end() :])
            elif sign:
                self.sign(sign)
            elif blank and self.groups and self.groups[-1] in "{$":
                self.fault("a paragraph ends inside a group")
        if self.groups:
            self.fault(f"not closed: {self.groups}")
        for spec, rows in re.findall(
            r"\\begin\{tabular\}\{(?:@\{\})?([lr]*)(?:@\{\})?\}(.*?)\\end\{tabular\}", body, re.DOTALL
        ):
            self.tabular(len(spec), rows)

    def command(self, name: str, after: str) -> None:
        name = name.rstrip("*") if name[0].isalpha() else name
        if name in ("begin", "end"):
            self.environment(name, after)
        elif name == "\\":
            if not {"tabular", "center"} & set(self.groups):
                self.fault("a line break outside a table")
        elif name not in WORDS | SIGNS:
            self.fault(f"unknown command \\{name}")

    def environment(self, name: str, after: str) -> None:
        environment = after[1 : after.index("}")]
        if environment not in ENVIRONMENTS:
            self.fault(f"unknown environment {environment}")
        if name == "begin":
            self.groups.append(environment)
        elif not self.groups or self.groups.pop() != environment:
            self.fault(f"{environment} ends, but is not the innermost group")

    def sign(self, sign: str) -> None:
        if sign == "{":
            self.groups.append("{")
        elif sign == "}":
            if not self.groups or self.groups.pop() != "{":
                self.fault("a closing brace without an opening one")
        elif sign == "$":
            if self.groups and self.groups[-1] == "$":
                self.groups.pop()
            else:
                self.groups.append("$")
        elif sign == "&":
            if not self.groups or self.groups[-1] != "tabular":
                self.fault("& outside a table row")
        elif sign in "^_":
            if "$" not in self.groups:
                self.fault(f"{sign} outside math")
        else:
            self.fault(f"{sign} not escaped")

    def tabular(self, columns: int, body: str) -> None:
        rows = re.sub(r"\\(toprule|midrule|bottomrule)", "", body)
        for row in re.split(r"(?<!\\)\\\\", rows)[:-1]:
            spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
            count = len(re.findall(r"(?<!\\)&", row)) + 1 + sum(spans) - len(spans)
            if count != columns:
                self.fault(f"{count} columns, not {columns}: {row.strip()[:60]}")
            if row.strip().startswith(("[", "*")):
                self.fault(f"a row begins like an argument of the line break before it: {row.strip()[:40]}")
