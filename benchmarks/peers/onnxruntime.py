"""ONNX Runtime on its CPU provider."""
from __future__ import annotations

import numpy as np
import onnxruntime

from benchmarks.job import Job, Network


def prepare(job: Job) -> None:
    """Write the network as ONNX."""
    from benchmarks.peers import onnx_graph

    onnx_graph.write(job)


def inference(job: Job) -> Network:
    """Return a session with all optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
    session = onnxruntime.InferenceSession(job.file("network.onnx"), options, providers=["CPUExecutionProvider"])

    def infer(x: np.ndarray) -> np.ndarray:
        return session.run(None, {"images": x})[0]

    return Network(lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)), infer)
