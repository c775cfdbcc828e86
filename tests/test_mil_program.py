"""Reading a saved Core ML package: every type of constant as it was written, shapes, functions, and every fault."""

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mil_programs import ct, mb, save_program
from test_mil_operations import as_bits

from edge_distil.errors import UserError
from edge_distil.quiet import quiet
from edge_distil.runtimes.mil import Interpreter, read_program
from edge_distil.runtimes.mil.blobs import WeightFile, unpack
from edge_distil.runtimes.mil.program import HIGHEST_VERSION

SPEC, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"
WEIGHT = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float16)
X = np.zeros((1, 8), dtype=np.float16)

# What coremltools' own writer of weight files calls a type, and what values it takes.
BLOBS = {
    "uint1": ("uint1", np.uint8, 1),
    "uint2": ("uint2", np.uint8, 3),
    "uint3": ("uint3", np.uint8, 7),
    "uint4": ("uint4", np.uint8, 15),
    "uint6": ("uint6", np.uint8, 63),
    "uint8": ("uint8", np.uint8, 255),
    "uint16": ("uint16", np.uint16, 65535),
    "uint32": ("uint32", np.uint32, 2**32 - 1),
    "int4": ("int4", np.int8, 7),
    "int8": ("int8", np.int8, 127),
    "int16": ("int16", np.int16, 32767),
    "int32": ("int32", np.int32, 2**31 - 1),
    "fp32": ("float", np.float32, 100),
    "fp16": ("fp16", np.float16, 100),
}


@pytest.mark.parametrize("dtype", BLOBS)
@pytest.mark.parametrize("count", [1, 2, 3, 8, 11, 64])
def test_blob_is_read_as_coremltools_wrote_it(dtype, count, tmp_path):
    from coremltools.libmilstoragepython import _BlobStorageWriter

    written_as, kind, highest = BLOBS[dtype]
    low = 0 if dtype.startswith("u") else -highest - 1
    values = np.random.default_rng(count).integers(low, highest, count, endpoint=True).astype(kind)
    values[-1] = highest
    writer = _BlobStorageWriter(str(tmp_path / "weight.bin"))
    write = getattr(writer, f"write_{written_as}_data")
    offsets = [write(values.view(np.uint16) if dtype == "fp16" else values) for _ in range(2)]
    del writer  # which closes the file
    file = WeightFile(tmp_path / "weight.bin")
    for offset in offsets:
        found = file.blob(offset, dtype, count).values()
        assert found.dtype == kind
        assert found.tolist() == values.tolist()


def test_bits_are_packed_from_the_least_significant_upwards():
    # 01 10 11 00 | 11: the definition's own example; and 3-bit values that lie across bytes.
    assert unpack(np.uint8([0b01101100, 0b11]), "uint2", 5).tolist() == [0, 3, 2, 1, 3]
    assert unpack(np.uint8([0b10_001_111, 0b1]), "uint3", 3).tolist() == [7, 1, 6]
    assert unpack(np.uint8([0b1000_0111, 0b1111]), "int4", 3).tolist() == [7, -8, -1]


@pytest.mark.parametrize(
    ("blob", "immediate"), [("int4", (2, 3)), ("uint2", (3, 1)), ("uint6", (1, 3)), ("uint1", (1, 9))]
)
@pytest.mark.parametrize("size", [(2, 7), None])
def test_constant_of_few_bits_is_read_from_the_specification_and_from_the_weight_file(blob, immediate, size, tmp_path):
    """Fewer than ten values stand in the specification itself."""
    shape = size or immediate
    low = -8 if blob == "int4" else 0
    values = np.arange(np.prod(shape)).reshape(shape) % 2 ** int(blob[-1]) + low
    data = as_bits(values, blob)

    def build(x):
        if blob == "int4":
            return mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=data, scale=np.ones((1, 1), np.float32)))
        table = np.arange(2 ** int(blob[-1]), dtype=np.float32).reshape(1, 1, -1, 1)
        return mb.add(x=x, y=mb.constexpr_lut_to_dense(indices=data, lut=table))

    x = np.zeros(shape, dtype=np.float32)
    program = read_program(save_program(build, [x], tmp_path / "p.mlpackage", opset=18))
    (found,) = Interpreter(program)({"x": x}).values()
    assert found.tolist() == values.tolist()


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    def body(x):
        return mb.linear(x=x, weight=WEIGHT, bias=np.float16([0.5, -70, 2, 3]), name="out")

    return save_program(body, [X], tmp_path_factory.mktemp("program") / "p.mlpackage")


@pytest.fixture
def copy(package, tmp_path) -> Path:
    return Path(shutil.copytree(package, tmp_path / "p.mlpackage"))


