"""One's own model: builds a module from source code, and checks that it can be trained.

Nothing but a worker of a training calls `build`: everything else reads the weights that it leaves.

Legend: B papers or images of an example, F features, H hidden channels, C channels.
"""

import contextlib
import math
import signal
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from citeflow.errors import CiteflowError, ConfigError, StoppedError
from citeflow.utils.logging import printable
from citeflow.utils.records import Record

MODULE = "own_model"
"""Name by which the code is imported."""

FILE = "model.code"
"""Name of the file in messages."""

HINT = "docs/own-model.md has the interface, and an example of each task"

MAX_PARAMETERS = 2**31
MESSAGE_CHARACTERS = 300


class EncoderSettings(Record):
    """Argument of `build` in the citation task."""

    num_features: int
    """Width of the input, F."""
    hidden_channels: int
    """Width of the output, H: `model.hidden_channels`."""
    num_layers: int
    """`model.num_layers`, as the following are settings of their names."""
    aggr: str
    normalize: bool
    dropout: float
    seed: int
    """`train.seed`, which torch is seeded with already."""


@dataclass(frozen=True, slots=True)
class Example:
    """A tiny input."""

    inputs: tuple[Tensor, ...]
    output: tuple[int, ...]
    """Shape of the output that it must give."""


class OwnEncoder(nn.Module):
    """A module of one's own as the encoder of papers, behind the standardization of its input."""

    mean_F: Tensor
    scale_F: Tensor

    def __init__(self, network: nn.Module, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(num_features))
        self.register_buffer("scale_F", torch.ones(num_features))
        self.network = network

    def forward(self, x_BF: Tensor, adj_BB: Tensor) -> Tensor:
        """Embed the papers of a subgraph, or of the whole graph, [B, H].

        Args:
            x_BF: their features.
            adj_BB: their adjacency, sparse CSR and symmetric, of ones.
        """
        # Products with a sparse adjacency know float32 only.
        with reported("forward"), torch.autocast(x_BF.device.type, enabled=False):
            h_BH: Tensor = self.network((x_BF - self.mean_F) * self.scale_F, adj_BB)
        return h_BH


def example_of_papers(settings: EncoderSettings) -> Example:
    """Return five papers, one of them without any neighbor."""
    pairs = torch.tensor([[0, 0, 1, 1, 2, 2, 3, 3], [1, 3, 0, 2, 1, 3, 0, 2]])
    adj_BB = torch.sparse_coo_tensor(pairs, torch.ones(8), (5, 5), check_invariants=False)
    generator = torch.Generator().manual_seed(0)
    x_BF = torch.randn(5, settings.num_features, generator=generator)
    return Example((x_BF, adj_BB.to_sparse_csr()), (5, settings.hidden_channels))


def build(source: str, settings: Record, example: Example, *, seconds: float) -> nn.Module:
    """Run source code, call its `build(settings)`, and check the module that it returns.

    Args:
        source: Python code.
        settings: argument of `build`.
        example: an input that the module has to take.
        seconds: time for all of it.

    Raises:
        ConfigError: the code fails, takes too long, or the module does not fit.
    """
    with _time_limit(seconds):
        module = _import(source)
        make = getattr(module, "build", None)
        if not callable(make):
            raise ConfigError(f"{FILE} has no function", "build(settings)", hint=HINT)
        with reported("build"):
            network = make(settings)
        if not isinstance(network, nn.Module):
            what = f"build of {FILE} returned no torch.nn.Module"
            raise ConfigError(what, printable(type(network).__name__), hint=HINT)
        check(network, example)
    return network


def check(network: nn.Module, example: Example) -> None:
    """Check the interface of a module on a tiny example; its state is as before.

    Raises:
        ConfigError: a tensor of its state cannot be trained or saved, the output has another shape
            or type, is not finite or differs between two calls in eval mode, or a parameter gets
            no gradient.
    """
    with reported("state_dict"):
        _check_state(network)
        state = {name: value.clone() for name, value in network.state_dict().items()}
    network.eval()
    outputs = []
    with torch.no_grad():
        for _ in range(2):
            with reported("forward"):
                outputs.append(network(*example.inputs))
            _check_output(outputs[-1], example.output)
    if not torch.equal(*outputs):
        raise ConfigError("not the same output twice in eval mode", FILE, hint=HINT)
    network.train()
    _check_gradients(network, example)
    with reported("load_state_dict"):
        network.load_state_dict(state)


