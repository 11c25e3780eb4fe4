"""What runs inside a TorchServe worker: it goes whole into every archive and needs nothing else."""
