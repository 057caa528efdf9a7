output "values" {
  description = "Values of the chart."
  value       = local.values

  precondition {
    condition     = alltrue([for each in values(local.amounts) : each.cpu_request <= each.cpu_limit && each.memory_request <= each.memory_limit])
    error_message = "A request is larger than its limit: raise *_cpu_limit or *_memory_limit, or lower the request."
  }

  precondition {
    condition     = !local.is_prod || var.has_api_keys
    error_message = "environment = \"prod\" needs api_keys: without them anybody may call."
  }

  precondition {
    condition     = !local.is_prod || var.gateway_replicas >= 2
    error_message = "environment = \"prod\" needs gateway_replicas of 2 or more, so that a node may fail."
  }

  precondition {
    condition     = !local.is_prod || alltrue([for image in values(local.images) : image.tag != "latest"])
    error_message = "environment = \"prod\" needs images that stay what they are: give gateway_image and worker_image a version or a digest."
  }

  precondition {
    condition     = !local.is_prod || !var.enable_grafana || !var.grafana_password_is_default
    error_message = "environment = \"prod\" needs a grafana_admin_password of its own."
  }
}

output "names" {
  description = "Names of the objects that the chart makes, and of the Secrets it is told."
  value       = local.names
}

output "cluster" {
  description = "The kind cluster: name, nodes beside the control plane, ports of this machine."
  value       = local.cluster
}

output "labels" {
  description = "Labels of what Terraform makes itself."
  value       = local.labels
}

output "urls" {
  description = "URLs by node port: gateway, prometheus, grafana."
  value       = local.urls
}

output "worker_dns" {
  description = "Name of all workers."
  value       = local.worker_dns
}

output "worker_grpc_endpoint" {
  description = "host:port of all workers."
  value       = "${local.worker_dns}:${local.ports.worker}"
}

output "dashboards" {
  description = "Dashboards that Grafana is provisioned with."
  value       = local.dashboards
}

output "rules" {
  description = "Files of rules that Prometheus is given."
  value       = local.rules
}

output "kubectl_commands" {
  description = "What one asks most often."
  value       = local.kubectl_commands
}

output "summary" {
  description = "What there will be."
  value       = local.summary
}
