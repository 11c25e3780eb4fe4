"""Speed of single parts: drawing an overlay, training."""
