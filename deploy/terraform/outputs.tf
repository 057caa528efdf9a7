output "namespace" {
  description = "Where it all is."
  value       = kubernetes_namespace_v1.this.metadata[0].name
}

output "gateway_service_name" {
  description = "The Service of the gateways."
  value       = module.plan.names.gateway
}

output "gateway_url" {
  description = "Where prompts are sent."
  value       = module.plan.urls["gateway"]
}

output "gateway_cluster_ip" {
  description = "Address of the gateways' Service inside the cluster."
  value       = data.kubernetes_service_v1.gateway.spec[0].cluster_ip
}

output "worker_service_name" {
  description = "The headless Service of the workers, which gateways follow."
  value       = module.plan.names.worker_headless
}

output "worker_service_dns" {
  description = "Name of all workers inside the cluster."
  value       = module.plan.worker_dns
}

output "worker_grpc_endpoint" {
  description = "host:port of all workers inside the cluster."
  value       = module.plan.worker_grpc_endpoint
}

output "prometheus_url" {
  description = "Prometheus; null where it is off."
  value       = lookup(module.plan.urls, "prometheus", null)
}

output "grafana_url" {
  description = "Grafana; null where it is off."
  value       = lookup(module.plan.urls, "grafana", null)
}

output "grafana_credentials" {
  description = "Who may change Grafana; null where it is off. `terraform output -json grafana_credentials` shows it."
  value       = var.enable_grafana ? { username = "admin", password = var.grafana_admin_password } : null
  sensitive   = true
}

output "deployment_summary" {
  description = "What there is."
  value       = module.plan.summary
}

output "kubectl_commands" {
  description = "What one asks most often."
  value       = module.plan.kubectl_commands
}
