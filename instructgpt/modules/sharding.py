"""``--trainer.strategy fsdp2``: weights, gradients and optimizer state spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from instructgpt.models.checkpoint import load_checkpoint
from instructgpt.models.forward import exact_tables
from instructgpt.models.meta_start import read, waiting, where_they_are
from instructgpt.models.shard_files import (
    OPTIMIZER,
    SHARDS,
    average_of,
    folder_of,
    new_folder,
    put_average,
    put_states,
    read_shards,
    read_weights,
    remove_unnamed,
    take_tensors,
    write_shards,
)
from instructgpt.models.shards import (
    filled,
    gather,
    outline,
    part_of,
    release,
    shard,
    shards_of,
    whole,
)
from instructgpt.models.tensor_parallel import cuts_of
from instructgpt.modules.tensor_ranks import TensorRanks
from instructgpt.modules.trained import has_trainer
from instructgpt.modules.zero3 import whole_weights
from instructgpt.types import require


class FSDP2Strategy(TensorRanks):
    """Each process keeps its part of every network (PyTorch's FSDP2): weights, gradients and Adam.

    A network starts without weights, of which each process reads its part.
    In updates layers are gathered one after the other, and their gradients are exchanged at once
    (ZeRO 3, arXiv:1910.02054), and in scoring and validation. Sampling has all of the policy, and a
    learned reward is asked as a whole: how often differs from process to process. Checkpoints are
    those of any other strategy.

    Args:
        shard_frozen: whether the reference and a learned reward are spread, too; else each process
            has all of them.
        tensor_parallel_size: processes that cut each linear layer of attention and MLP between them
            and read the same rows (arXiv:1909.08053), by the plan that transformers has for the
            architecture; their number must divide its heads. The others read other rows, and
            spread what is left. Not with an adapter.
        timeout_seconds: how long a process waits for another one.
        sharded_checkpoints: each process writes its part of a checkpoint, beside the file, and no
            process must hold all of it (``fsdp2_sharded``); ``export`` puts it together.
    """

    def __init__(
        self,
        shard_frozen: bool = True,
        tensor_parallel_size: int = 1,
        timeout_seconds: float = 1800.0,
        sharded_checkpoints: bool = False,
    ) -> None:
        super().__init__(timeout=timedelta(seconds=timeout_seconds))
        self.shard_frozen, self.sharded_checkpoints = shard_frozen, sharded_checkpoints
        self.outlines: dict[nn.Module, nn.Module] = {}  # of the networks that learn
        self.frozen: list[nn.Module] = []
        self.begun: list[nn.Module] = []  # built without weights
        self.tensor_parallel_size, self.timeout_seconds = tensor_parallel_size, timeout_seconds

    def setup_environment(self) -> None:
        """Check what was asked for: of an error before, jsonargparse says something else."""
        seconds = self.timeout_seconds
        require(seconds > 0, "--trainer.strategy.timeout_seconds", "> 0", seconds)
        super().setup_environment()

    # -- networks

    def shard(self, network: nn.Module) -> None:
        """Spread a network that learns; what every process has built is rank 0's.

        Args:
            network: changed in place.
        """
        if self.tensor_parallel_size > 1:
            cuts_of(network, self.tensor_parallel_size)  # every process refuses before it waits
        for weight in network.parameters():
            if weight.is_meta:
                continue
            weight.data = weight.data.to(self.root_device)
            if weight.requires_grad:
                dist.broadcast(weight.data, 0)
        self._convert(network)
        self.outlines[network] = outline(network)
        shard(network, self.mesh())

    def shard_still(self, network: nn.Module, own_format: bool) -> None:
        """Spread a network that does not learn, if that is asked for, once.

        Args:
            network: changed in place.
            own_format: whether it keeps its number format; else it is that of what learns.
        """
        if self.shard_frozen and not shards_of([network]):
            if not own_format:
                self._convert(network)
            with where_they_are():
                network.to(self.root_device)
            shard(network, self.mesh())
            self.frozen.append(network)

    def read_rest(self) -> None:
        """Have all of what was built without weights and is not spread."""
        for network in self.begun:
            read(waiting(network), self.root_device)
        self.begun.clear()

    def _convert(self, network: nn.Module) -> None:
        """Have weights in their final format: what is spread keeps it."""
        with exact_tables(network):
            self.precision_plugin.convert_module(network)

    @property
    def networks(self) -> list[nn.Module]:
        """All that are spread."""
        return [*self.outlines, *self.frozen]

    @contextmanager
    def gathered(self, networks: Sequence[nn.Module] | None = None) -> Iterator[None]:
        """Within the context every process has all weights, for any calls without gradients.

        Args:
            networks: of which; None: of all. Afterwards nothing is gathered.
        """
        asked = self.networks if networks is None else networks
        gather([network for network in asked if network in self.networks])
        try:
            yield
        finally:
            release(self.networks)

    def on_predict_start(self) -> None:
        """Have all weights: processes may differ in all that they ask."""
        gather(self.networks)

    def on_predict_end(self) -> None:
        """Let go of what is gathered."""
        release(self.networks)

    on_validation_end = on_test_end = on_predict_end

    # -- a step

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Nothing to block: parts of gradients are added up, as wholes they would not fit."""
        yield

    def optimizer_step(
        self, optimizer: Optimizer, closure: Callable[[], Any], model: Any = None, **kwargs: Any
    ) -> Any:
        """Step on this process's part, and let go of what the step has only asked."""
        with self.one_by_one(optimizer):
            output = super().optimizer_step(optimizer, closure, model, **kwargs)
        release(self.networks)
        return output

    # -- what Lightning does with a model

    def setup(self, trainer: Trainer) -> None:
        """Move what is not spread, and make the optimizer; there is no wrapper."""
        assert self.accelerator is not None
        assert self.model is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def teardown(self) -> None:
        """Leave the weights where they are: the export gathers them."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()

    # -- checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The weights, to be written; every process must call this."""
        assert self.model is not None
        if self.sharded_checkpoints:
            return self.model.state_dict(keep_vars=True)
        return self._wholes(self.model.state_dict(keep_vars=True))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's part of whole weights."""
        assert self.lightning_module is not None
        ours = self.lightning_module.state_dict()
        state = checkpoint["state_dict"]
        parts = {name: part_of(value, ours.get(name, value)) for name, value in state.items()}
        self.lightning_module.load_state_dict(parts, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state, to be written; every process must call this."""
        found: dict[str, Any] = super().optimizer_state(optimizer)  # type: ignore[assignment]
        if self.sharded_checkpoints:
            return {**found, "state": {n: dict(state) for n, state in found["state"].items()}}
        states = {number: self._wholes(state) for number, state in found["state"].items()}
        return {**found, "state": states}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of the whole state."""
        known = self._states_beside(checkpoint)
        for place, optimizer in enumerate(self.optimizers):
            found = checkpoint["optimizer_states"][place]
            by_number = _by_number(optimizer, found)
            put_states(found, place, known)
            states = {
                number: {name: _part(value, by_number[number]) for name, value in state.items()}
                for number, state in found["state"].items()
            }
            optimizer.load_state_dict({**found, "state": states})

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint: the parts of every process, then the file that names them."""
        path = Path(filepath)
        if self.sharded_checkpoints:
            folder = self.broadcast(new_folder(path, checkpoint["global_step"]))
            tensors, tied = take_tensors(checkpoint)
            checkpoint[SHARDS] = {**write_shards(tensors, folder), "tied": tied}
        elif average := average_of(checkpoint):
            checkpoint["ppo"]["average"] = self._wholes(average)
        super().save_checkpoint(checkpoint, filepath, storage_options)
        if self.sharded_checkpoints and self.is_global_zero:
            remove_unnamed(path.parent)

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; of what lies beside the file this process's part."""
        path = Path(checkpoint_path)
        content = load_checkpoint(path)
        if SHARDS in content:
            assert self.lightning_module is not None
            like = self.lightning_module.state_dict().get
            content["state_dict"] = read_weights(content, path, like)
            put_average(content, path, lambda name: like(f"policy.{name}"))
            content[SHARDS]["path"] = str(folder_of(content, path))
        return content

    def _states_beside(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        """This process's part of the state of the optimizers that lies beside a checkpoint."""
        if SHARDS not in checkpoint:
            return {}
        weights = {
            f"{place}.{number}": weight
            for place, (optimizer, found) in enumerate(
                zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
            )
            for number, weight in _by_number(optimizer, found).items()
        }
        folder = Path(checkpoint[SHARDS]["path"])
        return read_shards(folder, OPTIMIZER, lambda name: weights.get(name.rpartition(".")[0]))

    def _wholes(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """What is spread as wholes, one after the other, so that only rank 0 must hold them all."""
        kept: dict[str, Any] = {}
        known: dict[int, Any] = {}  # tied weights have several names
        for name, value in tensors.items():
            if id(value) not in known:
                tensor = isinstance(value, Tensor)
                everything = whole(value.detach()).cpu() if tensor else value
                known[id(value)] = everything if self.is_global_zero else None
            if self.is_global_zero:
                kept[name] = known[id(value)]
        return kept


def _by_number(optimizer: Optimizer, found: Mapping[str, Any]) -> dict[int, Tensor]:
    """The weights of an optimizer by the numbers that they have in its state."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [n for group in found["param_groups"] for n in group["params"]]
    return dict(zip(numbers, weights, strict=True))


def _part(value: Any, weight: Tensor) -> Any:
    return part_of(value, weight) if isinstance(value, Tensor) else value


def sharding_of(trainer: Trainer) -> FSDP2Strategy | None:
    """The strategy of a run that spreads its networks, if it does."""
    return trainer.strategy if isinstance(trainer.strategy, FSDP2Strategy) else None


@contextmanager
def gathered(trainer: Trainer, networks: Sequence[nn.Module] | None = None) -> Iterator[None]:
    """Within the context every process has all weights, for any calls without gradients.

    Args:
        trainer: of the run.
        networks: of which; None: of all. Afterwards nothing is gathered.
    """
    strategy = sharding_of(trainer)
    with whole_weights(trainer) if strategy is None else strategy.gathered(networks):
        yield


def shard_stage(stage: Any, learning: Sequence[nn.Module], still: Sequence[nn.Module]) -> None:
    """Spread the networks of a stage, where the strategy asks for it.

    Args:
        stage: built.
        learning: networks of it that the optimizer changes.
        still: the others.
    """
    strategy = sharding_of(stage.trainer) if has_trainer(stage) else None
    if strategy is not None:
        for network in learning:
            strategy.shard(network)
        reward = stage.reward_function
        scorers = [] if reward is None else reward.networks()
        for network in still:
            strategy.shard_still(network, own_format=network in scorers)
        strategy.read_rest()
        if learning and stage.average is not None:
            stage.average.start(stage.policy)


@contextmanager
def whole_networks(stage: Any) -> Iterator[None]:
    """Within the context rank 0 has the stage's networks as plain ones; every rank must call this.

    Args:
        stage: after its training.
    """
    strategy = sharding_of(stage.trainer)
    if strategy is None:
        with gathered(stage.trainer):
            yield
        return
    here = strategy.is_global_zero
    plain = {network: filled(empty, network, here) for network, empty in strategy.outlines.items()}
    average, parts = stage.average, {}
    if average is not None:
        parts, average.weights = average.weights, average.whole()
    if here:
        stage.exchange(plain)
    try:
        yield
    finally:
        stage.exchange({one: network for network, one in plain.items()})
        if average is not None:
            average.weights = parts


StrategyRegistry.register(
    "fsdp2", FSDP2Strategy, description="Weights and optimizer state spread over processes"
)
StrategyRegistry.register(
    "fsdp2_sharded",
    FSDP2Strategy,
    description="The same, and each process writes its part of a checkpoint",
    sharded_checkpoints=True,
)
