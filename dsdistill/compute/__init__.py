"""Fast passes through a network and their derivatives; optimisers of pixels and of networks."""
