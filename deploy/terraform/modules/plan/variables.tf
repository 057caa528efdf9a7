# What the root module takes, and where things lie; what each means is said there.

variable "kube_context" {
  type = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,252}$", var.kube_context))
    error_message = "kube_context must be the name of a kubeconfig context, for example kind-neurogate."
  }
}

variable "create_cluster" {
  type = bool

  validation {
    condition     = !var.create_cluster || can(regex("^kind-[a-z0-9.-]+$", var.kube_context))
    error_message = "create_cluster makes a kind cluster, whose context is kind-NAME: name it so in kube_context, or set create_cluster = false."
  }
}

variable "namespace" {
  type = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace)) && !contains(["default", "kube-system", "kube-public", "kube-node-lease"], var.namespace)
    error_message = "namespace must be lower-case letters, digits and dashes, at most 63, and none of Kubernetes' own: it is made, and removed again."
  }
}

variable "gateway_replicas" {
  type = number

  validation {
    condition     = var.gateway_replicas >= 1 && var.gateway_replicas <= 10 && floor(var.gateway_replicas) == var.gateway_replicas
    error_message = "gateway_replicas must be a whole number from 1 to 10."
  }
}

variable "worker_replicas" {
  type = number

  validation {
    condition     = var.worker_replicas >= 1 && var.worker_replicas <= 20 && floor(var.worker_replicas) == var.worker_replicas
    error_message = "worker_replicas must be a whole number from 1 to 20."
  }
}

variable "ollama_host" {
  type = string

  validation {
    condition     = var.ollama_host == "" || can(regex("^https?://[^/@\\s]+$", var.ollama_host))
    error_message = "ollama_host must be like http://ollama.example:11434, without a path and without a password; empty has each worker manage llama.cpp."
  }
}

variable "has_api_keys" {
  type = bool
}

variable "gateway_image" {
  type = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9./_:-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$", var.gateway_image))
    error_message = "gateway_image must be REPOSITORY:TAG or REPOSITORY@sha256:DIGEST."
  }
}

variable "worker_image" {
  type = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9./_:-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$", var.worker_image))
    error_message = "worker_image must be REPOSITORY:TAG or REPOSITORY@sha256:DIGEST."
  }
}

variable "log_level" {
  type = string

  validation {
    condition     = contains(["debug", "info", "warn", "error"], var.log_level)
    error_message = "log_level must be debug, info, warn or error."
  }
}

variable "gateway_node_port" {
  type = number

  validation {
    condition     = var.gateway_node_port >= 30000 && var.gateway_node_port <= 32767 && floor(var.gateway_node_port) == var.gateway_node_port
    error_message = "gateway_node_port must be from 30000 to 32767."
  }
}

variable "prometheus_node_port" {
  type = number

  validation {
    condition     = var.prometheus_node_port >= 30000 && var.prometheus_node_port <= 32767 && floor(var.prometheus_node_port) == var.prometheus_node_port
    error_message = "prometheus_node_port must be from 30000 to 32767."
  }
}

variable "grafana_node_port" {
  type = number

  validation {
    condition     = var.grafana_node_port >= 30000 && var.grafana_node_port <= 32767 && floor(var.grafana_node_port) == var.grafana_node_port
    error_message = "grafana_node_port must be from 30000 to 32767."
  }

  validation {
    condition     = length(distinct([var.gateway_node_port, var.prometheus_node_port, var.grafana_node_port])) == 3
    error_message = "gateway_node_port, prometheus_node_port and grafana_node_port must be three ports."
  }
}

variable "node_host" {
  type = string

  validation {
    condition     = can(regex("^[A-Za-z0-9.-]+$", var.node_host))
    error_message = "node_host must be a host name or an IPv4 address."
  }
}

variable "enable_prometheus" {
  type = bool
}

variable "enable_grafana" {
  type = bool

  validation {
    condition     = !var.enable_grafana || var.enable_prometheus
    error_message = "enable_grafana needs enable_prometheus: its dashboards ask that Prometheus."
  }
}

variable "grafana_password_is_default" {
  type = bool
}

variable "resources" {
  description = "cpu and memory, requests and limits, of gateway and worker."
  type = map(object({
    cpu_request    = string
    cpu_limit      = string
    memory_request = string
    memory_limit   = string
  }))

  validation {
    condition     = alltrue(flatten([for each in values(var.resources) : [for cpu in [each.cpu_request, each.cpu_limit] : can(regex("^([0-9]+m|[0-9]+(\\.[0-9]{1,3})?)$", cpu))]]))
    error_message = "CPU must be like 500m or 1.5."
  }

  validation {
    condition     = alltrue(flatten([for each in values(var.resources) : [for memory in [each.memory_request, each.memory_limit] : can(regex("^[0-9]+(Ki|Mi|Gi|Ti)$", memory))]]))
    error_message = "Memory must be like 512Mi or 2Gi."
  }
}

variable "environment" {
  type = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "environment must be dev, staging or prod."
  }
}

variable "tags" {
  type = map(string)

  validation {
    condition = alltrue([
      for key, value in var.tags :
      can(regex("^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", key))
      && can(regex("^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$", value))
    ])
    error_message = "tags become labels: keys and values of letters, digits, dots, dashes and underscores, at most 63."
  }

  validation {
    condition     = alltrue([for key in keys(var.tags) : !can(regex("(^|\\.)(kubernetes|k8s)\\.io/", key))])
    error_message = "tags must not be labels of Kubernetes' own (kubernetes.io/, k8s.io/)."
  }
}

variable "dashboards_dir" {
  type = string
}

variable "rules_dir" {
  type = string
}
