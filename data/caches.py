"""Where this program keeps what it has fetched or counted once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from data.errors import DataError

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return $GOOGLENET_CACHE, or this program's folder among the platform's caches.

    Raises DataError for a user without a home."""
    if own := os.environ.get("GOOGLENET_CACHE"):
        return Path(own)
    try:
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "googlenet"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "googlenet"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "googlenet"
    except RuntimeError as error:
        raise DataError("you have no home folder to keep fetched files in: set GOOGLENET_CACHE to a folder") from error
