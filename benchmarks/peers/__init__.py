"""What people build today, each as its own documents teach, around the same torch module.

All take the bytes of a JPEG and answer `{"label", "probability", "heatmap": {"overlay"}}`, the
overlay of the same size as ours. Each has its weights' file and card from `train.checkpoint`.
"""
