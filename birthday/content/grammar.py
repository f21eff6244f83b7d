"""What may stand in a template. Everything that is not listed here is refused, with its line."""

from collections.abc import Iterator
from typing import Final

from jinja2 import Environment, TemplateSyntaxError, nodes

from birthday.content.filters import CONCAT, CONTAINER, EACH, SCALAR, TESTS_ACCEPTED

MAX_NODES: Final = 500
MAX_DEPTH: Final = 30
MAX_LOOPS: Final = 3
_TOO_MANY: Final = f"it has too many expressions: at most {MAX_NODES} expressions, with all their parts, are accepted"

_ACCEPTED: Final = (
    nodes.Add,
    nodes.And,
    nodes.Assign,
    nodes.Compare,
    nodes.Concat,
    nodes.CondExpr,
    nodes.Const,
    nodes.Div,
    nodes.Filter,
    nodes.FloorDiv,
    nodes.For,
    nodes.Getattr,
    nodes.Getitem,
    nodes.If,
    nodes.Keyword,
    nodes.List,
    nodes.Mod,
    nodes.Mul,
    nodes.Name,
    nodes.Neg,
    nodes.Not,
    nodes.Operand,
    nodes.Or,
    nodes.Output,
    nodes.Pos,
    nodes.Sub,
    nodes.Template,
    nodes.TemplateData,
    nodes.Test,
    nodes.Tuple,
)
_NAMES: Final = {
    nodes.Call: "a call",
    nodes.CallBlock: "'call'",
    nodes.AssignBlock: "'set' with a block",
    nodes.FilterBlock: "'filter' with a block",
    nodes.FromImport: "'import'",
    nodes.Pow: "'**'",
}


def parse(environment: Environment, source: str, variables: frozenset[str]) -> nodes.Template:
    """Return the tree of a template, with bounds around what repeats, compares or joins.

    Raises:
        ValueError: if it is not a template, or has something that is not accepted; the text names the line.
    """
    if source.count("{{") + source.count("{%") > MAX_NODES:
        raise ValueError(_TOO_MANY)
    try:
        tree = environment.parse(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    _check(tree, environment, variables)
    _bound(tree)
    return tree


def _walk(tree: nodes.Node) -> Iterator[tuple[nodes.Node, int, int]]:
    """Yield all nodes, each with its depth and the number of loops around it."""
    waiting = [(tree, 0, 0)]
    while waiting:
        node, depth, loops = waiting.pop()
        yield node, depth, loops
        inner = loops + isinstance(node, nodes.For)
        waiting.extend((child, depth + 1, inner) for child in node.iter_child_nodes())


def _check(tree: nodes.Template, environment: Environment, variables: frozenset[str]) -> None:
    known = {
        *variables,
        "loop",
        *(node.name for node, _, _ in _walk(tree) if isinstance(node, nodes.Name) and node.ctx == "store"),
    }
    for count, (node, depth, loops) in enumerate(_walk(tree), 1):
        problem = _problem(node, environment, known)
        if count > MAX_NODES:
            problem = _TOO_MANY
        elif depth > MAX_DEPTH:
            problem = f"it is nested too deep: at most {MAX_DEPTH} levels are accepted"
        elif loops > MAX_LOOPS:
            problem = f"too many loops in each other: at most {MAX_LOOPS} are accepted"
        if problem:
            raise ValueError(f"line {node.lineno}: {problem}")


def _problem(node: nodes.Node, environment: Environment, known: set[str]) -> str | None:
    match node:
        case nodes.Name(name=name) if name not in known:
            return f"{name} is no variable; accepted are {', '.join(sorted(known))}"
        case nodes.Name(name=name) | nodes.Getattr(attr=name) if name.startswith("_"):
            return f"{name} is not accepted: no name may begin with an underscore"
        case nodes.Filter(name=name) if name.startswith("_") or name not in environment.filters:
            accepted = ", ".join(sorted(one for one in environment.filters if not one.startswith("_")))
            return f"there is no filter {name}; accepted are {accepted}"
        case nodes.Filter() | nodes.Test() if node.dyn_args or node.dyn_kwargs:
            return "'*' before an argument is not accepted"
        case nodes.Test(name=name) if name not in environment.tests:
            return f"there is no test {name}; accepted are {', '.join(TESTS_ACCEPTED)}"
        case nodes.For(recursive=True):
            return "a recursive loop is not accepted"
        case _ if not isinstance(node, _ACCEPTED):
            name = _NAMES.get(type(node), f"'{type(node).__name__.lower()}'")
            return f"{name} is not accepted in a template"
        case _:
            return None


def _bound(tree: nodes.Template) -> None:
    """Put a filter around the list of each loop, the operands of each comparison, and the parts of each ``~``.

    A loop pays for all its rounds before it begins: one step for each node in it.
    """
    for node in [node for node, _, _ in _walk(tree)]:
        for name, value in node.iter_fields():
            if isinstance(value, nodes.Concat):
                setattr(node, name, _joined(value))
            elif isinstance(value, list):
                value[:] = [_joined(one) if isinstance(one, nodes.Concat) else one for one in value]
    for node in [node for node, _, _ in _walk(tree)]:
        match node:
            case nodes.For():
                cost = sum(1 for part in (*node.body, *filter(None, [node.test])) for _ in _walk(part))
                node.iter = _filtered(node.iter, EACH, nodes.Const(1 + cost))
            case nodes.Compare():
                node.expr = _filtered(node.expr, SCALAR)
            case nodes.Operand():
                node.expr = _filtered(node.expr, CONTAINER if node.op in {"in", "notin"} else SCALAR)
            case _:
                pass


def _joined(node: nodes.Concat) -> nodes.Filter:
    # The list is shared: what the parts contain is replaced in it later.
    return _filtered(nodes.List(node.nodes, lineno=node.lineno), CONCAT)


def _filtered(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
