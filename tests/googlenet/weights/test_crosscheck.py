"""Every variant beside the framework that it comes from, stage by stage, on random weights and images.

torchvision's network is a torch module, slim's and inception5h's are TensorFlow's operations, all the variants are also
run by ONNX Runtime from the files we export. Their packages are the extra `crosscheck`; without one its tests skip.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest

from googlenet import weights
from googlenet.config import ModelConfig
from googlenet.model import VARIANTS, GoogLeNet, preprocessing_of
from googlenet.weights import Weights
from googlenet.weights.contents import Contents
from googlenet.weights.placing import place
from minigrad import Tensor, init, no_grad, ops

CLOSE = 1e-4  # of the largest value; what is found is some 1e-6
WIDTH, CLASSES = 0.25, 11


def agree(model: GoogLeNet, x: np.ndarray, theirs: Mapping[str, np.ndarray], channels_last: bool) -> None:
    """Every stage that both have, to CLOSE, with batch norms and folded; and all of theirs are ours too."""
    for network in dict.fromkeys((model, model.folded())):
        with no_grad():
            ours = {name: y.data for name, y in network.stages(Tensor(x))}
            ours |= {head: network.head(head)(Tensor(ours[stage])).data for stage, head in network.heads.items()}
        assert theirs.keys() <= ours.keys()
        assert len(theirs) > 15
        for name, expected in theirs.items():
            if expected.ndim == 4 and not channels_last:
                expected = expected.transpose(0, 2, 3, 1)
            assert ours[name].shape == expected.shape, name
            error = np.abs(ours[name] - expected).max() / np.abs(expected).max()
            assert error <= CLOSE, f"{name}: {error:.1e} of the largest value"


def images(mean: float = 0, deviation: float = 1) -> np.ndarray:
    return np.random.default_rng(7).normal(mean, deviation, (2, 224, 224, 3)).astype(np.float32)


def as_arrays(stages: Iterable) -> dict[str, np.ndarray]:
    return {name: y.numpy() for name, y in stages}


def test_torchvision():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from tests.googlenet.weights.torchvision_network import GoogLeNet as Torchvision

    torch.manual_seed(0)
    net = Torchvision(num_classes=CLASSES, aux_logits=True, width=WIDTH).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    found = place(Contents("torch", {name: t.numpy() for name, t in net.state_dict().items()}), "torchvision", "")
    assert (found.config.variant, found.config.heads) == ("torchvision", "both")
    x = images()
    with torch.no_grad():
        theirs = as_arrays(net.stages(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())))
    agree(found.model(), x, theirs, channels_last=False)


def test_slim():
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    from tests.googlenet.weights.slim_network import Slim, random_arrays

    arrays = random_arrays(WIDTH, CLASSES)
    found = place(Contents("checkpoint", arrays), "slim", "")
    x = images()
    agree(found.model(), x, as_arrays(Slim(arrays).stages(x)), channels_last=True)


def test_inception5h():
    """With images on the scale 0..255, at which its local response normalisation matters."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    from googlenet.weights import formats
    from tests.googlenet.weights.inception5h_network import Inception5h

    file = Path(__file__).parents[2] / "fixtures/weights/inception5h_graph.pb"
    found = weights.read(file).weights
    x = images(deviation=60)
    agree(found.model(), x, as_arrays(Inception5h(formats.read(file).arrays).stages(x)), channels_last=True)


def random_weights(variant: str, **config) -> Weights:
    """Weights whose batch norms are no identity, on which local response normalisation matters."""
    made = ModelConfig(variant=variant, classes=CLASSES, width=WIDTH, heads="none", **config)
    model = GoogLeNet(made)
    init.initialise(model, 2, weight="he", bias=0.2)
    rng = np.random.default_rng(3)
    for path, array in model.state().items():
        if "/batch_norm/" in path:
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    return Weights(made, model.state(), tuple(map(str, range(CLASSES))), preprocessing_of(made))


@pytest.mark.parametrize("batch_norm", ["learned", "folded"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_onnx_runtime_computes_the_same_from_what_we_export(variant, batch_norm, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    from googlenet.weights.formats.onnx import export

    model = random_weights(variant, batch_norm=batch_norm).model()
    export.write(tmp_path / "network.onnx", model)
    x = images(deviation=60)
    session = runtime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(None, {"images": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})[0]
    with no_grad():
        got = model(Tensor(x)).logits.data
    assert np.abs(got - expected).max() <= CLOSE * np.abs(expected).max()


def test_the_light_graph_of_the_onnx_package(tmp_path):
    """A real exported graph, with floored pools. Its weights are all 0.02, so that random ones take their place."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    graph = onnx.load(str(Path(onnx.__file__).parent / "backend/test/data/light/light_inception_v1.onnx"))
    rng = np.random.default_rng(4)
    filled = [node for node in graph.graph.node if node.op_type == "ConstantOfShape"]
    shapes = {each.name: onnx.numpy_helper.to_array(each) for each in graph.graph.initializer}
    for node in filled:
        shape = shapes[node.input[0]]
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        graph.graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
        graph.graph.node.remove(node)
    onnx.save(graph, str(tmp_path / "light.onnx"))
    found = weights.read(tmp_path / "light.onnx").weights
    assert found.config.variant == "onnx-inception-v1"
    session = runtime.InferenceSession(tmp_path / "light.onnx", providers=["CPUExecutionProvider"])
    x = images(deviation=60)[:1]
    expected = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(x.transpose(0, 3, 1, 2))})[0]
    assert expected.max() > 5 * expected.mean(), "the classes are told apart"
    with no_grad():
        got = ops.softmax(found.model()(Tensor(x)).logits).data
    assert np.abs(got - expected.reshape(1, -1)).max() <= CLOSE * expected.max()