def warm_start(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load weights into a model that has these very names and shapes.

    Raises:
        ConfigError: a name, a shape or a type is another, or a value is not finite.
    """
    state = model.state_dict()
    what = "model.weights are those of another model"
    for name in [*state, *tensors]:
        if name not in tensors:
            raise ConfigError(what, f"no {name}", hint="the settings must be those of its run")
        if name not in state:
            hint = "the settings must be those of its run"
            raise ConfigError(what, f"unknown {printable(name)}", hint=hint)
        expected, found = tuple(state[name].shape), tuple(tensors[name].shape)
        if expected != found:
            raise ConfigError(what, f"{name} has shape {found}, expected {expected}")
        if state[name].is_floating_point() != tensors[name].is_floating_point():
            raise ConfigError(what, f"{name} is of type {tensors[name].dtype}")
        if not tensors[name].isfinite().all():
            raise ConfigError("model.weights are not finite", name)
    model.load_state_dict(dict(tensors))


@contextlib.contextmanager
def reported(part: str) -> Iterator[None]:
    """Turn what the code raises into one line with the place in its file.

    Raises:
        ConfigError: the code raised something.
    """
    try:
        yield
    except CiteflowError:
        raise
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code == StoppedError.exit_code:
            raise  # a request to stop the training
        raise ConfigError(f"{part} of {FILE} failed", describe(error), hint=HINT) from None


def describe(error: BaseException) -> str:
    """Say in one line what was raised, and at which line of the code."""
    lines = str(error).splitlines()
    text = f"{type(error).__name__}: {lines[0] if lines else ''}".removesuffix(": ")
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == FILE else None
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == FILE:
            line = frame.tb_lineno
        frame = frame.tb_next
    return printable(f"line {line}: {text}" if line else text)[:MESSAGE_CHARACTERS]


def _import(source: str) -> types.ModuleType:
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module  # dataclasses, among others, look their module up
    with reported("import"):
        exec(compile(source, FILE, "exec"), module.__dict__)
    return module


def _check_state(network: nn.Module) -> None:
    parameters = dict(network.named_parameters())
    if not parameters or sum(each.numel() for each in parameters.values()) > MAX_PARAMETERS:
        raise ConfigError(f"{FILE} has no parameters, or too many", len(parameters), hint=HINT)
    for name, each in network.state_dict().items():
        shown = printable(name)
        if not isinstance(each, Tensor) or each.layout != torch.strided or not each.numel():
            raise ConfigError(f"{FILE} has a state that is no dense tensor", shown, hint=HINT)
        if each.dtype in (torch.bool, torch.complex64, torch.complex128) or (
            name in parameters and each.dtype != torch.float32
        ):
            raise ConfigError(f"{FILE} has a tensor of type {each.dtype}", shown, hint=HINT)
        if not each.isfinite().all():
            raise ConfigError(f"{FILE} has a tensor that is not finite", shown, hint=HINT)
    try:
        save({name: each.contiguous() for name, each in network.state_dict().items()})
    except (RuntimeError, SafetensorError, ValueError) as error:
        reason = printable(" ".join(str(error).split()))[:MESSAGE_CHARACTERS]
        raise ConfigError(f"{FILE} cannot be saved as safetensors", reason, hint=HINT) from None


def _check_output(output: object, shape: tuple[int, ...]) -> None:
    if not isinstance(output, Tensor):
        raise ConfigError(f"output of {FILE} is no tensor", printable(type(output).__name__))
    if tuple(output.shape) != shape or output.dtype != torch.float32:
        value = f"{output.dtype} {tuple(output.shape)}, expected torch.float32 {shape}"
        raise ConfigError(f"output of {FILE} has another shape or type", value, hint=HINT)
    if not output.isfinite().all():
        raise ConfigError(f"output of {FILE} is not finite", tuple(output.shape), hint=HINT)


def _check_gradients(network: nn.Module, example: Example) -> None:
    """DDP waits for the gradient of every parameter: one that has none would hang all ranks."""
    with reported("backward"):
        output = network(*example.inputs)
        weight = torch.linspace(0.5, 1.5, math.prod(example.output)).view(example.output)
        (output * weight).sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            raise ConfigError(f"a parameter of {FILE} gets no gradient", printable(name), hint=HINT)
        parameter.grad = None


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt Python code that takes too long; the sandbox's clock ends what catches even this.

    Raises:
        ConfigError: the time is up.
    """

    def end(number: int, frame: FrameType | None) -> None:
        hint = "sandbox.build_s is the time for import, build and check"
        raise ConfigError(f"{FILE} takes too long", f"{seconds:g} s", hint=hint)

    old = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
