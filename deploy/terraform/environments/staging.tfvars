# A cluster that is there already. Secrets come as TF_VAR_api_keys and TF_VAR_grafana_admin_password.
environment      = "staging"
create_cluster   = false
kube_context     = "staging"
node_host        = "nodes.staging.example"
gateway_replicas = 2
worker_replicas  = 4
gateway_image    = "registry.example/neurogate-gateway:0.1.0"
worker_image     = "registry.example/neurogate-worker:0.1.0"
tags             = { team = "inference" }
