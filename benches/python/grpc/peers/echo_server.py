"""grpcio.aio that answers every call with the bytes of its message: the floor of a gRPC server in Python."""

import sys

import grpc.aio
import uvloop


class Echo(grpc.GenericRpcHandler):
    def service(self, _call):
        return grpc.unary_unary_rpc_method_handler(echo)


async def echo(request, _context):
    return request


async def main(port):
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


uvloop.run(main(sys.argv[1]))
