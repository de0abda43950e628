"""OpenVINO, forced to float32, which is what everyone else here computes in."""
from __future__ import annotations

import numpy as np
import openvino

from benchmarks.job import Job, Network


def prepare(job: Job) -> None:
    """Convert the network to OpenVINO's own format, which is mapped into memory instead of parsed."""
    from benchmarks.peers import onnx_graph

    converted = openvino.convert_model(onnx_graph.write(job))
    openvino.save_model(converted, job.file("network.xml"), compress_to_fp16=False)


def inference(job: Job) -> Network:
    """Return one stream on all threads: the lowest latency, and no worse at batch 16."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1",
                "INFERENCE_NUM_THREADS": job.threads}
    compiled = openvino.Core().compile_model(job.file("network.xml"), "CPU", settings)
    request = compiled.create_infer_request()

    def infer(x: np.ndarray) -> np.ndarray:
        return request.infer([x], share_inputs=True)[0]

    return Network(placed, infer)


def placed(x: np.ndarray) -> np.ndarray:
    """(N, H, W, C) -> (N, C, H, W)."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
