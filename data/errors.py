"""The one exception of this package."""


class DataError(ValueError):
    """What the user can mend: a missing folder, a damaged picture, a label out of range. The message names it."""
