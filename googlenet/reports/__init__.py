"""What a run and a test leave to look at: the log, curves, pages. Only scripts import this."""
