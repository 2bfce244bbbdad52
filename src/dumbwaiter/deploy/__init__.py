"""Rendering what runs the parts of dumbwaiter elsewhere: on Kubernetes, in images, under systemd."""