def test_program_says_what_the_package_holds(package):
    program = read_program(package)
    assert {name: (each.shape, each.dtype) for name, each in program.inputs.items()} == {"x": ((1, 8), "FLOAT16")}
    assert {name: (each.shape, each.dtype) for name, each in program.outputs.items()} == {"out": ((1, 4), "FLOAT16")}
    assert program.operation_counts == {"const": 2, "linear": 1}
    assert (program.version, program.opset, program.weight_bytes) == (7, 16, 64)
    assert [(each.name, each.largest) for each in program.constants] == [
        ("out_weight_0", float(np.abs(WEIGHT).max())),
        ("out_bias_0", 70.0),
    ]
    assert program.metadata["com.github.apple.coremltools.version"] == ct.__version__
    linear = program.operations[-1]
    assert linear.arguments == {"x": ("x",), "weight": ("out_weight_0",), "bias": ("out_bias_0",)}
    assert (linear.outputs[0].type.dtype, linear.outputs[0].type.shape) == ("fp16", (1, 4))
    assert not isinstance(program.operations[0].arguments["val"][0].source, np.ndarray)  # mapped, not read


def test_shared_blob_counts_once(tmp_path):
    def body(x):
        return mb.add(x=mb.linear(x=x, weight=WEIGHT), y=mb.linear(x=mb.relu(x=x), weight=WEIGHT[::-1].copy()))

    program = read_program(save_program(body, [X], tmp_path / "p.mlpackage"))
    assert program.weight_bytes == 2 * WEIGHT.nbytes
    assert replace(program, operations=program.operations * 2).weight_bytes == 2 * WEIGHT.nbytes


@pytest.mark.parametrize(
    ("shape", "lengths", "taken", "refused"),
    [
        (ct.EnumeratedShapes([[1, 8], [1, 4], [1, 32]], default=[1, 8]), (4, 8, 32), (1, 4), (1, 5)),
        (ct.Shape([1, ct.RangeDim(2, 5, default=3)]), (2, 3, 4, 5), (1, 5), (1, 6)),
        (ct.Shape([1, 8]), (8,), (1, 8), (2, 8)),
    ],
)
def test_flexible_shapes_are_read_and_run_and_others_refused(shape, lengths, taken, refused, tmp_path):
    import torch

    class Doubled(torch.nn.Module):
        def forward(self, x):
            return x + x

    with quiet():
        traced = torch.jit.trace(Doubled(), torch.zeros(1, 3))
        types = [ct.TensorType("x", shape, np.float32)]
        model = ct.convert(traced, convert_to="mlprogram", inputs=types, skip_model_load=True)
        model.save(str(tmp_path / "p.mlpackage"))
    program = read_program(tmp_path / "p.mlpackage")
    feature = program.inputs["x"]
    assert feature.lengths() == lengths
    assert (feature.takes(taken), feature.takes(refused)) == (True, False)
    interpreter = Interpreter(program)
    (found,) = interpreter({"x": np.ones(taken, np.float32)}).values()
    assert found.tolist() == np.full(taken, 2).tolist()
    with pytest.raises(UserError, match="which is not"):
        interpreter({"x": np.ones(refused, np.float32)})


def test_package_of_several_functions_gives_main_or_else_the_default(tmp_path):
    for name, factor in (("main", 2), ("other", 3)):
        save_program(
            lambda x, f=factor: mb.mul(x=x, y=np.float32(f)), [X.astype(np.float32)], tmp_path / f"{name}.mlpackage"
        )
    for default in ("main", "first", "second"):
        names = ("main", "second") if default == "main" else ("first", "second")
        functions = ct.utils.MultiFunctionDescriptor()
        for name, source in zip(names, ("main", "other"), strict=True):
            functions.add_function(str(tmp_path / f"{source}.mlpackage"), "main", name)
        functions.default_function_name = default
        with quiet():
            ct.utils.save_multifunction(functions, str(tmp_path / f"{default}-both.mlpackage"))
        program = read_program(tmp_path / f"{default}-both.mlpackage")
        (found,) = Interpreter(program)({"x": np.ones((1, 8), np.float32)}).values()
        assert found[0, 0] == (3 if default == "second" else 2)


def edit(file: Path, change) -> None:
    data = bytearray(file.read_bytes())
    change(data)
    file.write_bytes(data)


def edit_spec(package: Path, change) -> None:
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString((package / SPEC).read_bytes())
    change(spec)
    (package / SPEC).write_bytes(spec.SerializeToString())


def rename_opset(spec) -> None:
    main = spec.mlProgram.functions["main"]
    main.block_specializations["CoreML77"].CopyFrom(main.block_specializations[main.opset])
    main.opset = "CoreML77"


def set_root(package: Path, path: str) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
    (package / "Manifest.json").write_text(json.dumps(manifest))


def drop_value(spec) -> None:
    operations = spec.mlProgram.functions["main"].block_specializations["CoreML6"].operations
    bias = next(each for each in operations if each.outputs[0].name == "out_bias_0")
    bias.attributes["val"].immediateValue.tensor.bytes.values = b"\0\0"


