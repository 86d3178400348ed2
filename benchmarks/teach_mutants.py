"""How sharp are the checks? Each reference answer is changed in one place, automatically, and its check must refuse the change.

    python benchmarks/teach_mutants.py                      every shipped lesson
    python benchmarks/teach_mutants.py nbs/lessons/*/L02*   only these

Changes, one at a time, inside the answer only: an operator, a comparison, a constant (off by one, doubled, emptied), a condition turned
round, a sign, two arguments swapped, an argument left out, a returned value off by one, a statement left out. A change that leaves the
answer right (an equivalent mutant) survives rightly; survivors are listed, so that a person can tell. A mutant that runs into an
exception or does not end within 5 s counts as refused: the learner reads where it stopped. Every mutant is checked once, as a
learner would. An answer with fewer than ten such places gets further
changes until there are ten: an operand or a call left out, a name exchanged, a value doubled or made negative.
"""

import ast
import contextlib
import copy
import os
import signal
import sys
import tempfile
from collections.abc import Iterator

os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg", MEDKIT_OFFLINE="1", PYTHONWARNINGS="ignore")

from medkit.files import shipped  # noqa: E402
from medkit.teach import Exercise, Lesson, judge, read_lesson, read_lessons  # noqa: E402
from medkit.teach.verify import _Run  # noqa: E402

BAR = 0.90
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv,
             ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult}
COMPARISONS = {ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
               ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
               ast.IsNot: (ast.Is,)}


def constants(value: object) -> tuple:
    "What a constant is changed to."
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int | float):
        return tuple(new for new in (value + 1, value - 1, 2 * value) if new != value)
    return ("", value + "x") if isinstance(value, str) and value else ()


def changed(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:  # what was done, the new node
    "Every change of one node."
    def new(**fields):
        twin = copy.deepcopy(node)
        for name, value in fields.items():
            setattr(twin, name, value)
        return twin

    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield "operator", new(op=OPERATORS[type(node.op)]())
    if isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield "operator", new(op=OPERATORS[type(node.op)]())
    if isinstance(node, ast.Compare):
        yield from (("comparison", new(ops=[other(), *node.ops[1:]])) for other in COMPARISONS[type(node.ops[0])])
    if isinstance(node, ast.BoolOp):
        yield "operator", new(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp):
        yield "sign", node.operand
    if isinstance(node, ast.Constant):
        yield from (("constant", new(value=value)) for value in constants(node.value))
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "condition", new(test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.Call):
        if len(node.args) >= 2:
            yield "arguments swapped", new(args=[node.args[1], node.args[0], *node.args[2:]])
        for number in range(len(node.keywords)):
            yield "argument left out", new(keywords=node.keywords[:number] + node.keywords[number + 1:])
    if isinstance(node, ast.Return) and node.value is not None:
        yield "off by one", new(value=ast.BinOp(node.value, ast.Add(), ast.Constant(1)))
    if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Constant):
        yield "off by one", new(value=ast.BinOp(node.value, ast.Add(), ast.Constant(1)))
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.If | ast.For):
        yield "left out", ast.Pass()


def further(node: ast.AST, names: list[str]) -> Iterator[tuple[str, ast.AST]]:
    "Changes for answers that offer few places: operands, names, a call taken away, values made negative or off by one."
    if isinstance(node, ast.BinOp):
        yield from (("operand left out", one) for one in (node.left, node.right))
        yield from (("operator", ast.BinOp(node.left, new(), node.right)) for new in (ast.Add, ast.Mult, ast.Sub)
                    if not isinstance(node.op, new | OPERATORS.get(type(node.op), new)))
    if isinstance(node, ast.Call) and node.args:
        yield "call left out", node.args[0]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        yield from (("name", ast.Name(one, ast.Load())) for one in names if one != node.id)
        yield "off by one", ast.BinOp(ast.Name(node.id, ast.Load()), ast.Sub(), ast.Constant(1))
        yield "sign", ast.UnaryOp(ast.USub(), ast.Name(node.id, ast.Load()))
    if isinstance(node, ast.Return | ast.Assign) and node.value is not None:
        twins = copy.deepcopy(node), copy.deepcopy(node)
        twins[0].value, twins[1].value = ast.UnaryOp(ast.USub(), node.value), ast.BinOp(node.value, ast.Mult(), ast.Constant(2))
        yield from (("value", twin) for twin in twins)


