"""Speed of the server beside its peers and beside the least that an answer can cost."""