def first_const(spec):
    return spec.mlProgram.functions["main"].block_specializations["CoreML6"].operations[0].attributes["val"]


# The first entry stands behind the header of 64 bytes: mark, type, size, where the data begins.
FAULTS = {
    "no folder": (shutil.rmtree, r"p\.mlpackage: is no Core ML package"),
    "no manifest": (lambda p: (p / "Manifest.json").unlink(), r"Manifest\.json: is missing"),
    "manifest cut": (
        lambda p: edit(p / "Manifest.json", lambda d: d.__delitem__(slice(40, None))),
        "is not valid JSON",
    ),
    "manifest of something else": (
        lambda p: (p / "Manifest.json").write_text("{}"),
        r"Manifest\.json: does not say which file is the model",
    ),
    "root outside": (lambda p: set_root(p, "../../x.mlmodel"), "names a file outside itself"),
    "root missing": (lambda p: set_root(p, "com.apple.CoreML/x.mlmodel"), r"x\.mlmodel: is missing"),
    "no specification": (lambda p: (p / SPEC).unlink(), r"model\.mlmodel: is missing"),
    "specification cut": (
        lambda p: edit(p / SPEC, lambda d: d.__delitem__(slice(-20, None))),
        r"model\.mlmodel: is not a Core ML specification",
    ),
    "specification overwritten": (
        lambda p: (p / SPEC).write_bytes(b"\xff" * 100),
        r"model\.mlmodel: is not a Core ML specification",
    ),
    "specification empty": (lambda p: (p / SPEC).write_bytes(b""), r"model\.mlmodel: holds no ML program"),
    "newer specification": (
        lambda p: edit_spec(p, lambda spec: setattr(spec, "specificationVersion", 99)),
        rf"of specification version 99, the highest that is known is {HIGHEST_VERSION}",
    ),
    "newer opset": (lambda p: edit_spec(p, rename_opset), "uses the operations of CoreML77, known are CoreML5, "),
    "constant of too few values": (lambda p: edit_spec(p, drop_value), "constant out_bias_0 has 2 bytes for 4 values"),
    "unknown type of values": (
        lambda p: edit_spec(p, lambda spec: setattr(first_const(spec).type.tensorType, "dataType", 13)),
        "out_weight_0 is of the type bfloat16, which is not known",
    ),
    "an operation gone": (
        lambda p: edit_spec(
            p, lambda spec: spec.mlProgram.functions["main"].block_specializations["CoreML6"].operations.__delitem__(0)
        ),
        "no operation gives out_weight_0",
    ),
    "no weights": (lambda p: (p / WEIGHTS).unlink(), r"weight\.bin: is missing"),
    "weights of a few bytes": (lambda p: (p / WEIGHTS).write_bytes(b"\0\0"), "ends at byte 2, inside its header"),
    "weights cut in the entry": (
        lambda p: edit(p / WEIGHTS, lambda d: d.__delitem__(slice(80, None))),
        "ends at byte 80, before the weights at 64",
    ),
    "weights cut in the data": (
        lambda p: edit(p / WEIGHTS, lambda d: d.__delitem__(slice(150, None))),
        "ends at byte 150, inside the weights at 64",
    ),
    "mark flipped": (lambda p: edit(p / WEIGHTS, lambda d: d.__setitem__(64, d[64] ^ 1)), "has no weights at byte 64"),
    "unknown type of weights": (
        lambda p: edit(p / WEIGHTS, lambda d: d.__setitem__(68, 77)),
        "has no weights at byte 64",
    ),
    "other type of weights": (
        lambda p: edit(p / WEIGHTS, lambda d: d.__setitem__(68, 6)),
        "the weights at byte 64 are 64 bytes of int16, expected are 32 values of fp16",
    ),
    "other size of weights": (
        lambda p: edit(p / WEIGHTS, lambda d: d.__setitem__(slice(72, 80), struct.pack("<Q", 62))),
        "the weights at byte 64 are 62 bytes of fp16, expected are 32 values of fp16",
    ),
    "other version of weights": (
        lambda p: edit(p / WEIGHTS, lambda d: d.__setitem__(4, 3)),
        "is of storage version 3, only 2 is known",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_a_package_is_named_with_what_to_do(fault, copy):
    spoil, message = FAULTS[fault]
    spoil(copy)
    with pytest.raises(UserError, match=message) as refusal:
        Interpreter(read_program(copy))
    assert refusal.value.hint


def test_byte_flipped_in_the_data_is_read_as_it_lies_there(copy):
    """A value that is wrong and possible is for checksums to find: it is what the device would compute with."""
    edit(copy / WEIGHTS, lambda data: data.__setitem__(129, data[129] ^ 0x80))  # the sign of the first weight
    flipped = read_program(copy).constants[0].value.read()
    assert flipped[0, 0] == -WEIGHT[0, 0]
    assert np.array_equal(flipped.ravel()[1:], WEIGHT.ravel()[1:])
