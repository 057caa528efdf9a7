# `terraform test`, without a provider: what is planned of which variables.

variables {
  kube_context                = "kind-neurogate"
  create_cluster              = true
  namespace                   = "neurogate"
  gateway_replicas            = 1
  worker_replicas             = 3
  ollama_host                 = ""
  has_api_keys                = false
  gateway_image               = "neurogate-gateway:latest"
  worker_image                = "neurogate-worker:latest"
  log_level                   = "info"
  gateway_node_port           = 30080
  prometheus_node_port        = 30090
  grafana_node_port           = 30030
  node_host                   = "localhost"
  enable_prometheus           = true
  enable_grafana              = true
  grafana_password_is_default = true
  environment                 = "dev"
  tags                        = { team = "inference" }
  dashboards_dir              = "tests/dashboards"
  rules_dir                   = "../../../prometheus/rules"
  resources = {
    gateway = { cpu_request = "100m", cpu_limit = "500m", memory_request = "64Mi", memory_limit = "256Mi" }
    worker  = { cpu_request = "100m", cpu_limit = "1.5", memory_request = "640Mi", memory_limit = "1Gi" }
  }
}

run "the_defaults" {
  command = apply

  assert {
    condition     = output.values.gateway.replicas == 1 && output.values.worker.replicas == 3
    error_message = "replicas"
  }
  assert {
    condition     = output.values.gateway.service == { type = "NodePort", nodePort = 30080 }
    error_message = "the gateway's port"
  }
  assert {
    condition     = output.values.gateway.image == { repository = "neurogate-gateway", tag = "latest", digest = "", pullPolicy = "IfNotPresent" }
    error_message = "a kind cluster has its images: nobody is asked for them"
  }
  assert {
    condition     = output.values.worker.engine == "llamacpp" && output.values.worker.fetchModel
    error_message = "without Ollama each worker manages llama.cpp"
  }
  assert {
    condition     = output.values.worker.resources == { requests = { cpu = "100m", memory = "640Mi" }, limits = { cpu = "1.5", memory = "1Gi" } }
    error_message = "resources"
  }
  assert {
    condition     = !output.values.gateway.podDisruptionBudget.enabled && output.values.worker.podDisruptionBudget.enabled
    error_message = "a budget for one pod would only keep nodes from being drained"
  }
  assert {
    condition     = output.values.secrets == { existingSecret = "neurogate-secrets", required = false }
    error_message = "keys are in a Secret, never in the release's values"
  }
  assert {
    condition     = output.values.grafana == { enabled = true, nodePort = 30030, existingSecret = "neurogate-grafana-admin" } && output.values.prometheus == { enabled = true, nodePort = 30090, retention = "2d" }
    error_message = "monitoring: ports are numbers, as the chart's schema has them"
  }
  assert {
    condition     = output.urls == { gateway = "http://localhost:30080", prometheus = "http://localhost:30090", grafana = "http://localhost:30030" }
    error_message = "URLs"
  }
  assert {
    condition     = output.worker_grpc_endpoint == "neurogate-worker-headless.neurogate.svc.cluster.local:50051"
    error_message = "gateways link to pods: the headless Service's name"
  }
  assert {
    condition     = output.cluster == { name = "neurogate", worker_nodes = 2, host_ports = { gateway = 30080, prometheus = 30090, grafana = 30030 } }
    error_message = "the kind cluster"
  }
  assert {
    condition     = join(",", output.dashboards) == "overview,workers"
    error_message = "each dashboard there is, by its name"
  }
  assert {
    condition     = output.summary.keys == "none: anybody may call"
    error_message = "that there are no keys is said"
  }
  assert {
    condition     = output.kubectl_commands.status == "kubectl --context kind-neurogate --namespace neurogate get pods,services"
    error_message = "commands name context and namespace"
  }
  assert {
    condition     = output.labels == { team = "inference", "neurogate.environment" = "dev" } && output.values.worker.podLabels == output.labels
    error_message = "tags are labels"
  }
}

run "ollama_elsewhere" {
  command = apply
  variables {
    ollama_host = "http://ollama.example:11434"
  }
  assert {
    condition     = output.values.worker.engine == "ollama" && output.values.worker.engineUrl == "http://ollama.example:11434" && !output.values.worker.fetchModel
    error_message = "workers ask Ollama, and fetch nothing"
  }
}

run "without_monitoring" {
  command = apply
  variables {
    enable_prometheus = false
    enable_grafana    = false
  }
  assert {
    condition     = output.urls == { gateway = "http://localhost:30080" } && length(output.summary.dashboards) == 0 && length(output.summary.rules) == 0
    error_message = "no URL, port or dashboard of what there is not"
  }
  assert {
    condition     = output.values.grafana == { enabled = false } && keys(output.cluster.host_ports) == ["gateway"]
    error_message = "Grafana is off"
  }
}

