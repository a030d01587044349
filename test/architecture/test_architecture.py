# SPDX-License-Identifier: Apache-2.0
"""The rules of the package's shape, checked on the syntax trees: rows of rooms, ROS at the edge, no work at import.

Each rule is a function from a parsed source to a list of offences. Every rule is tested twice: on the repository, which
must be clean, and on a small offending source, which it must catch.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "src" / "usreg"
OTHER_FOLDERS = ("test", "tools", "benchmarks", "launch")
ROWS = {
    0: "errors config compiled workers geometry",
    1: "data",
    2: "rendering similarity networks kinematics",
    3: "losses",
    4: "registration acquisition tracking calibration reconstruction smoothing fusion guidance evaluation",
    5: "systems simulation study",
    6: "navigator training protocols web",
    7: "nodes replay",
    8: "cli",
}
ROW_OF = {room: row for row, rooms in ROWS.items() for room in rooms.split()}
ROS_MODULE = re.compile(
    r"(rclpy|tf2_ros|tf2_py|launch|launch_\w+|cv_bridge|tf_transformations|\w+_msgs|\w+_srvs|\w+_interfaces)(\.|$)"
)
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
GLOBAL_SEEDS = set("torch.manual_seed torch.seed torch.cuda.manual_seed torch.cuda.manual_seed_all random.seed".split())
LOCAL_RANDOM = {"default_rng", "Generator", "SeedSequence", "PCG64", "BitGenerator"}
# Calls that only declare something; CamelCase names (constants of small frozen classes) are allowed as well.
DECLARATIONS = set(
    """dataclass dataclasses.dataclass field dataclasses.field njit numba.njit lru_cache functools.lru_cache re.compile
    logging.getLogger struct.Struct frozenset tuple dict dict.fromkeys set range slice len float sorted sum astype
    np.array np.sqrt np.dtype torch.tensor torch.no_grad torch.inference_mode math.radians math.sqrt command callback
    add_typer itemgetter attrgetter partial""".split()
)


@dataclass(frozen=True)
class Source:
    """A parsed file: dotted module ("usreg.data.types"; "" outside the package), name for messages, text and tree."""

    module: str
    name: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """Room of a module of the package: "data" for usreg.data.types, "" for usreg itself and for other files."""
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 else ""


def parse(text: str, module: str = "", name: str = "") -> Source:
    return Source(module, name or module, text, ast.parse(text))


def read(path: Path, module: str = "") -> Source:
    return parse(path.read_text(encoding="utf-8"), module, str(path.relative_to(TOP)))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def package_sources() -> list[Source]:
    return [read(path, module_name(path)) for path in sorted((PACKAGE / "usreg").rglob("*.py"))]


def all_sources() -> list[Source]:
    """Every Python file of the repository; those outside the package have no module name."""
    others = [path for folder in OTHER_FOLDERS for path in sorted((TOP / folder).rglob("*.py"))]
    return package_sources() + [read(path) for path in (*others, PACKAGE / "setup.py")]


def at(source: Source, node: ast.AST, text: str) -> str:
    return f"{source.name}:{getattr(node, 'lineno', 1)}: {text}"


def dotted(node: ast.expr) -> str:
    """Name of a called thing, "np.random.seed"; only the attribute's name where the object is an expression."""
    if isinstance(node, ast.Call):
        return dotted(node.func)
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return f"{left}.{node.attr}" if left else node.attr
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, dotted(node.func)


