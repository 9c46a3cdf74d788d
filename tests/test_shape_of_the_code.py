import ast
import statistics

import pytest

LONGEST_MODULE = 300
LONGEST_FUNCTION = 60
MEDIAN_FUNCTION = 10


@pytest.fixture(scope="module")
def paths(checkout):
    return [
        path
        for top in ("src", "components", "pipelines")
        for path in (checkout / top).rglob("*.py")
    ]


@pytest.fixture(scope="module")
def functions(paths):
    """Every function with the file that it stands in."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (path, node)
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, kinds)
    ]


def lines(node):
    """Lines of a function without its docstring."""
    length = node.end_lineno - node.lineno + 1
    first = node.body[0]
    told = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return length - (first.end_lineno - first.lineno + 1) if told else length


def test_modules_are_short(paths):
    long = {str(path): len(path.read_text().splitlines()) for path in paths}
    assert {path: length for path, length in long.items() if length > LONGEST_MODULE} == {}


def test_functions_are_short(functions):
    assert [
        f"{path}:{node.name}" for path, node in functions if lines(node) > LONGEST_FUNCTION
    ] == []
    assert statistics.median(lines(node) for _, node in functions) < MEDIAN_FUNCTION


def test_every_function_says_what_it_returns(functions):
    assert [f"{path}:{node.name}" for path, node in functions if node.returns is None] == []


def test_every_public_module_function_and_class_says_what_it_is(paths):
    kinds = (ast.FunctionDef, ast.ClassDef)
    for path in paths:
        tree = ast.parse(path.read_text())
        public = [
            node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")
        ]
        assert ast.get_docstring(tree) or not tree.body, path
        for node in public:
            assert ast.get_docstring(node), f"{path}: {node.name}"
