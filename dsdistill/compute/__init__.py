"""Fast passes through a network and their derivatives; how pixels and networks are stepped."""
