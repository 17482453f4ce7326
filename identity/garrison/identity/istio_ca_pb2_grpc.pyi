# Types of the generated module, which has none: written by hand from istio_ca.proto.

from typing import Protocol

import grpc
from grpc import aio

from garrison.identity.istio_ca_pb2 import IstioCertificateRequest, IstioCertificateResponse

class IstioCertificateServiceStub:
    CreateCertificate: aio.UnaryUnaryMultiCallable[
        IstioCertificateRequest, IstioCertificateResponse
    ]
    def __init__(self, channel: aio.Channel) -> None: ...

class IstioCertificateServiceServicer(Protocol):
    async def CreateCertificate(  # noqa: N802, the name in the proto
        self,
        request: IstioCertificateRequest,
        context: aio.ServicerContext[IstioCertificateRequest, IstioCertificateResponse],
        /,
    ) -> IstioCertificateResponse: ...

def add_IstioCertificateServiceServicer_to_server(  # noqa: N802, the generator's name
    servicer: IstioCertificateServiceServicer, server: aio.Server | grpc.Server
) -> None: ...