def imports(source: Source) -> Iterator[tuple[ast.stmt, str, str]]:
    """(statement, module, imported name or "") with relative imports made absolute."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                keep = source.module.split(".")
                is_package = source.name.endswith("__init__.py")
                keep = keep[: len(keep) - node.level + is_package]
                base = ".".join([*keep, base] if base else keep)
            yield from ((node, base, alias.name) for alias in node.names)


def targets(source: Source, known: set[str] = frozenset()) -> Iterator[tuple[ast.stmt, str]]:
    """Modules of the package that a source imports; `from usreg import data` counts as usreg.data."""
    for node, module, name in imports(source):
        if module == "usreg" or module.startswith("usreg."):
            inner = f"{module}.{name}" if name else module
            yield node, inner if inner in known or module == "usreg" and name in ROW_OF else module


def inside_function(source: Source, statement: ast.stmt) -> bool:
    functions = (node for node in ast.walk(source.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(statement is node for function in functions for node in ast.walk(function))


# --- rule 1 and 3: rows ------------------------------------------------------------------------------------------


def rule_rows(source: Source) -> list[str]:
    """Import only from lower rows; rooms on one row do not know each other; anything may use errors."""
    if not source.room:
        return [at(source, node, f"the package itself imports {name}") for node, name in targets(source)]
    if source.room not in ROW_OF:
        return [at(source, source.tree, f"room {source.room} has no row; rooms are {', '.join(ROW_OF)}")]
    found = []
    for node, name in targets(source):
        room = name.split(".")[1] if "." in name else ""
        if room and room not in (source.room, "errors") and ROW_OF.get(room, 99) >= ROW_OF[source.room]:
            found.append(at(source, node, f"{source.room} (row {ROW_OF[source.room]}) imports {name}"))
    return found


def rule_star_imports(source: Source) -> list[str]:
    return [at(source, node, f"star import of {module}") for node, module, name in imports(source) if name == "*"]


def rule_systems(source: Source) -> list[str]:
    """Systems never import one another; the table in systems/__init__ names them all."""
    if source.room != "systems" or source.module == "usreg.systems":
        return []
    inner = [(node, name) for node, name in targets(source) if name.startswith("usreg.systems")]
    return [at(source, node, f"a system imports {name}; what two need moves down a row") for node, name in inner]


def without_type_checking(tree: ast.Module) -> ast.Module:
    """The module without its `if TYPE_CHECKING:` blocks."""
    body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))]
    return ast.Module(body=body, type_ignores=[])


def cycles(sources: list[Source]) -> list[str]:
    """Import cycles between modules, written a -> b -> a. An import for the type checker alone closes no cycle."""
    sources = [replace(source, tree=without_type_checking(source.tree)) for source in sources]
    known = {source.module for source in sources}
    graph = {source.module: {name for _, name in targets(source, known)} - {source.module} for source in sources}
    found, state = [], dict.fromkeys(graph, "new")

    def visit(module: str, path: list[str]) -> None:
        state[module] = "open"
        for target in sorted(graph[module] & known):
            if state[target] == "open":
                found.append(" -> ".join([*path[path.index(target) :], target]))
            elif state[target] == "new":
                visit(target, [*path, target])
        state[module] = "done"

    for module in graph:
        if state[module] == "new":
            visit(module, [module])
    return found


# --- rule 2: ROS at the edge ---------------------------------------------------------------------------------------


def rule_ros(source: Source) -> list[str]:
    if not source.module or source.room == "nodes":
        return []
    rows = [(node, module) for node, module, _ in imports(source) if ROS_MODULE.match(module)]
    return [at(source, node, f"imports {module}; only nodes/ may") for node, module in rows]


def rule_nodes(source: Source) -> list[str]:
    """Only cli imports nodes/, and inside the function that needs it."""
    found = []
    for node, name in targets(source):
        if not name.startswith("usreg.nodes") or source.room == "nodes" or not source.module:
            continue
        if source.room != "cli":
            found.append(at(source, node, f"imports {name}; only cli.py may"))
        elif not inside_function(source, node):
            found.append(at(source, node, f"imports {name} at module level; do it inside the function"))
    return found


def rule_truth(source: Source) -> list[str]:
    """No node subscribes to /truth."""
    found = []
    for node, name in calls(source.tree):
        texts = [str(item.value) for item in ast.walk(node) if isinstance(item, ast.Constant)]
        subscribes = source.room == "nodes" and "subscri" in name.lower()
        if subscribes and any(re.search(r"(^|/)truth\b", text) for text in texts):
            found.append(at(source, node, "subscribes to truth"))
    return found


# --- rule 4: habits ------------------------------------------------------------------------------------------------


def rule_print(source: Source) -> list[str]:
    if not source.module or source.room == "cli":
        return []
    prints = (node for node, name in calls(source.tree) if name == "print")
    return [at(source, node, "print( outside cli.py; use logging") for node in prints]


def rule_cuda(source: Source) -> list[str]:
    methods = (node for node, _ in calls(source.tree) if isinstance(node.func, ast.Attribute))
    return [
        at(source, node, ".cuda(; the device comes from the inputs") for node in methods if node.func.attr == "cuda"
    ]


def rule_seeds(source: Source) -> list[str]:
    """No global random state: neither seeded nor drawn from."""
    found = []
    for node, name in calls(source.tree):
        legacy = re.fullmatch(r"(?:np|numpy)\.random\.(\w+)", name)
        if name in GLOBAL_SEEDS or (legacy and legacy.group(1) not in LOCAL_RANDOM):
            found.append(at(source, node, f"{name}: global random state; pass a generator"))
    return found


def rule_pickle(source: Source) -> list[str]:
    modules = [(node, module) for node, module, _ in imports(source) if module.split(".")[0] in PICKLES]
    found = [at(source, node, f"imports {module}") for node, module in modules]
    for node, name in calls(source.tree):
        options = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        if options.get("allow_pickle") or (name == "torch.load" and options.get("weights_only") is not True):
            found.append(at(source, node, f"{name} may unpickle"))
    return found


def import_time(nodes: list[ast.AST]) -> Iterator[ast.Call]:
    """Calls that run when a module is imported: all but those in bodies of functions and behind __main__."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from import_time([*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)])
        elif isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) or isinstance(node, ast.Lambda):
            continue
        else:
            if isinstance(node, ast.Call):
                yield node
            if isinstance(node, ast.Call) and dotted(node).endswith(".command"):
                continue  # app.command(...)(factory(...)) declares a command of the command line
            yield from import_time(list(ast.iter_child_nodes(node)))


