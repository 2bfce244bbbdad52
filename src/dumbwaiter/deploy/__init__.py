"""Rendering what runs the parts of dumbwaiter elsewhere: on Kubernetes, in images, under systemd.

A folder for each; what they share lies beside them. writing.py alone touches files.
"""
