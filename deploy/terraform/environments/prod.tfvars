# The real one, with its own Prometheus and Grafana elsewhere. Secrets come as TF_VAR_api_keys.
environment           = "prod"
create_cluster        = false
kube_context          = "prod"
node_host             = "nodes.example"
gateway_replicas      = 3
worker_replicas       = 12
gateway_image         = "registry.example/neurogate-gateway:0.1.0"
worker_image          = "registry.example/neurogate-worker:0.1.0"
gateway_cpu_request   = "1"
gateway_cpu_limit     = "2"
gateway_memory_limit  = "1Gi"
worker_cpu_request    = "4"
worker_cpu_limit      = "8"
worker_memory_request = "4Gi"
worker_memory_limit   = "8Gi"
enable_prometheus     = false
enable_grafana        = false
tags                  = { team = "inference" }
