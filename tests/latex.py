"""A strict reader of the LaTeX that tables are made of, where no LaTeX is installed: faults that TeX would stop at, and
commands that only a name could have brought in."""

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
SIGNS = set("\\#$%&_{}'`^\"~ ")  # what may follow a backslash: a line break, a special character, an accent
ENVIRONMENTS = {"table", "tabular", "center"}


def faults(text: str) -> list[str]:
    """What is wrong with a fragment, empty if nothing is: each fault with its line."""
    reader = _Reader(text)
    reader.read()
    return reader.found


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.found = text, []
        self.groups: list[str] = []  # what is open, innermost last: "{", "$", or an environment's name
        self.at = 0

    def fault(self, what: str) -> None:
        self.found.append(f"line {self.text.count(chr(10), 0, self.at) + 1}: {what}")

    def read(self) -> None:
        if not self.text.isascii():
            self.fault("characters beyond ASCII")
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
            self.fault(f"left open: {self.groups}")
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
                self.fault("a line break where there are no lines")
        elif name not in WORDS | SIGNS:
            self.fault(f"unknown command \\{name}")

    def environment(self, name: str, after: str) -> None:
        which = after[1 : after.index("}")]
        if which not in ENVIRONMENTS:
            self.fault(f"unknown environment {which}")
        if name == "begin":
            self.groups.append(which)
        elif not self.groups or self.groups.pop() != which:
            self.fault(f"{which} ends and is not what is open")

    def sign(self, sign: str) -> None:
        if sign == "{":
            self.groups.append("{")
        elif sign == "}":
            if not self.groups or self.groups.pop() != "{":
                self.fault("a brace closes what is not open")
        elif sign == "$":
            if self.groups and self.groups[-1] == "$":
                self.groups.pop()
            else:
                self.groups.append("$")
        elif sign == "&":
            if not self.groups or self.groups[-1] != "tabular":
                self.fault("& outside of a table's row")
        elif sign in "^_":
            if "$" not in self.groups:
                self.fault(f"{sign} outside of mathematics")
        else:
            self.fault(f"{sign} as it is")

    def tabular(self, columns: int, body: str) -> None:
        rows = re.sub(r"\\(toprule|midrule|bottomrule)", "", body)
        for row in re.split(r"(?<!\\)\\\\", rows)[:-1]:
            spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
            count = len(re.findall(r"(?<!\\)&", row)) + 1 + sum(spans) - len(spans)
            if count != columns:
                self.fault(f"{count} columns of {columns}: {row.strip()[:60]}")
            if row.strip().startswith(("[", "*")):
                self.fault(f"a row that begins like an argument of the line break before it: {row.strip()[:40]}")
