"""How the outside is asked who the workers are: name servers and the Kubernetes API, one vendor library each."""
