"""A pair of nginxes: HTTP/1.1 between, for it has no other upstream protocol than that and gRPC.

It has no authorization by identity, method and path, and none is set up.
"""

from __future__ import annotations

from garrison.deploy.demo.processes import Program
from tests.bench.repository import GRPC_HOST, HTTP_HOST, ROUTED
from tests.bench.sidecars.topology import H1, Kind, Plan

_MANY = 100_000_000  # requests on a connection before it is closed
_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def programs(plan: Plan) -> tuple[Program, Program]:
    return _program(plan, "client", _client(plan)), _program(plan, "server", _server(plan))


NGINX = Kind("nginx", (H1,), programs, authorizes=False)


def _program(plan: Plan, side: str, http: str) -> Program:
    name = f"nginx-{side}"
    config = plan.directory / f"{name}.conf"
    folders = "".join(f"  {each}_temp_path {plan.directory}/{name}.{each};\n" for each in _FOLDERS)
    config.write_text(
        f"""\
daemon off;
master_process off;
pid {plan.directory}/{name}.pid;
error_log stderr warn;
events {{ worker_connections 4000; }}
http {{
{folders}  access_log off;
  keepalive_requests {_MANY};
  keepalive_timeout 120s;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  proxy_buffers 8 32k;
  proxy_buffer_size 32k;
  proxy_max_temp_file_size 0;
  ssl_protocols TLSv1.3;
  ssl_session_cache off;
  ssl_session_tickets off;
{http}}}
""",
        encoding="utf-8",
    )
    prefix = ("-p", str(plan.directory), "-e", "stderr")
    return Program(name, (str(plan.program), *prefix, "-c", str(config)))


def _upstream(name: str, address: str) -> str:
    keep = f"keepalive 128; keepalive_requests {_MANY};"
    return f"  upstream {name} {{ server {address}; {keep} }}\n"


def _client(plan: Plan) -> str:
    identity = plan.identities.client

    def tls(module: str, host: str) -> str:
        return f"""\
    {module}_ssl_certificate {identity}/svid.pem;
    {module}_ssl_certificate_key {identity}/key.pem;
    {module}_ssl_trusted_certificate {identity}/roots.pem;
    {module}_ssl_verify on;
    {module}_ssl_verify_depth 3;
    {module}_ssl_name {host};
    {module}_ssl_server_name on;
    {module}_ssl_protocols TLSv1.3;
    {module}_ssl_session_reuse off;
"""

    routes = "".join(f"    location {each}/ {{ proxy_pass https://api; }}\n" for each in ROUTED)
    return f"""\
{_upstream("api", plan.ports.door)}{_upstream("rpc", plan.ports.grpc_door)}  server {{
    listen {plan.ports.entrance};
    server_name {HTTP_HOST};
{tls("proxy", HTTP_HOST)}{routes}  }}
  server {{
    listen {plan.ports.grpc_entrance} http2;
    server_name {GRPC_HOST};
{tls("grpc", GRPC_HOST)}    location / {{ grpc_pass grpcs://rpc; }}
  }}
"""


def _server(plan: Plan) -> str:
    identity = plan.identities.server
    tls = f"""\
    ssl_certificate {identity}/svid.pem;
    ssl_certificate_key {identity}/key.pem;
    ssl_client_certificate {identity}/roots.pem;
    ssl_verify_client on;
    ssl_verify_depth 3;
"""
    applications = plan.applications
    return f"""\
{_upstream("http", applications.http)}{_upstream("grpc", applications.grpc)}  server {{
    listen {plan.ports.door} ssl backlog=1024;
{tls}    location / {{ proxy_pass http://http; }}
  }}
  server {{
    listen {plan.ports.grpc_door} ssl http2;
{tls}    location / {{ grpc_pass grpc://grpc; }}
  }}
"""
