"""From a reference group to the weights of a model and its card."""
