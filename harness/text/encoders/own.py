"""A matrix that the data set provides, by name: ``own:<name>``, or ``own`` if it provides only one.

Names are declared in the folder's dataset.toml or in the home's config.toml, both under ``[embeddings]``, so one word
selects a different file for each data set. The result and its identity are those of ``file:`` with that file.
"""

from __future__ import annotations

from harness.registry import suggest
from harness.text.encoders._base import Encoder, Texts
from harness.text.encoders.file import File
from harness.types import HarnessError


class Own(Encoder):
    takes = "the name of an embedding of the data set"
    optional = True

    def on(self, texts: Texts) -> Encoder:
        """The file of that name. Raises HarnessError if there is no such file, or several and no name is given."""
        matrices = texts.matrices
        if self.argument in matrices or (not self.argument and len(matrices) == 1):
            return File(str(matrices[self.argument or next(iter(matrices))]), self.home)
        if not matrices:
            raise HarnessError(
                f"'{self.word}': the data set '{texts.dataset}' declares no embedding. List its files under "
                f"[embeddings] in dataset.toml, or exclude the data set: '!{texts.dataset}'."
            )
        problem = f"declares no '{self.argument}'" if self.argument else "declares several"
        hint = suggest(self.argument, list(matrices))
        raise HarnessError(f"'{self.word}': the data set '{texts.dataset}' {problem}. {hint}")
