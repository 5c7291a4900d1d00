"""How large a tensor becomes while something runs."""

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):
    """Notes the largest tensor that an operation makes, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        for value in result if isinstance(result, list | tuple) else [result]:
            if isinstance(value, Tensor):
                self.size = max(self.size, value.numel())
        return result
