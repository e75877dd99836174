"""Writes the generated Python beside each .proto, and the descriptor image that buf checks. Run by `make generate` and `make check`.

protovalidate's wheel ships no validate.proto, so its descriptor is taken out of the installed package and given to protoc
as a descriptor set; validate_pb2.py is generated from it like our own files.

  (nothing)   write the generated files
  --check     generate elsewhere and fail if a committed file differs
  --release   make today's contract the one that `buf breaking` compares with
"""

import os
import sys
import tempfile
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from google.rpc import status_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

PROTO = Path(__file__).resolve().parent
BUILD = PROTO.parent / "build"
RELEASED = PROTO / "released.binpb"


def imports_image(path: Path) -> None:
    """Writes everything our files import as one FileDescriptorSet."""
    image = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2, any_pb2, status_pb2):
        module.DESCRIPTOR.CopyToProto(image.file.add())
    image.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())
    path.write_bytes(image.SerializeToString())


def run(*arguments: str) -> None:
    """protoc in this process; raises SystemExit when it refuses."""
    if protoc.main(["protoc", *arguments]) != 0:
        raise SystemExit(f"protoc refused: {' '.join(arguments)}")


def generate(to: Path) -> None:
    """Generated Python below `to`, and the image build/fenrun.binpb."""
    # protoc finds the mypy plugins where this interpreter's own scripts are.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    BUILD.mkdir(exist_ok=True)
    imports = BUILD / "imports.binpb"
    imports_image(imports)
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("fenrun/**/*.proto"))
    given = [f"--descriptor_set_in={imports}", f"-I{PROTO}"]
    services = [name for name in files if "\nservice " in (PROTO / name).read_text()]
    run(*given, f"--python_out={to}", *files, "buf/validate/validate.proto")
    run(*given, f"--mypy_out=quiet:{to}", *files)
    run(*given, f"--grpc_python_out={to}", f"--mypy_grpc_out=quiet:{to}", *services)
    run(*given, "--include_source_info", "--include_imports", f"--descriptor_set_out={BUILD / 'fenrun.binpb'}", *files)


def check() -> None:
    """Raises SystemExit naming every committed file that generation would change."""
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory))
        made = {path.relative_to(directory): path.read_bytes() for path in Path(directory).rglob("*_pb2*.py*")}
    there = {path.relative_to(PROTO): path.read_bytes() for path in PROTO.rglob("*_pb2*.py*") if "__pycache__" not in path.parts}
    wrong = sorted(str(name) for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    if wrong:
        raise SystemExit(f"generated files differ from their .proto; run `make generate`: {', '.join(wrong)}")


def release() -> None:
    """Keeps the contract as it is now, without comments, for later ones to be compared with."""
    generate(PROTO)
    image = descriptor_pb2.FileDescriptorSet.FromString((BUILD / "fenrun.binpb").read_bytes())
    for file in image.file:
        file.ClearField("source_code_info")
    RELEASED.write_bytes(image.SerializeToString(deterministic=True))


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            generate(PROTO)
        case ["--check"]:
            check()
        case ["--release"]:
            release()
        case _:
            raise SystemExit(__doc__)
