"""The commands of `python -m googlenet`, one a file: `add` makes its flags, `run` does it. Only scripts import them."""
