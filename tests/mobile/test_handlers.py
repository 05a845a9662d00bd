"""Two rules about Flet: unguarded errors would replace the page, and controls with keys would freeze."""

from __future__ import annotations

import ast
from pathlib import Path

APP = Path(__file__).parents[2] / "mobile" / "impchat_mobile"
GUARDS = {"on", "guarded"}


def is_guarded(value: ast.expr, parameters: set[str]) -> bool:
    """Whether `value` is a call of the guard, None, or a handler that the caller has guarded."""
    if isinstance(value, ast.IfExp):
        return is_guarded(value.body, parameters) and is_guarded(value.orelse, parameters)
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name in GUARDS
    if isinstance(value, ast.Constant):
        return value.value is None
    return isinstance(value, ast.Name) and value.id in parameters


def test_every_handler_is_guarded() -> None:
    bare = []
    for file in APP.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        # Names of guarded handlers: parameters called on_..., and variables that `shell.on(...)` was assigned to.
        known = {arg.arg for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for arg in node.args.args
                 if arg.arg.startswith("on_")}  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and is_guarded(node.value, known):
                known |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                bare += [
                    f"{file.name}:{word.value.lineno} {word.arg}"
                    for word in node.keywords
                    if word.arg and word.arg.startswith("on_") and not is_guarded(word.value, known)
                ]
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Attribute) and target.attr.startswith("on_"):
                        bare += [] if is_guarded(node.value, known) else [f"{file.name}:{node.lineno} {target.attr}"]
    assert bare == []


def test_no_control_has_a_key() -> None:
    """Flet freezes a new control that replaces an older one with the same key: it can never be updated again."""
    keyed = [
        f"{file.name}:{node.lineno}"
        for file in APP.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and getattr(node.func.value, "id", "") == "ft"
        for word in node.keywords
        if word.arg == "key"
    ]
    assert keyed == []
