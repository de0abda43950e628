"""How the scripts of data end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from tqdm.contrib.logging import logging_redirect_tqdm

from data.errors import DataError

__all__ = ["run"]


def run(main: Callable[[list[str]], None], program: str, arguments: list[str], stopped: str) -> None:
    """Run a script's `main`; exit with 1 and one line for an error, with 130 and a line with `stopped` after Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        with logging_redirect_tqdm():
            main(arguments)
    except (DataError, OSError) as error:
        sys.exit(f"{program}: error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{program}: stopped; {stopped}\n")
        sys.exit(130)