def rule_import_work(source: Source) -> list[str]:
    """Importing a module declares, it does not work (compile, read, start)."""
    found = []
    for call in import_time(source.tree.body) if source.module else ():
        name = dotted(call.func)
        last = name.rsplit(".", 1)[-1]
        if name.endswith("njit") and call.args:
            found.append(at(source, call, "a signature makes numba compile at import"))
        elif not {name, last} & DECLARATIONS and not last.lstrip("_")[:1].isupper():
            found.append(at(source, call, f"{name or ast.unparse(call)}( runs at import"))
    return found


def rule_length(source: Source) -> list[str]:
    lines = len(source.text.splitlines())
    return [f"{source.name}: {lines} lines; the limit is 400"] if lines > 400 else []


def rule_licence(source: Source) -> list[str]:
    head = source.text.splitlines()[:2]
    tagged = any(line.startswith("# SPDX-License-Identifier: Apache-2.0") for line in head)
    return [] if tagged else [f"{source.name}: no SPDX tag in the first two lines"]


Rule = Callable[[Source], list[str]]
RULES: tuple[Rule, ...] = (
    rule_rows, rule_star_imports, rule_systems, rule_ros, rule_nodes, rule_truth, rule_print, rule_cuda, rule_seeds,
    rule_pickle, rule_import_work, rule_length, rule_licence,
)  # fmt: skip
EVERYWHERE = (rule_star_imports, rule_pickle, rule_length, rule_licence)
OFFENCES: tuple[tuple[Rule, str, str], ...] = (
    (rule_rows, "usreg.geometry.se3", "from usreg.data.types import Frame"),
    (rule_rows, "usreg.geometry.se3", "from usreg.config import checked"),
    (rule_rows, "usreg.tracking.poses", "import usreg.smoothing.filter"),
    (rule_rows, "usreg.fusion.overlay", "def f():\n    from usreg import smoothing"),
    (rule_rows, "usreg.rendering.slicing", "from ..registration import refine"),
    (rule_rows, "usreg.helpers.misc", "x = 1"),
    (rule_rows, "usreg", "from usreg.data.types import Frame"),
    (rule_star_imports, "usreg.data.types", "from math import *"),
    (rule_systems, "usreg.systems.kidney", "from usreg.systems.intensity import build"),
    (rule_systems, "usreg.systems.kidney", "from .intensity import build"),
    (rule_ros, "usreg.data.bags", "from rclpy.serialization import serialize_message"),
    (rule_ros, "usreg.data.bags", "def f():\n    from sensor_msgs.msg import Image"),
    (rule_ros, "usreg.cli", "import launch"),
    (rule_nodes, "usreg.navigator", "def f():\n    from usreg.nodes import fusion"),
    (rule_nodes, "usreg.cli", "from usreg.nodes import graph"),
    (rule_truth, "usreg.nodes.fusion", "def f(node):\n    node.create_subscription(T, '/truth', g, 1)"),
    (rule_print, "usreg.data.types", "def f():\n    print(1)"),
    (rule_cuda, "usreg.networks.unet", "def f(net):\n    return net.eval().cuda()"),
    (rule_seeds, "usreg.simulation.tissue", "def f():\n    torch.manual_seed(0)"),
    (rule_seeds, "usreg.simulation.tissue", "def f():\n    return np.random.normal(3)"),
    (rule_pickle, "usreg.data.types", "import pickle"),
    (rule_pickle, "usreg.data.types", "def f(p):\n    return torch.load(p)"),
    (rule_pickle, "usreg.data.types", "def f(p):\n    return np.load(p, allow_pickle=True)"),
    (rule_import_work, "usreg.data.types", "TABLE = read_table('x')"),
    (rule_import_work, "usreg.data.types", "class A:\n    x = open('y').read()"),
    (rule_import_work, "usreg.data.types", "def f(x=load()):\n    return x"),
    (rule_import_work, "usreg.data.types", "@njit('f8(f8)')\ndef f(x):\n    return x"),
    (rule_length, "usreg.data.types", "x = 1\n" * 401),
    (rule_licence, "usreg.data.types", '"""Text."""'),
)
CLEAN = '''# SPDX-License-Identifier: Apache-2.0
"""A clean module: its neighbours below, a configuration, a compiled kernel."""
import numpy as np
from numba import njit
from usreg.errors import ConfigError
from usreg.data.types import Volume
LOWER = np.array([0.0, 1.0])
@njit(cache=True)
def kernel(x):
    return x
def draw(seed):
    return np.random.default_rng(seed).normal()
if __name__ == "__main__":
    draw(1)
'''


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_repository_keeps_the_rule(rule: Rule) -> None:
    sources = all_sources() if rule in EVERYWHERE else package_sources()
    assert [offence for source in sources for offence in rule(source)] == []


