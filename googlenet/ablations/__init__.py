"""Ablations: the paper's own questions, asked of networks that train in a minute."""
