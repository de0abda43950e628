"""The torch network that others are compared with: torchvision's names and counts, and our stages."""

import pytest

torch = pytest.importorskip("torch", reason="the network is a torch module")

networks = pytest.importorskip("tests.googlenet.weights.torchvision_network")
GoogLeNet, random_network = networks.GoogLeNet, networks.random_network


@pytest.mark.parametrize(("heads", "names", "parameters"), [(False, 344, 6_624_904), (True, 364, 13_004_888)])
def test_names_and_counts_are_torchvisions(heads, names, parameters):
    network = GoogLeNet(aux_logits=heads)
    shapes = {name: tuple(array.shape) for name, array in network.state_dict().items()}
    assert len(shapes) == names
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert list(shapes)[:3] == ["conv1.conv.weight", "conv1.bn.weight", "conv1.bn.bias"]
    assert shapes["inception4b.branch3.1.conv.weight"] == (64, 24, 3, 3)
    assert shapes["inception5b.branch4.1.bn.running_var"] == (128,)
    assert shapes["fc.weight"] == (1000, 1024)
    assert [pool.kernel_size for pool in (network.maxpool1, network.maxpool3, network.maxpool4)] == [3, 3, 2]
    if heads:
        assert shapes["aux1.fc1.weight"] == (1024, 2048)
        assert shapes["aux2.conv.conv.weight"] == (128, 528, 1, 1)


def test_stages():
    network = random_network(1)
    with torch.no_grad():
        stages = dict(network.stages(torch.randn(1, 3, 224, 224)))
        assert list(stages) == [
            "conv1", "pool1", "conv2_reduce", "conv2", "pool2", "inception_3a", "inception_3b", "pool3", "inception_4a",
            "inception_4b", "inception_4c", "inception_4d", "inception_4e", "pool4", "inception_5a", "inception_5b",
            "pool5", "classifier", "aux1", "aux2"]
        sides = {name: stages[name].shape[-1] for name in ("conv1", "pool1", "pool2", "pool3", "pool4")}
        assert sides == {"conv1": 112, "pool1": 56, "pool2": 28, "pool3": 14, "pool4": 7}
        assert all(stages[name].shape == (1, 7) for name in ("classifier", "aux1", "aux2"))
        assert not any(torch.isnan(output).any() for output in stages.values())
        assert "aux1" not in dict(random_network(1, aux_logits=False).stages(torch.randn(1, 3, 64, 64)))


def test_input_is_taken_back_to_one():
    """(x - mean) / std of ImageNet in, x * 2 - 1 into the first layer."""
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        torch.testing.assert_close(random_network(2, transform_input=True)((pixels - mean) / std),
                                   random_network(2)(pixels * 2 - 1))
