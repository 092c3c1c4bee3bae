"""What the checks of the conformance kit have in common: a demand, its outcome, and what every plug-in declares."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from cml_bench.errors import CmlBenchError, in_one_line, suggest


class Case(Protocol):
    """What is checked."""

    @property
    def subject(self) -> str:
        """How sentences call it."""

    @property
    def exemptions(self) -> Mapping[str, str]:
        """Checks that it declares to be inapplicable, with its reasons."""

    @property
    def file(self) -> str | None:
        """Where it is written, to name the line that breaks; None if it was typed into an interpreter."""


CaseT = TypeVar("CaseT", bound=Case)
Checks = Mapping[str, Callable[[CaseT], str]]
"""Name of each check to the function that makes it; the docstring says what it demands, the result what was found."""

GATE = "runs"
"""The check without which nearly all others would fail, for the same reason."""


@dataclass(frozen=True)
class CheckOutcome:
    """What one check found.

    Attributes:
        name: Name of the check, as in ``exemptions`` of a meta.
        status: ``exempt`` if the plug-in declares that the check cannot apply, ``skipped`` if it has no subject.
        detail: What was measured, what is wrong, or why it was not looked at.
    """

    name: str
    status: Literal["passed", "failed", "exempt", "skipped"]
    detail: str


class NotApplicableError(Exception):
    """There is nothing to check."""


class BrokenRuleError(Exception):
    """A rule is broken."""


def require(holds: bool, otherwise: str) -> None:
    """Demand something; ``otherwise`` says what is wrong."""
    if not holds:
        raise BrokenRuleError(otherwise)


_ABOVE_CHANCE = 0.2


def require_above_chance(what: str, reached: float, chance: float) -> str:
    """Demand that a figure is well above what guessing reaches; return both."""
    detail = f"{what} {reached:.3f}, by chance {chance:.3f}"
    require(reached >= chance + _ABOVE_CHANCE, f"{detail}: at least {chance + _ABOVE_CHANCE:.3f} is expected")
    return detail


def named(*checks: Callable[[CaseT], str]) -> dict[str, Callable[[CaseT], str]]:
    """Return checks by the names of their functions."""
    return {check.__name__.removeprefix("_"): check for check in checks}


def run_checks(checks: Checks[CaseT], case: CaseT, *, raise_on_failure: bool) -> list[CheckOutcome]:
    """Make all checks of a case.

    Args:
        checks: What is demanded; all but those before ``runs`` are skipped if that fails.
        case: What the checks are given.
        raise_on_failure: Raise if a check fails, instead of only returning what was found.

    Raises:
        CmlBenchError: If a check fails.
    """
    outcomes: list[CheckOutcome] = []
    for name, check in checks.items():
        stuck = any((outcome.name, outcome.status) == (GATE, "failed") for outcome in outcomes)
        if name in case.exemptions:
            outcomes.append(CheckOutcome(name, "exempt", case.exemptions[name]))
        elif stuck:
            outcomes.append(CheckOutcome(name, "skipped", "it does not run"))
        else:
            outcomes.append(_outcome(name, check, case))
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed and raise_on_failure:
        reasons = "; ".join(f"{outcome.name}: {outcome.detail}" for outcome in failed)
        raise CmlBenchError(f"{case.subject} fails {len(failed)} of {len(outcomes)} checks ({reasons})")
    return outcomes


def _outcome(name: str, check: Callable[[CaseT], str], case: CaseT) -> CheckOutcome:
    try:
        return CheckOutcome(name, "passed", check(case))
    except NotApplicableError as reason:
        return CheckOutcome(name, "skipped", str(reason))
    except (BrokenRuleError, CmlBenchError) as error:
        return CheckOutcome(name, "failed", str(error))
    except Exception as error:
        return CheckOutcome(name, "failed", in_one_line(error, case.file))


def declared(kind: type, meta_type: type, name: str | None, facts: str) -> Any:
    """Return the meta of a class.

    Args:
        kind: The class.
        meta_type: What its meta must be.
        name: The name it goes by; None if it goes by an import name or a path.
        facts: What a meta should say, for the sentence about a missing one.
    """
    meta = getattr(kind, "meta", None)
    if not isinstance(meta, meta_type):
        raise BrokenRuleError(f"{kind.__name__} has no meta: add meta = {meta_type.__name__}({facts})")
    own: Any = meta
    require(re.fullmatch(r"[a-z][a-z0-9_]*", own.name) is not None, f"meta.name={own.name!r} is not snake_case")
    require(name is None or own.name == name, f"meta.name={own.name!r} differs from the name {name!r} it goes by")
    return own


def require_exemptions(meta: Any, checks: Iterable[str]) -> None:
    """Demand that exemptions name checks that there are."""
    known = list(checks)
    for check in meta.exemptions:
        require(check in known, f"meta.exemptions names {check!r}, which is no check: {suggest(check, known)}")


def require_literals(kind: type) -> None:
    """Demand a meta whose arguments are literals, so that lists show them without importing the class."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, SyntaxError):
        return  # typed into an interpreter: no list shows it
    assert isinstance(tree, ast.ClassDef)
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    metas = [node.value for node in assigned if any(isinstance(t, ast.Name) and t.id == "meta" for t in node.targets)]
    written = [value for value in metas if isinstance(value, ast.Call) and not value.args]
    require(bool(written), f"{kind.__name__} has no meta of its own, written with names: meta = ...Meta(name=...)")
    for keyword in written[0].keywords:
        try:
            ast.literal_eval(keyword.value)
        except ValueError:
            raise BrokenRuleError(f"meta.{keyword.arg} is no literal: lists show it without importing it") from None


def require_docstring(kind: type, options: Iterable[str], section: Literal["Args", "Attributes"]) -> str:
    """Demand an own docstring that begins with a sentence and describes every option; return that sentence."""
    doc = inspect.cleandoc(vars(kind).get("__doc__") or "")
    # A dataclass without a docstring gets its signature as one.
    own = bool(doc) and not doc.startswith(f"{kind.__name__}(")
    require(own, f"{kind.__name__} has no docstring: its first sentence says what it does")
    require(doc.split("\n\n")[0].rstrip().endswith("."), "the first paragraph of the docstring is no sentence")
    docs = "\n".join(inspect.cleandoc(base.__doc__ or "") for base in kind.__mro__)
    for option in options:
        described = re.search(rf"^\s+{option}: \S", docs, re.MULTILINE)
        require(described is not None, f"option {option!r} is not described under '{section}:' in the docstring")
    return doc.split("\n\n")[0].replace("\n", " ")
