"""Asynchronous training by many replicas and a sharded parameter server, as in the paper's DistBelief."""
