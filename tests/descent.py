"""What tests need to see a gradient: plain descent, all weights as one vector; and to resume."""

import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision


def sgd(parameters, lr=0.1):
    """Plain gradient descent: what it changes is the gradient itself."""
    return torch.optim.SGD(parameters, lr=lr)


def weights(module):
    """All weights as one vector."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def gradient(loss, network):
    """Of a loss by all weights that it depends on, as one vector."""
    network.zero_grad()
    loss.backward(retain_graph=True)
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


class SaveAt(Callback):
    """Saves after a step, once."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)


def half_precision(scale=2.0**16, **options):
    """``--trainer.precision 16-mixed`` on a CPU, where Lightning by itself takes bfloat16."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, **options)
    return MixedPrecision("16-mixed", "cpu", scaler)
