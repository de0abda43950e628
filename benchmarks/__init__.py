"""What the network costs, beside its peers, in one run: README.md."""