def test_repository_has_no_import_cycles() -> None:
    assert cycles(package_sources()) == []


@pytest.mark.parametrize(("rule", "module", "text"), OFFENCES)
def test_rule_catches_an_offence(rule: Rule, module: str, text: str) -> None:
    assert rule(parse(text, module))


def test_every_rule_has_an_offence() -> None:
    assert {rule for rule, _, _ in OFFENCES} == set(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_accepts_a_clean_module(rule: Rule) -> None:
    assert rule(parse(CLEAN, "usreg.registration.refine")) == []


def test_cycles_are_found() -> None:
    texts = {
        "usreg.data.a": "from usreg.data import b",
        "usreg.data.b": "from .c import f",
        "usreg.data.c": "import usreg.data.a",
    }
    found = cycles([parse(text, module) for module, text in texts.items()])
    assert found == ["usreg.data.a -> usreg.data.b -> usreg.data.c -> usreg.data.a"]
    texts["usreg.data.c"] = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import usreg.data.a"
    assert cycles([parse(text, module) for module, text in texts.items()]) == []


def test_shape_is_whole() -> None:
    """Guards the checks themselves: they see the package, every row and the files outside it."""
    rooms = {source.room for source in package_sources()}
    assert {"errors", "geometry", "data", "registration", "nodes", "cli"} <= rooms
    assert any(source.name.startswith("test/") for source in all_sources())
