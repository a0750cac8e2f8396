"""Tasks: data, network and metrics of each kind of training."""
