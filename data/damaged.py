"""Images that cannot be used: each named once in the log and counted, up to a limit."""

from __future__ import annotations

import logging

from data.errors import DataError

__all__ = ["Damaged"]

log = logging.getLogger(__name__)


class Damaged:
    """The damaged images of a data set (`origin`, for the message): `found` holds name -> reason."""

    def __init__(self, origin: str, most: int) -> None:
        self.origin = origin
        self.most = most
        self.found: dict[str, str] = {}

    def note(self, name: str, reason: str) -> None:
        """Log and count an image that is left out; one noted before is neither logged nor counted again.

        Raises DataError when there are more than `most`."""
        if name not in self.found:
            self.found[name] = reason
            log.warning("left out %s: %s", name, reason)
        if len(self.found) > self.most:
            raise DataError(f"{self.origin}: {len(self.found)} images cannot be used, more than the {self.most} "
                            f"allowed; the last is {name}: {reason}")
