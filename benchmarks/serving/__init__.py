"""Speed of the server, against peers and against the floor of a request's cost."""
