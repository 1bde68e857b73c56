"""Which settings are better: a search over hyper-parameters, and configurations compared with several seeds."""
