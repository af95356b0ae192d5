"""What a model is to the programs: networks by name, a training step, and a prediction."""

import argparse
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.presets import SIZES, Preset
from util.checkpoints import LoadReport
from util.command_line import Parser
from util.device import check_bfloat16, choose_device, compile_network

Batch = Mapping[str, Tensor | list[str]]


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is NaN or infinite; the step that would have used it was not taken.

    Attributes:
        names: the losses, and `gradient of <optimiser>`.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


@dataclass
class Prediction:
    """What a model makes of a batch.

    Attributes:
        image: the picture in the target pose, [B, 3, H, W] in [-1, 1].
        flows: flow fields, coarse to fine, each [B, 2, h, w] in pixels of its own map.
        masks: occlusion masks of the same sizes, [B, 1, h, w] in [0, 1].
        attentions: local attention, coarse to fine, each [B, k², h, w], ≥ 0, sum 1; channel i·k + j
            is row i, column j of the window. Only where --save_flow asks for it.
        extras: further pictures to show beside it, by caption, like `image`.
    """

    image: Tensor
    flows: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)
    attentions: list[Tensor] = field(default_factory=list)
    extras: dict[str, Tensor] = field(default_factory=dict)


class BaseModel(ABC):
    """Base of all models; a subclass in models/NAME_model.py is found as `--model=NAME`.

    A subclass hands its networks to `add_network` (saved as `<iteration>_net_<key>.pth`) and, to
    train, its optimisers to `add_optimizer`.

    Class attributes:
        required_networks: those that a continued run cannot start without; others may start fresh
            where the checkpoint was saved without them. A required one may also bring only whole
            parts of itself, as from an earlier stage.

        network_options: the options that shape the networks, for messages.
        earlier_stage: the model whose checkpoint this one is to start from, if there is one.
        fixed_options: names and values of what others make an option of, and this model does not.
        training_shapes: its options that shape what only training has: discriminators.
        size_bound: what of the networks takes images of one size alone, if anything does.
        preset: defaults of its own options, and of others that it replaces in training.
        needs_body_mask: whether training reads `mask2` of a batch, 1 on the target's body.

    Attributes:
        networks: trainable networks by the short name that their checkpoint file carries.
        optimizers: optimisers by name; their state goes into the training state file.
        device: where networks and batches live.
    """

    required_networks: ClassVar[tuple[str, ...]] = ("G",)
    network_options: ClassVar[str] = "--model"
    earlier_stage: ClassVar[str | None] = None
    fixed_options: ClassVar[dict[str, Any]] = {}
    training_shapes: ClassVar[tuple[str, ...]] = ()
    size_bound: ClassVar[str | None] = None
    preset: ClassVar[Preset] = Preset()
    needs_body_mask: ClassVar[bool] = False
    # What takes back what a step has done so far; None outside of `step`.
    _undo: list[Callable[[], object]] | None = None

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = choose_device(options.gpu_ids)
        self.networks: dict[str, nn.Module] = {}
        self._computed: dict[str, nn.Module] = {}  # by which a network is run in training
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._channels_last = getattr(options, "channels_last", False)
        self._amp = getattr(options, "amp", "off") != "off"
        self._compiles = getattr(options, "compile", False)

    @staticmethod
    @abstractmethod
    def add_options(parser: Parser, is_train: bool) -> None:
        """Add the model's own options to the parser."""

    @staticmethod
    def preset_name(given: argparse.Namespace) -> str | None:
        """Whose published settings hold: those for --load_size, else the data set's own.

        Args:
            given: the options as read with the defaults that their own parts gave them.

        Returns:
            A name in SIZES; None where neither says one, as with records of another size.
        """
        fitting = (name for name, size in SIZES.items() if size == given.load_size)
        named = given.dataset_mode if given.dataset_mode in SIZES else None
        return next(fitting, named)

    @staticmethod  # noqa: B027 - a model without checks is fine
    def check_options(options: argparse.Namespace) -> None:
        """Fill in and check the model's options.

        Raises:
            UserError: options that contradict each other.
        """

    @staticmethod
    def notes(options: argparse.Namespace) -> list[str]:
        """Lines worth saying at the start of a run (for example that a loss network is random)."""
        return []

    def add_network(self, name: str, network: nn.Module) -> nn.Module:
        """Register a network and bring it to the device, in the layout of --channels_last.

        It computes by `run`. Its optimiser is to be made afterwards. What draws its first weights
        comes before: on a GPU the same seed would draw others than on the CPU.

        Args:
            name: the short name that its checkpoint file carries.
            network: with its first weights, on the CPU.

        Returns:
            The network.
        """
        layout = torch.channels_last if self._channels_last else torch.preserve_format
        self.networks[name] = network.to(self.device, memory_format=layout)
        self._computed[name] = self.compiled(network)
        if self._amp:
            check_bfloat16(self.device)
        return network

    def compiled(self, network: nn.Module) -> nn.Module:
        """A network compiled with --compile, else itself."""
        return compile_network(network, self.device) if self._compiles else network

    def run(self, name: str, *inputs: Any) -> Any:
        """What a network makes of its inputs: in training as --amp, --compile, --channels_last say.

        In evaluation mode (`predict`) it computes as in test.py, in float32 and uncompiled.

        Args:
            name: of the network.
            *inputs: its arguments; images or features [B, C, H, W] among them.

        Returns:
            Its outputs, a tensor or lists of some; in float32, for the losses.
        """
        network = self.networks[name]
        if self._channels_last:
            inputs = _map_tensors(_channels_last, inputs)
        if not network.training:
            return network(*inputs)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._amp):
            outputs = self._computed[name](*inputs)
        return _map_tensors(Tensor.float, outputs) if self._amp else outputs

    @abstractmethod
    def training_step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """One optimiser step on every network that trains at this iteration.

        Args:
            batch: a batch of dataset items on `device`.
            iteration: number of the step, from 1.

        Returns:
            The losses by name, already multiplied by their weights, detached scalars.

        Raises:
            NonFiniteError: by way of `update`.
        """

    def step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """`training_step`, all of it or nothing.

        Whatever it raises (memory that runs out, NaN) leaves all networks and optimisers bit for
        bit as they were: a generator and its discriminator never get a step apart.
        """
        for optimizer in self.optimizers.values():  # the forward pass has the gradients' memory
            optimizer.zero_grad(set_to_none=True)
        with self._all_or_nothing():
            return self.training_step(batch, iteration)

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        # Forward passes move spectral norm's vectors, the first step makes an optimiser's state.
        buffers = [value.clone() for value in self._buffers()]
        groups = [dict(group) for group in self._groups()]
        states = [set(optimizer.state) for optimizer in self.optimizers.values()]
        self._undo = []
        try:
            yield
        except BaseException:
            for undo in reversed(self._undo):
                undo()
            for optimizer, known in zip(self.optimizers.values(), states, strict=True):
                for parameter in set(optimizer.state) - known:
                    del optimizer.state[parameter]
            for group, kept in zip(self._groups(), groups, strict=True):
                group.update(kept)
            for value, kept in zip(self._buffers(), buffers, strict=True):
                value.copy_(kept)
            raise
        finally:
            self._undo = None

    def _buffers(self) -> list[Tensor]:
        return [value for network in self.networks.values() for value in network.buffers()]

    def _groups(self) -> list[dict[str, Any]]:
        return [group for value in self.optimizers.values() for group in value.param_groups]

    def on_failure(self, undo: Callable[[], object]) -> None:
        """Have `undo` called if the rest of the current `step` fails; without one, never."""
        if self._undo is not None:
            self._undo.append(undo)

    def _keep(self, optimizer: torch.optim.Optimizer) -> None:
        """Copy what an optimiser's step changes in place, to put it back if the step fails."""
        parameters = [value for group in optimizer.param_groups for value in group["params"]]
        states = [value for state in optimizer.state.values() for value in state.values()]
        tensors = [v.detach() for v in (*parameters, *states) if isinstance(v, Tensor)]
        kept = [value.clone() for value in tensors]
        self.on_failure(lambda: torch._foreach_copy_(tensors, kept))

    def update(
        self, name: str, loss: Tensor, parts: Mapping[str, Tensor], is_last: bool = False
    ) -> None:
        """Zero the gradients, backward pass, check, and step of one optimiser.

        Args:
            name: of the optimiser.
            loss: scalar, the sum of `parts`.
            parts: the losses by name, for the message.
            is_last: whether nothing that can fail follows in this training step, so that no copy
                of the network and the optimiser's averages has to be kept until its end.

        Raises:
            NonFiniteError: a loss or a gradient is NaN or infinite; the optimiser has not stepped.
        """
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        values = {key: value.detach() for key, value in parts.items()}
        # Infinite also where only the squares overflow, which they would within Adam.
        values[f"gradient of {name}"] = torch.nn.utils.get_total_norm(gradients)
        finite = torch.stack([value.to(torch.float32) for value in values.values()]).isfinite()
        if not finite.all():
            good = finite.tolist()
            raise NonFiniteError([key for key, ok in zip(values, good, strict=True) if not ok])
        # Now, not before the forward pass: what that needed is free again.
        if self._undo is not None and not is_last:
            self._keep(optimizer)
        optimizer.step()

    def stage(self, iteration: int) -> int | None:
        """Stage of the training (from 1) that an iteration (from 1) is in; None: there is one."""
        return None

    @abstractmethod
    def compute_prediction(self, batch: Batch) -> Prediction:
        """The model's picture of a batch; called by `predict`, which see."""

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """The model's picture of a batch, in evaluation mode: it leaves the networks unchanged.

        Args:
            batch: a batch of dataset items on `device`.
        """
        modes = {network: network.training for network in self.networks.values()}
        try:
            for network in modes:
                network.eval()
            return self.compute_prediction(batch)
        finally:
            for network, mode in modes.items():
                network.train(mode)

    def set_learning_rates(self, factor: float, iteration: int) -> None:
        """Set every optimiser's learning rate to `factor` times the one it was made with.

        A model whose optimisers follow schedules of their own overrides this.

        Args:
            factor: that of --lr_policy at the iteration.
            iteration: the one about to begin, from 1.
        """
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def add_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Register an optimiser and remember its learning rate as the one to schedule."""
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.optimizers[name] = optimizer

    # What models/checkpoints.py asks when it saves and loads.

    def networks_to_save(self) -> list[str]:
        """Names of the networks that have been trained and go into checkpoints."""
        return list(self.networks)

    @staticmethod
    def trained_with(shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
        """The options, by name, that shaped networks of these tensors; None where unknown."""
        return {}

    def explain_missing(self, report: LoadReport) -> str | None:
        """What a checkpoint is that holds less than the network, or more, where the model knows."""
        return None

    def explain_absent(self, network: str) -> str | None:
        """Why a run may have no file of a network though it has others, and the way out."""
        return None

    def after_loading(self, networks: list[str]) -> None:  # noqa: B027 - most need not know
        """Told which networks a run that goes on has loaded; the others start fresh."""


def _map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A tensor changed, or every one of nested lists and tuples."""
    if isinstance(value, list | tuple):
        return type(value)(_map_tensors(change, one) for one in value)
    return change(value) if isinstance(value, Tensor) else value


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
