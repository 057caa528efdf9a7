# No provider: what is decided here can be tested anywhere (`make tf-test`).
terraform {
  required_version = ">= 1.9.0, < 2.0.0"
}
