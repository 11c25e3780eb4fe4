"""Starts and stops a TorchServe of this project's archives, and sends it images."""
