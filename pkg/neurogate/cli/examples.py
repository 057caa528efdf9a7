"""Configuration files to begin with; the reference shows them, and a test loads them."""

YAML = """\
# One file may serve every process: each reads its own sections.
gateway:
  http_port: 8080
  worker_addresses: [10.0.0.11:50051, 10.0.0.12:50051]
  balancer: least_requests
  request_timeout_s: 120
  log_format: json

keys:
  keys_file: /etc/neurogate/keys

limits: # of every key that has no limits of its own
  requests_per_minute: 60
  tokens_per_minute: 20000

models:
  default_model: smollm2-135m-instruct
  model_aliases: [gpt-4o-mini=smollm2-135m-instruct]

worker:
  max_requests: 256

engine:
  engine: llamacpp
  slots: 8
"""

TOML = """\
# One file may serve every process: each reads its own sections.
[gateway]
http_port = 8080
worker_addresses = ["10.0.0.11:50051", "10.0.0.12:50051"]
balancer = "least_requests"
request_timeout_s = 120
log_format = "json"

[keys]
keys_file = "/etc/neurogate/keys"

[limits] # of every key that has no limits of its own
requests_per_minute = 60
tokens_per_minute = 20000

[models]
default_model = "smollm2-135m-instruct"
model_aliases = ["gpt-4o-mini=smollm2-135m-instruct"]

[worker]
max_requests = 256

[engine]
engine = "llamacpp"
slots = 8
"""
