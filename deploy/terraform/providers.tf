# A cluster that is made here tells how it is reached; another one's kubeconfig does.

locals {
  made = one(kind_cluster.this)
}

provider "kind" {}

provider "kubernetes" {
  host                   = try(local.made.endpoint, null)
  cluster_ca_certificate = try(local.made.cluster_ca_certificate, null)
  client_certificate     = try(local.made.client_certificate, null)
  client_key             = try(local.made.client_key, null)
  config_path            = var.create_cluster ? null : pathexpand(var.kubeconfig)
  config_context         = var.create_cluster ? null : var.kube_context
}

provider "helm" {
  kubernetes = {
    host                   = try(local.made.endpoint, null)
    cluster_ca_certificate = try(local.made.cluster_ca_certificate, null)
    client_certificate     = try(local.made.client_certificate, null)
    client_key             = try(local.made.client_key, null)
    config_path            = var.create_cluster ? null : pathexpand(var.kubeconfig)
    config_context         = var.create_cluster ? null : var.kube_context
  }
}
