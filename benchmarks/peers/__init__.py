"""Who else computes this network, one module a library; each is imported in a process of its own.

A module has `inference(job, **options)` and, where the library trains, `training(job, **options)`; see benchmarks.job
for what they return. `prepare(job)`, if there is one, writes what the peer reads, in a process before its own. All
build the network by `network.trunk`, from our weights.
"""
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

OURS = "googlenet"
# glibc gives large freed blocks back at once, and a step then waits for fresh pages; `import minigrad` sets the same.
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_TOP_PAD_": str(2**26)}


INFERS = frozenset({"inference", "crops"})
TRAINS = INFERS | {"training"}


class Peer(NamedTuple):
    """`hand_tuned`: more than a user of the library gets as it comes, and no part of `speedup`."""

    module: str
    works: frozenset[str]
    options: Mapping[str, Any] = MappingProxyType({})
    environment: Mapping[str, str] = MappingProxyType({})
    hand_tuned: bool = False


PEERS = {
    "torch":                Peer("torch", TRAINS | {"predict"}),
    "torch-kept":           Peer("torch", TRAINS, {}, KEPT),
    "torch-fused-lrn":      Peer("torch", TRAINS, {"fused_lrn": True}, {}, hand_tuned=True),
    "torch-fused-lrn-kept": Peer("torch", TRAINS, {"fused_lrn": True}, KEPT, hand_tuned=True),
    # Compiling in other processes is forbidden: they would outlive a Ctrl-C.
    "torch-compile":        Peer("torch", TRAINS, {"compiled": True}, {**KEPT, "TORCHINDUCTOR_COMPILE_THREADS": "1"}),
    "openvino":             Peer("openvino", INFERS),
    "onnxruntime":          Peer("onnxruntime", INFERS),
    "ncnn":                 Peer("ncnn", INFERS),
}