class Swap(ast.NodeTransformer):
    "Put `new` in the place of the node with this number."

    def __init__(self, number: int, new: ast.AST):
        self.number, self.new, self.count = number, new, -1

    def visit(self, node):
        self.count += 1
        return self.new if self.count == self.number else super().visit(node)


def answer_lines(task: Exercise) -> set[int]:
    "The lines of the cell that stand inside its regions."
    inside, found = False, set()
    for number, line in enumerate(task.source.splitlines(), 1):
        inside = line.strip() == "### BEGIN SOLUTION" or (inside and line.strip() != "### END SOLUTION")
        found |= {number} if inside else set()
    return found


def ordered(tree: ast.AST) -> list[ast.AST]:
    "The nodes in the order in which `Swap` meets them."
    found = []

    class Walk(ast.NodeTransformer):
        def visit(self, node):
            found.append(node)
            return super().visit(node)

    Walk().visit(tree)
    return found


def mutants(task: Exercise) -> list[tuple[str, str]]:  # what was done, the cell
    "The answer with one change: every plain change, and further ones until there are ten."
    tree, lines, seen, found = ast.parse(task.source), answer_lines(task), {ast.unparse(ast.parse(task.source))}, []
    names = sorted({node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)})
    for extra in (False, True):
        for number, node in enumerate(ordered(tree)):
            changes = (further(node, names) if extra else changed(node)) if getattr(node, "lineno", 0) in lines else ()
            for what, new in changes:
                mutant = ast.unparse(ast.fix_missing_locations(Swap(number, new).visit(copy.deepcopy(tree))))
                if mutant not in seen and (not extra or len(found) < 10):
                    seen.add(mutant)
                    found.append((f"{what}: {ast.unparse(node)[:60]!r} became {ast.unparse(new)[:60]!r}", mutant))
    return found


def refused(task: Exercise, source: str, names: dict) -> bool:
    "Whether the check refuses a mutant."
    def stop(*_):
        raise TimeoutError("5 s")

    home = {name: value for name, value in names.items() if name not in task.names}
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(5)
    try:
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            exec(compile(source, "<mutant>", "exec", dont_inherit=True), home)
            return judge(task, home, home).state != "passed"
    except Exception:  # the cell itself stops: the learner sees it at once
        return True
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_lesson(lesson: Lesson) -> list[tuple[str, int, list[str]]]:  # exercise, mutants, survivors
    "Run the source; try the mutants of each answer where it stands."
    run, tasks, found = _Run(), {task.id: task for task in lesson.exercises}, []
    for cell in (cell for cell in lesson.cells if cell.runs):
        run.cell(cell.source)
        if cell.mark == "exercise":
            results = [(what, refused(tasks[cell.id], source, run.names)) for what, source in mutants(tasks[cell.id])]
            found.append((cell.id, len(results), [what for what, good in results if not good]))
    return found


def results(paths: list[str]) -> list[tuple[Lesson, str, int, list[str]]]:  # lesson, exercise, mutants, survivors
    "Every lesson in turn, in a folder of its own, since lessons may write files."
    home, found = os.getcwd(), []
    lessons = [read_lesson(os.path.abspath(path)) for path in paths] or read_lessons(shipped("lessons"))
    for lesson in lessons:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                found += [(lesson, *row) for row in try_lesson(lesson)]
            finally:
                os.chdir(home)
    return found


def summary(found: list[tuple[Lesson, str, int, list[str]]]) -> tuple[str, bool]:
    "The share in words, and whether it reaches the bar."
    made, survived = sum(total for _, _, total, _ in found), sum(len(left) for *_, left in found)
    share, few = (made - survived) / max(made, 1), sum(total < 10 for _, _, total, _ in found)
    return f"{made - survived} of {made} in {len(found)} answers: {share:.1%}; {few} answers offer fewer than 10 places", share >= BAR


def rows(quick: bool) -> list[tuple[str, str, str, bool | None]]:  # what, figure, bar, whether it is met
    "For `bench_teach.py`."
    first = read_lessons(shipped("lessons"))[:1]
    text, met = summary(results([one.path for one in first] if quick else []))
    return [("mutants of answers refused", text, f"{BAR:.0%}", met)]


def main(paths: list[str]) -> int:
    found = results(paths)
    for lesson, name, total, survivors in found:
        print(f"{lesson.id:4} {name:28} {total - len(survivors):3} of {total:3} mutants refused")
        for one in survivors:
            print(f"       survived: {one}")
    text, met = summary(found)
    print(f"refused: {text} (bar {BAR:.0%})")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
