# What is to be: names, ports, the chart's values, and what people are told. Nothing here makes anything.

locals {
  name = "neurogate" # the chart's: names of objects begin with it

  names = {
    gateway         = "${local.name}-gateway"
    worker          = "${local.name}-worker"
    worker_headless = "${local.name}-worker-headless"
    prometheus      = "${local.name}-prometheus"
    grafana         = "${local.name}-grafana"
    secrets         = "${local.name}-secrets"
    grafana_secret  = "${local.name}-grafana-admin"
  }

  ports = { gateway = 80, worker = 50051, prometheus = 9090, grafana = 3000 }

  node_ports = merge(
    { gateway = var.gateway_node_port },
    var.enable_prometheus ? { prometheus = var.prometheus_node_port } : {},
    var.enable_grafana ? { grafana = var.grafana_node_port } : {},
  )

  urls = { for what, port in local.node_ports : what => "http://${var.node_host}:${port}" }

  worker_dns = "${local.names.worker_headless}.${var.namespace}.svc.cluster.local"

  is_prod = var.environment == "prod"

  labels = merge(var.tags, { "neurogate.environment" = var.environment })

  # REPOSITORY:TAG or REPOSITORY@DIGEST; a registry may have a port, so the tag is what follows the last colon.
  images = {
    for what, image in { gateway = var.gateway_image, worker = var.worker_image } : what => (
      strcontains(image, "@")
      ? { repository = split("@", image)[0], tag = "", digest = split("@", image)[1] }
      : { repository = regex("^(.*):[^:]*$", image)[0], tag = regex(":([^:]*)$", image)[0], digest = "" }
    )
  }

  # A kind cluster has the images of `make docker`, under the tag latest: nobody is to ask a registry for them.
  pull_policy = var.create_cluster ? "IfNotPresent" : "Always"

  resources = {
    for what, each in var.resources : what => {
      requests = { cpu = each.cpu_request, memory = each.memory_request }
      limits   = { cpu = each.cpu_limit, memory = each.memory_limit }
    }
  }

  memory_unit = { Ki = 1, Mi = 1024, Gi = 1048576, Ti = 1073741824 }
  amounts = {
    for what, each in var.resources : what => {
      for field, text in each : field => (
        startswith(field, "cpu")
        ? (endswith(text, "m") ? tonumber(trimsuffix(text, "m")) : tonumber(text) * 1000)
        : tonumber(regex("^[0-9]+", text)) * local.memory_unit[regex("[KMGT]i$", text)]
      )
    }
  }

  values = {
    config = {
      gateway = { log_level = var.log_level }
      worker  = { log_level = var.log_level }
    }
    secrets = { existingSecret = local.names.secrets, required = var.has_api_keys }
    gateway = {
      replicas            = var.gateway_replicas
      image               = merge(local.images.gateway, { pullPolicy = local.pull_policy })
      resources           = local.resources["gateway"]
      service             = { type = "NodePort", nodePort = var.gateway_node_port }
      podLabels           = local.labels
      podDisruptionBudget = { enabled = var.gateway_replicas > 1 }
    }
    worker = {
      replicas            = var.worker_replicas
      image               = merge(local.images.worker, { pullPolicy = local.pull_policy })
      engine              = var.ollama_host == "" ? "llamacpp" : "ollama"
      engineUrl           = var.ollama_host
      fetchModel          = var.ollama_host == ""
      resources           = local.resources["worker"]
      podLabels           = local.labels
      podDisruptionBudget = { enabled = var.worker_replicas > 1 }
    }
    # Not `condition ? {...} : {}`, which would make one type of all its values.
    prometheus = { for key, value in {
      enabled   = var.enable_prometheus
      retention = { dev = "2d", staging = "7d", prod = "15d" }[var.environment]
      nodePort  = var.prometheus_node_port
    } : key => value if var.enable_prometheus || key == "enabled" }
    grafana = { for key, value in {
      enabled        = var.enable_grafana
      nodePort       = var.grafana_node_port
      existingSecret = local.names.grafana_secret
    } : key => value if var.enable_grafana || key == "enabled" }
  }

  # One control plane, and a node for each four pods: two or three, so that losing one shows what it shows in earnest.
  cluster = {
    name         = trimprefix(var.kube_context, "kind-")
    worker_nodes = min(3, max(2, ceil((var.gateway_replicas + var.worker_replicas) / 4)))
    host_ports   = local.node_ports
  }

  dashboards = sort([for file in fileset(var.dashboards_dir, "*.json") : trimsuffix(file, ".json")])
  rules      = sort([for file in fileset(var.rules_dir, "*.yml") : trimsuffix(file, ".yml")])

  kubectl = "kubectl --context ${var.kube_context} --namespace ${var.namespace}"

  kubectl_commands = {
    status  = "${local.kubectl} get pods,services"
    gateway = "${local.kubectl} logs --follow deployment/${local.names.gateway}"
    workers = "${local.kubectl} logs --follow --prefix statefulset/${local.names.worker}"
    forward = "${local.kubectl} port-forward service/${local.names.gateway} 8080:${local.ports.gateway}"
    slices  = "${local.kubectl} get endpointslices --selector kubernetes.io/service-name=${local.names.worker_headless}"
  }

  summary = {
    environment = var.environment
    context     = var.kube_context
    namespace   = var.namespace
    gateways    = var.gateway_replicas
    workers     = var.worker_replicas
    engine      = local.values.worker.engine
    keys        = var.has_api_keys ? "asked for" : "none: anybody may call"
    images      = { gateway = var.gateway_image, worker = var.worker_image }
    urls        = local.urls
    dashboards  = var.enable_grafana ? local.dashboards : []
    rules       = var.enable_prometheus ? local.rules : []
  }
}
