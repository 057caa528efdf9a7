# One machine, one kind cluster: `make tf-apply` takes this one unless TF_ENV says otherwise.
environment      = "dev"
gateway_replicas = 1
worker_replicas  = 3
log_level        = "debug"
tags             = { team = "inference" }
