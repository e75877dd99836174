"""Writes the generated Python beside each .proto, and the descriptor image that buf checks. Run by `make generate`.

protovalidate's wheel ships no validate.proto, so its descriptor is taken out of the installed package and given to protoc
as a descriptor set; validate_pb2.py is generated from it like our own files.
"""

from pathlib import Path

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    field_mask_pb2,
    timestamp_pb2,
)
from google.rpc import status_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

PROTO = Path(__file__).resolve().parent
ROOT = PROTO.parent


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


def main() -> None:
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    imports = build / "imports.binpb"
    imports_image(imports)
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("fenrun/**/*.proto"))
    given = [f"--descriptor_set_in={imports}", f"-I{PROTO}"]
    services = [name for name in files if "service " in (PROTO / name).read_text()]
    run(*given, f"--python_out={PROTO}", *files, "buf/validate/validate.proto")
    run(*given, f"--mypy_out=quiet:{PROTO}", *files)
    run(*given, f"--grpc_python_out={PROTO}", f"--mypy_grpc_out=quiet:{PROTO}", *services)
    run(*given, "--include_source_info", "--include_imports", f"--descriptor_set_out={build / 'fenrun.binpb'}", *files)


if __name__ == "__main__":
    main()
