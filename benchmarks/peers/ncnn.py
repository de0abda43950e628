"""ncnn, in float32, one image at a time, which is how it works. Its two files are written here from our weights."""
from __future__ import annotations

from collections import Counter

import ncnn
import numpy as np

from benchmarks.job import CLASSES, Job, Network
from benchmarks.peers.network import LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, trunk

MAGIC = "7767517"
RAW = np.zeros(1, "<u4").tobytes()  # before weights: as they are, in float32


def prepare(job: Job) -> None:
    """Write network.param, the layers as text, and network.bin, the weights one after the other."""
    graph = Graph(job.weights())
    features, _ = trunk(graph, graph.layer("Input", [], f"0={job.size} 1={job.size} 2=3"))
    graph.linear(features, "classifier")
    job.file("network.param").write_text(graph.text())
    job.file("network.bin").write_bytes(b"".join(graph.blobs))


def inference(job: Job) -> Network:
    """Return the network with Winograd convolutions, and without the half precision that it takes by itself."""
    net = ncnn.Net()
    net.opt.num_threads = job.threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    if net.load_param(str(job.file("network.param"))) or net.load_model(str(job.file("network.bin"))):
        raise RuntimeError("ncnn can't read the network")
    first, last = net.input_names()[0], net.output_names()[0]

    def infer(images: list[np.ndarray]) -> np.ndarray:
        logits = np.empty((len(images), CLASSES), np.float32)
        for image, row in zip(images, logits, strict=True):
            x = ncnn.Mat(image)  # a view: it must live as long as the extractor, and so must the array
            extractor = net.create_extractor()
            extractor.input(first, x)
            _, y = extractor.extract(last)
            row[:] = np.array(y)
        return logits

    return Network(lambda x: [np.ascontiguousarray(image.transpose(2, 0, 1)) for image in x], infer)


class Graph:
    """Collects layers; an array is the name of a layer's output, which has that layer's name."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self.weights = weights
        self.layers: list[tuple[str, list[str], str]] = []  # type, inputs, parameters
        self.blobs: list[bytes] = []

    def layer(self, kind: str, inputs: list[str], parameters: str) -> str:
        """Add a layer and return its name."""
        self.layers.append((kind, inputs, parameters))
        return f"{kind}_{len(self.layers) - 1}"

    def _weighted(self, path: str, order: tuple[int, ...]) -> tuple[int, int]:
        """Append a layer's weights; returns how many outputs and how many weights it has."""
        weight, bias = self.weights[f"{path}/weight"], self.weights[f"{path}/bias"]
        self.blobs += [RAW, np.ascontiguousarray(weight.transpose(order)).tobytes(), bias.tobytes()]
        return bias.size, weight.size

    def conv(self, x: str, path: str, stride: int = 1, padding: int = 0) -> str:
        """Convolution (0 outputs, 1 kernel, 3 stride, 4 padding, 5 bias, 6 weights), ReLU (9)."""
        kernel = self.weights[f"{path}/weight"].shape[0]
        O, count = self._weighted(path, (3, 2, 0, 1))
        return self.layer("Convolution", [x], f"0={O} 1={kernel} 3={stride} 4={padding} 5=1 6={count} 9=1")

    def max_pool(self, x: str, kernel: int, stride: int, padding: int) -> str:
        """Max pooling (0=0), rounded up (5=0)."""
        return self.layer("Pooling", [x], f"0=0 1={kernel} 2={stride} 3={padding} 5=0")

    def lrn(self, x: str) -> str:
        """Local response normalisation across channels (0=0); ncnn divides alpha by the size as well."""
        return self.layer("LRN", [x], f"0=0 1={LRN_SIZE} 2={LRN_ALPHA:.8f} 3={LRN_BETA} 4={LRN_K}")

    def concat(self, xs: list[str]) -> str:
        """Join along the channels, the first axis of one image."""
        return self.layer("Concat", xs, "0=0")

    def average(self, x: str) -> str:
        """The mean (0=1) over the whole grid (4=1)."""
        return self.layer("Pooling", [x], "0=1 4=1")

    def linear(self, x: str, path: str) -> str:
        """A fully connected layer (0 outputs, 1 bias, 2 weights)."""
        O, count = self._weighted(path, (1, 0))
        return self.layer("InnerProduct", [x], f"0={O} 1=1 2={count}")

    def text(self) -> str:
        """Return the .param file: an output that several layers read is split into one for each."""
        readers = Counter(name for _, inputs, _ in self.layers for name in inputs)
        lines, taken = [], Counter[str]()
        for number, (kind, inputs, parameters) in enumerate(self.layers):
            sources = []
            for name in inputs:
                sources.append(f"{name}_{taken[name]}" if readers[name] > 1 else name)
                taken[name] += 1
            name = f"{kind}_{number}"
            lines.append(f"{kind} {name} {len(inputs)} 1 {' '.join([*sources, name])} {parameters}")
            if readers[name] > 1:
                copies = [f"{name}_{i}" for i in range(readers[name])]
                lines.append(f"Split split_{name} 1 {len(copies)} {' '.join([name, *copies])}")
        blobs = len(self.layers) + sum(count for count in readers.values() if count > 1)
        return "\n".join([MAGIC, f"{len(lines)} {blobs}", *lines, ""])
