"""The matrix that a data set brings along, by the name that it has there: ``own:<name>``, or ``own`` if it has but one.

Names stand in the folder's dataset.toml or in the home's config.toml, both under ``[embeddings]``, so that one word
reads another file for every data set. What is made is that of ``file:`` with that file, and known as that.
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
        """The file of that name. Raises HarnessError if the data set has none, or several and no name is given."""
        have = texts.matrices
        if self.argument in have or (not self.argument and len(have) == 1):
            return File(str(have[self.argument or next(iter(have))]), self.home)
        if not have:
            raise HarnessError(
                f"'{self.word}': the data set '{texts.dataset}' declares no embedding. Name its files under "
                f"[embeddings] in dataset.toml, or leave it out: '!{texts.dataset}'."
            )
        lacks = f"declares no '{self.argument}'" if self.argument else "declares several"
        known = suggest(self.argument, list(have))
        raise HarnessError(f"'{self.word}': the data set '{texts.dataset}' {lacks}. {known}")
