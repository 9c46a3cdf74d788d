"""A model of one's own: the interface of `build`, and what does not fit it."""

import re

import pytest
import torch
from torch import nn

from citeflow.errors import ConfigError, StoppedError
from citeflow.models import own
from citeflow.models.own import EncoderSettings, example_of_papers

SETTINGS = EncoderSettings(
    num_features=3,
    hidden_channels=4,
    num_layers=2,
    aggr="mean",
    normalize=False,
    dropout=0.5,
    seed=0,
)

ENCODER = """
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.linear = nn.Linear(settings.num_features, settings.hidden_channels)
        self.norm = nn.BatchNorm1d(settings.hidden_channels)
        self.setup()

    def setup(self):
        pass

    def forward(self, x, adj):
        return self.norm(nn.functional.dropout(self.linear(adj @ x), 0.5, self.training))

def build(settings):
    return Encoder(settings)
"""


def build(source, seconds=30.0):
    torch.manual_seed(0)
    return own.build(source, SETTINGS, example_of_papers(SETTINGS), seconds=seconds)


def with_setup(line):
    return ENCODER.replace("        pass\n", f"        {line}\n")


def with_output(text):
    return ENCODER.replace("return self.norm(", f"y = self.norm(self.linear(x)); return {text} #(")


def test_encoder_takes_products_with_the_adjacency_in_float32_always():
    x, adj = example_of_papers(SETTINGS).inputs
    encoder = own.OwnEncoder(build(ENCODER), SETTINGS.num_features).eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(x, adj)
    assert torch.equal(found, encoder(x, adj))


def test_build_returns_a_module_whose_state_is_untouched():
    network = build(ENCODER)
    assert network.training
    assert torch.equal(network.norm.running_mean, torch.zeros(4))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network(*example_of_papers(SETTINGS).inputs).shape == (5, 4)


def test_example_of_papers_is_symmetric_and_has_a_paper_without_neighbors():
    x_BF, adj_BB = example_of_papers(SETTINGS).inputs
    dense_BB = adj_BB.to_dense()
    assert x_BF.shape == (5, 3)
    assert adj_BB.layout == torch.sparse_csr
    assert torch.equal(dense_BB, dense_BB.T)
    assert dense_BB.sum(dim=1).tolist() == [2, 2, 2, 2, 0]


REFUSED = {
    "no build": ("x = 1", "no function: build"),
    "build is a number": ("build = 1", "no function: build"),
    "syntax": ("def build(", "import of model.code failed: line 1: SyntaxError"),
    "too deep": ("x = " + "(" * 100_000, "import of model.code failed"),
    "import": ("\nimport no_such_package", "failed: line 2: ModuleNotFoundError"),
    "exit at import": ("raise SystemExit(0)", "SystemExit: 0"),
    "interrupt at import": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "build raises": ("def build(s):\n  raise ValueError('a\\nb')", "line 2: ValueError: a$"),
    "escape codes": ("raise ValueError('\\x1b[31mred')", "ValueError: \N{REPLACEMENT CHARACTER}"),
    "long": ("raise ValueError('x' * 10**6)", "ValueError: x{100,300}$"),
    "no end of calls": ("def build(s):\n  return build(s)", "RecursionError"),
    "out of memory": ("x = bytearray(1 << 60)", "MemoryError"),
    "arguments": ("def build():\n  pass", "build of model.code failed: TypeError"),
    "no module": ("def build(s):\n  return [1]", "returned no torch.nn.Module: list"),
    "no parameters": (
        "from torch import nn\ndef build(s):\n  return nn.ReLU()",
        "no parameters",
    ),
    "NaN": (with_setup("self.linear.weight.data.fill_(float('nan'))"), "is not finite"),
    "empty tensor": (with_setup("self.register_buffer('b', torch.zeros(0))"), "no dense tensor"),
    "sparse tensor": (
        with_setup("self.register_buffer('b', torch.eye(2).to_sparse())"),
        "no dense tensor",
    ),
    "bool tensor": (with_setup("self.register_buffer('b', torch.ones(2) > 0)"), "torch.bool"),
    "float64": (with_setup("self.double()"), "type torch.float64"),
    "shared": (
        with_setup("self.p = nn.Parameter(torch.ones(4)); self.register_buffer('b', self.p.data)"),
        "cannot be saved as safetensors",
    ),
    "another shape": (with_output("y[:, :2]"), r"\(5, 2\), expected torch.float32 \(5, 4\)"),
    "another type": (with_output("y.double()"), "torch.float64"),
    "no tensor": (with_output("[y]"), "no tensor: list"),
    "infinite": (with_output("y / 0"), "output of model.code is not finite"),
    "random": (with_output("y + torch.rand(())"), "not the same output twice in eval mode"),
    "no gradient": (with_output("self.linear(x)"), "gets no gradient: norm.weight"),
    "detached": (with_output("y.detach()"), "backward of model.code failed: RuntimeError"),
    "forward raises": (with_output("1 / 0"), r"forward of model.code failed: line \d+: ZeroDiv"),
}


@pytest.mark.parametrize(("source", "expected"), REFUSED.values(), ids=REFUSED)
def test_build_refuses_in_one_line(source, expected):
    with pytest.raises(ConfigError) as caught:
        build(source)
    line, *hint = str(caught.value).splitlines()
    assert re.search(expected, line), line
    assert line.isprintable()
    assert len(hint) <= 1


def test_build_ends_code_that_takes_too_long():
    with pytest.raises(ConfigError, match=r"model\.code takes too long: 0\.2 s"):
        build("while True:\n    pass", seconds=0.2)


def test_reported_lets_a_request_to_stop_pass():
    with pytest.raises(SystemExit), own.reported("forward"):
        raise SystemExit(StoppedError.exit_code)


def state(**changes):
    return {**nn.Linear(2, 3).state_dict(), **changes}


def test_warm_start_loads_weights_of_the_same_shapes():
    model, tensors = nn.Linear(2, 3), state()
    own.warm_start(model, tensors)
    assert all(torch.equal(model.state_dict()[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"weight": torch.zeros(3, 2)}, "no bias"),
        (state(more=torch.zeros(1)), "unknown more"),
        (state(bias=torch.zeros(4)), r"bias has shape \(4,\), expected \(3,\)"),
        (state(bias=torch.zeros(3, dtype=torch.int64)), "bias is of type torch.int64"),
        (state(bias=torch.tensor([0, 1, torch.nan])), "not finite: bias"),
    ],
)
def test_warm_start_names_the_tensor_that_does_not_fit(tensors, expected):
    model = nn.Linear(2, 3)
    before = model.weight.clone()
    with pytest.raises(ConfigError, match=expected):
        own.warm_start(model, tensors)
    assert torch.equal(model.weight, before)
