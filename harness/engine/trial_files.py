"""The large files of trials in a place that all nodes reach (`places`), written by the workers themselves.

If there is no place, or it is away, they go through the recorder into the home as usual.
"""

from __future__ import annotations

import contextlib

from harness.record import artifacts, places
from harness.types import Json


class TrialFiles:
    """where: as in `Place`; "" for no place."""

    def __init__(self, where: str) -> None:
        self.place = places.Place(where) if where else None

    def save(self, trial_id: str, state: bytes) -> bool:
        """Write a checkpoint; return whether the place has it."""
        if self.place is None:
            return False
        try:
            self.place.put(_checkpoint(trial_id), artifacts.signed(state))
        except OSError:
            return False
        return True

    def state(self, trial_id: str) -> bytes | None:
        """Return the state in a trial's checkpoint; None if there is none, it is damaged or the place is away."""
        if self.place is None:
            return None
        try:
            content = self.place.get(_checkpoint(trial_id))
        except OSError:
            return None
        return artifacts.state_of(content) if content else None

    def drop(self, trial_id: str) -> None:
        """Remove a checkpoint. One that stays because the place is away does no harm."""
        if self.place is not None:
            with contextlib.suppress(OSError):
                self.place.remove(_checkpoint(trial_id))

    def without_weights(self, trial_id: str, parts: Json) -> Json:
        """Write the weights among a trial's artifacts; return the artifacts with where they are instead."""
        if self.place is None or not parts["weights"]:
            return parts
        try:
            pointer = self.place.put(f"{trial_id}.{artifacts.WEIGHTS}", parts["weights"])
        except OSError:
            return parts
        return parts | {"weights": b"", "elsewhere": {artifacts.WEIGHTS: pointer}}


def _checkpoint(trial_id: str) -> str:
    return f"{trial_id}.checkpoint"