run "images_of_a_registry_with_a_port_and_by_digest" {
  command = apply
  variables {
    create_cluster = false
    kube_context   = "arn:aws:eks:eu-west-1:123456789012:cluster/llm"
    gateway_image  = "registry.example:5000/team/neurogate-gateway:1.2.3"
    worker_image   = "registry.example:5000/team/neurogate-worker@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  }
  assert {
    condition     = output.values.gateway.image == { repository = "registry.example:5000/team/neurogate-gateway", tag = "1.2.3", digest = "", pullPolicy = "Always" }
    error_message = "the tag follows the last colon"
  }
  assert {
    condition     = output.values.worker.image.repository == "registry.example:5000/team/neurogate-worker" && startswith(output.values.worker.image.digest, "sha256:0123")
    error_message = "the digest follows the @"
  }
}

run "prod" {
  command = apply
  variables {
    environment                 = "prod"
    create_cluster              = false
    kube_context                = "prod"
    has_api_keys                = true
    gateway_replicas            = 3
    worker_replicas             = 20
    gateway_image               = "registry.example/neurogate-gateway:1.2.3"
    worker_image                = "registry.example/neurogate-worker:1.2.3"
    grafana_password_is_default = false
  }
  assert {
    condition     = output.values.secrets.required && output.values.gateway.podDisruptionBudget.enabled && output.values.prometheus.retention == "15d"
    error_message = "prod waits for its keys, may lose a node, and remembers"
  }
}

run "prod_without_what_it_needs" {
  command = plan
  variables {
    environment    = "prod"
    create_cluster = false
  }
  expect_failures = [output.values]
}

run "prod_with_images_that_change" {
  command = plan
  variables {
    environment                 = "prod"
    has_api_keys                = true
    gateway_replicas            = 2
    grafana_password_is_default = false
  }
  expect_failures = [output.values]
}

run "a_request_above_its_limit" {
  command = plan
  variables {
    resources = {
      gateway = { cpu_request = "1", cpu_limit = "500m", memory_request = "64Mi", memory_limit = "256Mi" }
      worker  = { cpu_request = "1", cpu_limit = "2", memory_request = "1024Mi", memory_limit = "1Gi" }
    }
  }
  expect_failures = [output.values]
}

run "memory_above_its_limit" {
  command = plan
  variables {
    resources = {
      gateway = { cpu_request = "1", cpu_limit = "2", memory_request = "64Mi", memory_limit = "256Mi" }
      worker  = { cpu_request = "1", cpu_limit = "2", memory_request = "1025Mi", memory_limit = "1Gi" }
    }
  }
  expect_failures = [output.values]
}

run "bounds_below" {
  command = plan
  variables {
    gateway_replicas     = 0
    worker_replicas      = 0
    gateway_node_port    = 29999
    prometheus_node_port = 29999
    namespace            = "kube-system"
    log_level            = "trace"
    environment          = "test"
    ollama_host          = "ollama:11434"
  }
  expect_failures = [
    var.gateway_replicas, var.worker_replicas, var.gateway_node_port, var.prometheus_node_port,
    var.namespace, var.log_level, var.environment, var.ollama_host,
  ]
}

run "bounds_above" {
  command = plan
  variables {
    gateway_replicas     = 11
    worker_replicas      = 21
    gateway_node_port    = 32768
    prometheus_node_port = 32769
    namespace            = "Neurogate"
  }
  expect_failures = [
    var.gateway_replicas, var.worker_replicas, var.gateway_node_port, var.prometheus_node_port,
    var.namespace,
  ]
}

run "a_port_out_of_bounds_beside_ports_within" {
  command = plan
  variables {
    grafana_node_port = 3000
  }
  expect_failures = [var.grafana_node_port]
}

run "replicas_are_whole" {
  command = plan
  variables {
    gateway_replicas = 1.5
    worker_replicas  = 2.5
  }
  expect_failures = [var.gateway_replicas, var.worker_replicas]
}

run "two_things_on_one_port" {
  command = plan
  variables {
    grafana_node_port = 30080
  }
  expect_failures = [var.grafana_node_port]
}

run "grafana_without_what_it_asks" {
  command = plan
  variables {
    enable_prometheus = false
  }
  expect_failures = [var.enable_grafana]
}

run "a_cluster_by_another_name" {
  command = plan
  variables {
    kube_context = "minikube"
  }
  expect_failures = [var.create_cluster]
}

run "images_without_a_version" {
  command = plan
  variables {
    gateway_image = "neurogate-gateway"
    worker_image  = "neurogate-worker@sha256:short"
  }
  expect_failures = [var.gateway_image, var.worker_image]
}

run "amounts_that_are_none" {
  command = plan
  variables {
    resources = {
      gateway = { cpu_request = "a lot", cpu_limit = "500m", memory_request = "64", memory_limit = "256Mi" }
      worker  = { cpu_request = "1", cpu_limit = "2", memory_request = "1Gi", memory_limit = "1Gi" }
    }
  }
  expect_failures = [var.resources]
}

run "labels_that_are_none" {
  command = plan
  variables {
    tags = { "app.kubernetes.io/name" = "mine", team = "a b" }
  }
  expect_failures = [var.tags]
}
