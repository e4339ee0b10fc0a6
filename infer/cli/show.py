"""`infer show`: a run that is there, or one search tree of it."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from infer.cli.app import app, examples
from infer.cli.display import print_summary
from infer.cli.folders import SkipBad, bad_lines, folder
from infer.cli.options import options_of_fields
from infer.cli.terminal import out
from infer.core.formats import clean
from infer.core.tally import Tally
from infer.core.trace import TracedNode, TracedSearch, read_trace, trace_path
from infer.errors import UserError, nearest
from infer.runs.run import read_solutions

SIBLINGS = 6
"""Children drawn of one node, unless all are asked for or more of them lead on."""


@app.command(
    epilog=examples(
        "infer show runs/first",
        "infer show runs/first nano-L3-0017",
        "infer show runs/first nano-L3-0017 --all",
    )
)
@options_of_fields()
def show(
    *,
    run: Annotated[Path, typer.Argument(help="Folder of a run.", parser=folder)],
    problem: Annotated[
        str | None, typer.Argument(help="Id of a problem: draw its search tree (of a run made with --trace).")
    ] = None,
    whole: Annotated[bool, typer.Option("--all", help="Every node, however many.")] = False,
    skip_bad: SkipBad = False,
    debug: bool,
) -> None:
    """Show what a run found, or draw the search tree of one of its problems, the chosen path marked."""
    tally, ids = Tally(), []
    with bad_lines(skip_bad) as on_bad:
        for solution in read_solutions(run, on_bad):
            tally.add(solution)
            ids.append(solution.problem_id)
    if problem is None:
        print_summary(out, tally, path=run)
        return
    path = trace_path(run / "traces", problem)
    if not path.exists() and problem not in ids:
        raise UserError(f"{run} has no problem {problem!r}: {nearest(problem, ids[:1000])}")
    draw(read_trace(path), whole=whole)


def draw(search: TracedSearch, *, whole: bool = False) -> None:
    """Prints the trees of a search, one node a line: last score, number in order of sampling, size, fate, text."""
    best = search.best_path
    for root in search.roots:
        name = f"problem {search.problem}" if root.id == 0 else f"conversation {root.id}, opened at {root.at:.2f} s"
        size = f", a prompt of {root.num_tokens} tokens" if root.num_tokens is not None else ""
        tree = Tree(Text(f"{name}{size}", "bold"), guide_style="dim")
        _grow(tree, root, best, whole)
        out.print(tree)
    nodes = sum(1 for root in search.roots for _ in _below(root))
    end = "" if search.complete else "; cut off before it came to an end"
    out.print(Text(f"{nodes:,} nodes; * marks the chosen path{end}", "dim"))


def _grow(tree: Tree, root: TracedNode, best: set[int], whole: bool) -> None:
    """Adds all that is shown below the root, by an explicit stack: a long solution is deeper than Python's own."""
    waiting = [(tree, root)]
    while waiting:
        branch, node = waiting.pop()
        waiting += _add_children(branch, node, best, whole)


def _add_children(tree: Tree, node: TracedNode, best: set[int], whole: bool) -> list[tuple[Tree, TracedNode]]:
    """Adds the children of a node that are shown. Returns each with its branch."""

    def leads_on(child: TracedNode) -> bool:
        return bool(child.children) or child.id in best

    def weight(child: TracedNode) -> tuple[bool, bool]:
        return leads_on(child), child.scores is not None

    shown = list(node.children)
    equal: Counter[tuple[str, str | None]] = Counter()
    if not whole:
        # siblings that say the same are one line, and of those that lead nowhere a few will do
        first = {(child.text, child.finish): child for child in sorted(shown, key=weight)}
        equal.update((child.text, child.finish) for child in shown)
        shown = [child for child in shown if leads_on(child) or first[child.text, child.finish] is child]
        ends = [child for child in shown if not leads_on(child)]
        hidden = {child.id for child in ends[max(0, SIBLINGS - len(shown) + len(ends)) :]}
        shown = [child for child in shown if child.id not in hidden]
    branches = []
    for child in shown:
        count = equal[child.text, child.finish]
        equal[child.text, child.finish] = 1  # counted once
        branches.append((tree.add(_label(child, best, count)), child))
    if not whole and hidden:
        tree.add(Text(f"... {len(hidden)} others that lead nowhere (--all shows them)", "dim"))
    return branches


def _label(node: TracedNode, best: set[int], count: int) -> Text:
    marks = [f"#{node.id}", f"{node.num_tokens} tok"]
    if count > 1:
        marks.append(f"{count} times")
    if node.forced:
        marks.append("put there")
    if node.finish == "end":
        marks.append("finished")
    elif node.finish == "length":
        marks.append("cut off")
    if node.pruned_at is not None:
        marks.append(f"pruned at {node.pruned_at:.2f} s")
    chosen = node.id in best
    style = "bold green" if chosen else "dim" if node.pruned_at is not None else ""
    score = f"{node.scores[-1]:.3f}" if node.scores else "  -  "
    text = " ".join(clean(node.text).split()) or "(nothing)"
    head = (f"{'*' if chosen else ' '} {score}  ", style), (f"{', '.join(marks)}  ", "dim")
    return Text.assemble(*head, (text, style), no_wrap=True, overflow="ellipsis")


def _below(node: TracedNode) -> list[TracedNode]:
    """All nodes under this one, by an explicit stack as well."""
    found, waiting = [], list(node.children)
    while waiting:
        child = waiting.pop()
        found.append(child)
        waiting += child.children
    return found
