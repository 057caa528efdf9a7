# A cluster, a namespace with its Secrets, and one release of the chart in deploy/k8s/chart, which brings gateways, workers,
# Prometheus with its rules and Grafana with its source and dashboards. What goes where is decided in modules/plan.

module "plan" {
  source = "./modules/plan"

  kube_context                = var.kube_context
  create_cluster              = var.create_cluster
  namespace                   = var.namespace
  gateway_replicas            = var.gateway_replicas
  worker_replicas             = var.worker_replicas
  ollama_host                 = var.ollama_host
  has_api_keys                = nonsensitive(length(var.api_keys) > 0)
  gateway_image               = var.gateway_image
  worker_image                = var.worker_image
  log_level                   = var.log_level
  gateway_node_port           = var.gateway_node_port
  prometheus_node_port        = var.prometheus_node_port
  grafana_node_port           = var.grafana_node_port
  node_host                   = var.node_host
  enable_prometheus           = var.enable_prometheus
  enable_grafana              = var.enable_grafana
  grafana_password_is_default = nonsensitive(var.grafana_admin_password == "neurogate")
  environment                 = var.environment
  tags                        = var.tags
  dashboards_dir              = "${path.module}/../grafana/dashboards"
  rules_dir                   = "${path.module}/../prometheus/rules"

  resources = {
    gateway = {
      cpu_request    = var.gateway_cpu_request
      cpu_limit      = var.gateway_cpu_limit
      memory_request = var.gateway_memory_request
      memory_limit   = var.gateway_memory_limit
    }
    worker = {
      cpu_request    = var.worker_cpu_request
      cpu_limit      = var.worker_cpu_limit
      memory_request = var.worker_memory_request
      memory_limit   = var.worker_memory_limit
    }
  }
}

resource "kind_cluster" "this" {
  count = var.create_cluster ? 1 : 0

  name           = module.plan.cluster.name
  node_image     = var.node_image
  wait_for_ready = true

  kind_config {
    kind        = "Cluster"
    api_version = "kind.x-k8s.io/v1alpha4"

    node {
      role = "control-plane"

      dynamic "extra_port_mappings" {
        for_each = module.plan.cluster.host_ports
        content {
          container_port = extra_port_mappings.value
          host_port      = extra_port_mappings.value
          listen_address = "127.0.0.1"
        }
      }
    }

    dynamic "node" {
      for_each = range(module.plan.cluster.worker_nodes)
      content {
        role = "worker"
      }
    }
  }
}

# A kind cluster has no registry: the images are put into its nodes, anew when they are called otherwise.
resource "terraform_data" "images" {
  count = var.create_cluster && var.load_images ? 1 : 0

  triggers_replace = [var.gateway_image, var.worker_image, kind_cluster.this[0].id]

  provisioner "local-exec" {
    command = "kind load docker-image --name \"$CLUSTER\" \"$GATEWAY_IMAGE\" \"$WORKER_IMAGE\""
    environment = {
      CLUSTER       = kind_cluster.this[0].name
      GATEWAY_IMAGE = var.gateway_image
      WORKER_IMAGE  = var.worker_image
    }
  }
}

resource "kubernetes_namespace_v1" "this" {
  metadata {
    name = var.namespace
    labels = merge(module.plan.labels, {
      "pod-security.kubernetes.io/enforce" = "restricted"
      "pod-security.kubernetes.io/warn"    = "restricted"
    })
  }
}

resource "kubernetes_secret_v1" "keys" {
  metadata {
    name      = module.plan.names.secrets
    namespace = kubernetes_namespace_v1.this.metadata[0].name
    labels    = module.plan.labels
  }
  data = length(var.api_keys) > 0 ? { API_KEYS = join(",", var.api_keys) } : {}
}

resource "kubernetes_secret_v1" "grafana" {
  count = var.enable_grafana ? 1 : 0

  metadata {
    name      = module.plan.names.grafana_secret
    namespace = kubernetes_namespace_v1.this.metadata[0].name
    labels    = module.plan.labels
  }
  data = { admin-password = var.grafana_admin_password }
}

resource "helm_release" "neurogate" {
  name      = "neurogate"
  namespace = kubernetes_namespace_v1.this.metadata[0].name
  chart     = "${path.module}/../k8s/chart"

  # An upgrade that does not become ready is taken back.
  atomic          = true
  wait            = true
  timeout         = 900
  max_history     = 10
  cleanup_on_fail = true

  values = [
    yamlencode(module.plan.values),
    # Keys are read once, when a gateway starts: others start it anew.
    yamlencode({ gateway = { podAnnotations = { "neurogate/keys-version" = kubernetes_secret_v1.keys.metadata[0].resource_version } } }),
  ]

  depends_on = [terraform_data.images, kubernetes_secret_v1.keys, kubernetes_secret_v1.grafana]
}

data "kubernetes_service_v1" "gateway" {
  metadata {
    name      = module.plan.names.gateway
    namespace = kubernetes_namespace_v1.this.metadata[0].name
  }

  depends_on = [helm_release.neurogate]
}
