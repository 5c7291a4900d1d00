"""What tests need to see a gradient: plain descent, and all weights as one vector."""

import torch


def sgd(parameters, lr=0.1):
    """Plain gradient descent: what it changes is the gradient itself."""
    return torch.optim.SGD(parameters, lr=lr)


def weights(module):
    """All weights as one vector."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])
