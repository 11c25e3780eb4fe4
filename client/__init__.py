"""Start, stop and ask a TorchServe that serves this project's archives (`python -m client`)."""
