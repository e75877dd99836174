"""`python -m services.runtime.healthcheck`: exit status 0 if the server at FENRUN_LISTEN says it is serving. For containers."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.settings import Settings


def main() -> int:
    host, _, port = Settings().listen.rpartition(":")
    address = f"{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{port}"
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)  # type: ignore[attr-defined]  # its stubs lack it
        except grpc.RpcError:
            return 1
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
