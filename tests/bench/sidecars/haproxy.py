"""A pair of HAProxies.

HAProxy 2.6 cannot look at URI SANs: it holds the server to a DNS name, and the client to the trust
bundle alone. So its 100 lines are methods and paths, kept in one tree of prefixes. Its OpenSSL is
the distribution's, 3.0: it knows no X25519MLKEM768.
"""

from __future__ import annotations

from garrison.deploy.demo.processes import Program
from tests.bench.repository import GRPC_HOST, HTTP_HOST, METHOD, PREFIXES, ROUTED
from tests.bench.sidecars.topology import H1, H2, Kind, Plan

_COMMON = """\
global
  nbthread 1
  maxconn 4000
  tune.ssl.default-dh-param 2048
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  option http-keep-alive
  http-reuse always
"""


def programs(plan: Plan) -> tuple[Program, Program]:
    directory = plan.directory
    for side, identity in (("client", plan.identities.client), ("server", plan.identities.server)):
        parts = ((identity / name).read_bytes() for name in ("svid.pem", "key.pem"))
        (directory / f"{side}.pem").write_bytes(b"".join(parts))
    (directory / "prefixes").write_text("".join(f"{p}/\n" for p in PREFIXES), encoding="utf-8")
    return _program(plan, "client", _client(plan)), _program(plan, "server", _server(plan))


HAPROXY = Kind("haproxy", (H2, H1), programs, authorizes=True)


def _program(plan: Plan, side: str, text: str) -> Program:
    name = f"haproxy-{plan.protocol.replace('/', '')}-{side}"
    config = plan.directory / f"{name}.cfg"
    config.write_text(_COMMON + text, encoding="utf-8")
    return Program(name, (str(plan.program), "-db", "-f", str(config)))


def _client(plan: Plan) -> str:
    roots = plan.identities.client / "roots.pem"
    routes = "".join(
        f"  use_backend api if {{ path_beg {each}/ }} {{ hdr(host) -i {HTTP_HOST} }}\n"
        for each in ROUTED
    )

    def tls(host: str, alpn: str) -> str:
        return (
            f"ssl crt {plan.directory}/client.pem ca-file {roots} verify required "
            f"verifyhost {host} sni str({host}) alpn {alpn} ssl-min-ver TLSv1.3 no-ssl-reuse"
        )

    return f"""\
frontend outbound
  bind {plan.ports.entrance}
  bind {plan.ports.grpc_entrance} proto h2
{routes}  use_backend rpc if {{ hdr(host) -i {GRPC_HOST} }}
backend api
  server api {plan.ports.door} {tls(HTTP_HOST, plan.protocol)}
backend rpc
  server rpc {plan.ports.grpc_door} {tls(GRPC_HOST, H2)}
"""


def _server(plan: Plan) -> str:
    roots = plan.identities.server / "roots.pem"
    tls = (
        f"ssl crt {plan.directory}/server.pem ca-file {roots} verify required "
        "alpn h2,http/1.1 ssl-min-ver TLSv1.3 no-tls-tickets"
    )
    return f"""\
frontend http
  bind {plan.ports.door} {tls}
  http-request deny unless METH_GET {{ path_beg -f {plan.directory}/prefixes }}
  default_backend http
frontend grpc
  bind {plan.ports.grpc_door} {tls}
  http-request deny unless METH_POST {{ path {METHOD} }}
  default_backend grpc
backend http
  server application {plan.applications.http}
backend grpc
  server application {plan.applications.grpc} proto h2
"""
