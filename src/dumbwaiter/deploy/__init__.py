"""Rendering what deployments need: Kubernetes objects, a Helm chart, an image, compose, systemd."""
