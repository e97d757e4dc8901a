"""ONNX graphs of every form, written by hand and computed by numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ekd_lite.models.onnx_net import OnnxNet

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WEIGHTS = np.random.default_rng(0).normal(size=(48, 5))
IMAGES = torch.from_numpy(np.random.default_rng(1).normal(size=(7, 3, 4, 4))).float()


def graph(*, shape=("n", 3, 4, 4), kind="float32", as_input=False, ir_version=10, outputs=1):
    """A flattened image times a matrix, of any declared input."""
    helper = onnx.helper
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    real = np.float16 if kind == "float16" else np.float32
    number = helper.np_dtype_to_tensor_dtype(np.dtype(real))
    flat = [helper.make_node("Flatten", ["x"], ["flat"], axis=1)]
    if kind in ("uint8", "int64"):
        flat = [
            helper.make_node("Cast", ["x"], ["real"], to=number),
            helper.make_node("Flatten", ["real"], ["flat"], axis=1),
        ]
    names = [f"y{i}" for i in range(outputs)]
    nodes = [*flat, *(helper.make_node("MatMul", ["flat", "w"], [name]) for name in names)]
    inputs = [helper.make_tensor_value_info("x", element, shape)]
    if as_input:
        inputs.append(helper.make_tensor_value_info("w", number, WEIGHTS.shape))
    made = helper.make_graph(
        nodes,
        "net",
        inputs,
        [helper.make_tensor_value_info(name, number, [shape[0], 5]) for name in names],
        [onnx.numpy_helper.from_array(WEIGHTS.astype(real), "w")],
    )
    opset = helper.make_opsetid("", 8 if ir_version < 4 else 17)
    return helper.make_model(made, ir_version=ir_version, opset_imports=[opset])


def write(path: Path, model, **options) -> Path:
    onnx.save(model, str(path), **options)
    return path


def check(net, images=IMAGES, rtol=1e-5, order=(0, 1, 2, 3)):
    expected = images.double().permute(order).flatten(1).numpy() @ WEIGHTS
    found = net(images)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol, atol=10 * rtol)


@pytest.mark.parametrize("batch", ["n", 1, 3, 7, 20, -1])
def test_any_number_of_images_through_any_batch(tmp_path, batch):
    net = OnnxNet(write(tmp_path / "x.onnx", graph(shape=(batch, 3, 4, 4))))
    check(net)
    check(net, IMAGES[:1])
    assert net.input_size == 4


def test_a_batch_that_is_not_named_at_all_is_free(tmp_path):
    model = graph()
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    check(OnnxNet(write(tmp_path / "x.onnx", model)))


def test_half_precision_channels_last_and_bytes(tmp_path):
    check(OnnxNet(write(tmp_path / "half.onnx", graph(kind="float16"))), rtol=1e-2)
    last = OnnxNet(write(tmp_path / "last.onnx", graph(shape=("n", 4, 4, 3))))
    check(last, order=(0, 2, 3, 1))
    assert last.input_size == 4
    levels = (IMAGES * 60 + 127).round().clamp(0, 255)
    check(OnnxNet(write(tmp_path / "bytes.onnx", graph(kind="uint8"))), levels)
    net = OnnxNet(write(tmp_path / "both.onnx", graph(kind="uint8", shape=(2, 4, 4, 3))))
    check(net, levels, order=(0, 2, 3, 1))
    assert torch.equal(net(levels + 0.4), net(levels))  # to whole numbers


@pytest.mark.parametrize("ir_version", [3, 10])
def test_weights_that_are_inputs_too_become_constants(tmp_path, ir_version):
    """Else onnxruntime lets a caller replace them, and cannot fold them into the graph."""
    model = graph(as_input=True, ir_version=ir_version)
    net = OnnxNet(write(tmp_path / "x.onnx", model))
    check(net)
    assert net._session.get_overridable_initializers() == []
    assert [i.name for i in net._session.get_inputs()] == ["x"]


def test_weights_in_a_file_beside_it(tmp_path):
    options = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    for as_input in (False, True):
        path = write(tmp_path / "x.onnx", graph(as_input=as_input), **options)
        first = OnnxNet(path)
        check(first)
        data = bytearray((tmp_path / "w.bin").read_bytes())
        data[3] ^= 1
        (tmp_path / "w.bin").write_bytes(data)
        assert OnnxNet(path).digest != first.digest
        (tmp_path / "w.bin").unlink()
        with pytest.raises(ValueError, match=r"keeps weights in w.bin, which is not beside it"):
            OnnxNet(path)


@pytest.mark.parametrize("place", ["../w.bin", "absolute"])
def test_weights_elsewhere_are_not_read(tmp_path, place):
    secret = tmp_path / "w.bin"
    secret.write_bytes(WEIGHTS.astype(np.float32).tobytes())
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "x.onnx"
    model = graph()
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(
        tensor, str(secret) if place == "absolute" else place
    )
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="no ONNX file, or a damaged one") as caught:
        OnnxNet(path)
    assert "\n" not in str(caught.value)


def two_inputs():
    model = graph()
    model.graph.input.append(onnx.helper.make_tensor_value_info("z", 1, ["n", 5]))
    model.graph.node.append(onnx.helper.make_node("Add", ["y0", "z"], ["sum"]))
    model.graph.output[0].name = "sum"
    return model


REFUSED = {
    "two inputs": (two_inputs, r"takes 2 inputs \(x .*, z .*\), expected one, images"),
    "grey": (lambda: graph(shape=("n", 1, 4, 12)), r"expected images \(N, 3, H, W\) or"),
    "no images": (lambda: graph(shape=("n", 48)), r"takes x \['n', 48\] of tensor\(float\), expec"),
    "whole numbers": (lambda: graph(kind="int64"), r"of tensor\(int64\), expected images"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_takes_no_images_is_refused_in_one_line(tmp_path, what):
    make, message = REFUSED[what]
    with pytest.raises(ValueError, match=message) as caught:
        OnnxNet(write(tmp_path / "x.onnx", make()))
    assert "\n" not in str(caught.value)


def test_several_outputs_by_name_and_number(tmp_path):
    path = write(tmp_path / "x.onnx", graph(outputs=3))
    for output in (0, 2, -1, "y1"):
        check(OnnxNet(path, output=output))
    with pytest.raises(ValueError, match="has no output 'y3': it gives y0, y1, y2"):
        OnnxNet(path, output="y3")


def test_images_of_another_size_are_one_line(tmp_path):
    net = OnnxNet(write(tmp_path / "x.onnx", graph()))
    with pytest.raises(ValueError, match=r"the ONNX graph cannot embed \(2, 3, 8, 8\)") as caught:
        net(torch.zeros(2, 3, 8, 8))
    assert "\n" not in str(caught.value)


def test_what_it_is_and_its_terms(tmp_path):
    model = graph(outputs=2)
    silent = OnnxNet(write(tmp_path / "x.onnx", model))
    assert "takes x ['n', 3, 4, 4] of tensor(float), gives y0, y1" in silent.summary
    assert "licence     not stated in the file" in silent.summary
    model.metadata_props.add(key="license", value="Apache-2.0")
    assert "licence     Apache-2.0" in OnnxNet(write(tmp_path / "y.onnx", model)).summary
