"""YAML that comes from elsewhere, as plain data of the size that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cml_bench.errors import CmlBenchError

_DEEPEST = 20
"""Lists in lists; a suite needs three."""


class _Loader(yaml.SafeLoader):
    """Makes plain data only, and no more of it than is written: no references, no key twice."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            # References to references double and double again as soon as somebody writes them out.
            raise yaml.composer.ComposerError(None, None, f"write out *{event.anchor:.40}", event.start_mark)
        # Looking on would take time that grows with the square of the depth.
        self._depth += 1
        if self._depth > _DEEPEST:
            raise RecursionError
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        told: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in told:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r:.40} comes twice", key.start_mark)
            told.add(key.value)
        return super().construct_mapping(node, deep)


def read_suite_file(path: Path) -> dict[Any, Any]:
    """Return the mapping that a suite file holds.

    Raises:
        CmlBenchError: If the file cannot be read, is no YAML of plain data, or refers to parts of itself.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise CmlBenchError(f"suite {path} is no UTF-8 text ({error.reason}): give the path of a YAML file") from None
    except OSError as error:
        raise CmlBenchError(f"suite {path} cannot be read ({error.strerror}): give the path of a YAML file") from None
    except yaml.reader.ReaderError as error:
        raise CmlBenchError(f"suite {path} is no YAML: {error.reason} at character {error.position}") from None
    except yaml.MarkedYAMLError as error:
        raise CmlBenchError(f"suite {path} is no YAML: {_told(error):.300}") from None
    except (yaml.YAMLError, ValueError) as error:
        # Dates and numbers that are none are plain ValueErrors.
        raise CmlBenchError(f"suite {path} is no YAML: {' '.join(str(error).split()):.300}") from None
    except RecursionError:
        raise CmlBenchError(f"suite {path} is nested too deeply: it needs lists of names") from None
    if not isinstance(content, dict):
        raise CmlBenchError(f"suite {path} holds no keys: it needs benchmarks and methods")
    return content


def _told(error: yaml.MarkedYAMLError) -> str:
    """Return what is wrong and where, in one line."""
    mark = error.problem_mark
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return " ".join(f"{error.problem}{where}{f' ({error.context})' if error.context else ''}".split())
