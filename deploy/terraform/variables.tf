# What may be chosen. Bounds are checked by modules/plan, so that they are tested without any provider.

variable "kube_context" {
  description = "Context of the kubeconfig; that of a kind cluster is kind-NAME."
  type        = string
  default     = "kind-neurogate"
}

variable "kubeconfig" {
  description = "Path of the kubeconfig of a cluster that is there already."
  type        = string
  default     = "~/.kube/config"
}

variable "create_cluster" {
  description = "Make a kind cluster, and remove it again; false takes the one of kube_context."
  type        = bool
  default     = true
}

variable "node_image" {
  description = "Image of the kind cluster's nodes, with its digest; null is the provider's own."
  type        = string
  default     = null
}

variable "load_images" {
  description = "Give a kind cluster that is made here the images of this machine's Docker (`make docker`)."
  type        = bool
  default     = true
}

variable "namespace" {
  description = "Namespace that is made for all of it."
  type        = string
  default     = "neurogate"
}

variable "gateway_replicas" {
  description = "Gateways, 1 to 10."
  type        = number
  default     = 1
}

variable "worker_replicas" {
  description = "Workers, 1 to 20."
  type        = number
  default     = 3
}

variable "ollama_host" {
  description = "URL of an Ollama server that the workers ask, for example http://ollama.example:11434; empty has each of them manage llama.cpp."
  type        = string
  default     = ""
}

variable "api_keys" {
  description = "Bearer keys of those who may call, or sha256$ and the digest of each; none lets anybody."
  type        = list(string)
  default     = []
  sensitive   = true

  validation {
    condition     = alltrue([for key in var.api_keys : length(key) > 0 && !strcontains(key, ",")]) && length(distinct(var.api_keys)) == length(var.api_keys)
    error_message = "api_keys must be different, not empty, and without commas."
  }
}

variable "gateway_image" {
  description = "REPOSITORY:TAG or REPOSITORY@sha256:DIGEST."
  type        = string
  default     = "neurogate-gateway:latest"
}

variable "worker_image" {
  description = "REPOSITORY:TAG or REPOSITORY@sha256:DIGEST."
  type        = string
  default     = "neurogate-worker:latest"
}

variable "log_level" {
  description = "debug, info, warn or error."
  type        = string
  default     = "info"
}

variable "gateway_node_port" {
  description = "Port of every node at which gateways are reached, 30000 to 32767."
  type        = number
  default     = 30080
}

variable "prometheus_node_port" {
  description = "The same of Prometheus."
  type        = number
  default     = 30090
}

variable "grafana_node_port" {
  description = "The same of Grafana."
  type        = number
  default     = 30030
}

variable "node_host" {
  description = "Host at which node ports are reached, for the URLs that are told."
  type        = string
  default     = "localhost"
}

variable "enable_prometheus" {
  description = "Run a Prometheus with the project's rules."
  type        = bool
  default     = true
}

variable "enable_grafana" {
  description = "Run a Grafana with that Prometheus as its source, and the project's dashboards."
  type        = bool
  default     = true
}

variable "grafana_admin_password" {
  description = "Password of Grafana's user admin."
  type        = string
  default     = "neurogate"
  sensitive   = true

  validation {
    condition     = length(var.grafana_admin_password) >= 8
    error_message = "grafana_admin_password must have 8 characters or more."
  }
}

variable "gateway_cpu_request" {
  description = "CPU set aside for each gateway."
  type        = string
  default     = "100m"
}

variable "gateway_cpu_limit" {
  description = "CPU that each gateway may use."
  type        = string
  default     = "500m"
}

variable "gateway_memory_request" {
  description = "Memory set aside for each gateway."
  type        = string
  default     = "64Mi"
}

variable "gateway_memory_limit" {
  description = "Memory that each gateway may use."
  type        = string
  default     = "256Mi"
}

variable "worker_cpu_request" {
  description = "CPU set aside for each worker."
  type        = string
  default     = "100m"
}

variable "worker_cpu_limit" {
  description = "CPU that each worker may use; a managed engine has as many threads."
  type        = string
  default     = "500m"
}

variable "worker_memory_request" {
  description = "Memory set aside for each worker; the default model takes 610 MB, an engine elsewhere none."
  type        = string
  default     = "640Mi"
}

variable "worker_memory_limit" {
  description = "Memory that each worker may use."
  type        = string
  default     = "1Gi"
}

variable "environment" {
  description = "dev, staging or prod; prod refuses what only trying needs."
  type        = string
  default     = "dev"
}

variable "tags" {
  description = "Labels of everything."
  type        = map(string)
  default     = {}
}
