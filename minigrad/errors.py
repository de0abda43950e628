"""The one exception that says: the caller can mend this."""


class InputError(ValueError):
    """A bad file, flag, shape or value; the message names the thing, the value and the remedy."""
