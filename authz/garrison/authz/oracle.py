"""pycasbin itself, on the same text: what every compiled rule is held against.

Casbin reads the model and the policy files by its own readers; only the canonical values of a
request are ours: a method outside the known ones is OTHER, an absent header the empty string. The
one function that is registered with it is the convention for roles of patterns.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from casbin import Enforcer
from casbin.persist import Adapter
from casbin.persist.adapter import load_policy_line
from casbin.util import key_match_func

from garrison.authz.check import leaves
from garrison.authz.compilation import Compilation
from garrison.authz.principals import is_principal
from garrison.authz.schema import FIELDS, Kind, Request, known_method
from garrison.authz.syntax import Call, Constant, Inlined


class _Headers(dict[str, str]):
    """Headers by name; one that is absent is the empty string."""

    def __missing__(self, name: str) -> str:
        return ""


class _Enforcer(Enforcer):  # type: ignore[misc] # casbin has no types
    """Casbin, but for parsing: what it parsed once it need not parse for each request again.

    What it evaluates keeps the one dictionary of functions, which Casbin renews for each request.
    """

    def __init__(self, *arguments: object) -> None:
        self._parsed: dict[str, object] = {}
        super().__init__(*arguments)  # pyright: ignore[reportArgumentType] # Casbin's own

    # Casbin has it static, and calls it on the instance.
    def _get_expression(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, text: str, functions: object = None
    ) -> object:
        found = self._parsed.get(text)
        if found is None:
            found = self._parsed[text] = super()._get_expression(text, functions)
        return found


class _Lines(Adapter):  # type: ignore[misc] # casbin has no types
    """Gives Casbin lines of text, as its own file adapter does."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts

    def load_policy(self, model: Any) -> None:  # noqa: ANN401 - casbin has no types
        for text in self._texts:
            load_policy_line(text.strip(), model)


_READERS: Final[dict[Kind, Callable[[Request], object]]] = {
    Kind.PRINCIPAL: lambda request: request.src,
    Kind.DESTINATION: lambda request: request.dst,
    Kind.METHOD: lambda request: known_method(request.method),
    Kind.PATH: lambda request: request.path,
    Kind.HEADERS: lambda request: _Headers(request.headers),
    Kind.ADDRESS: lambda request: request.ip,
}


class Oracle:
    """A Casbin enforcer of the model of a compilation, and of lines of its policy."""

    def __init__(self, compilation: Compilation, texts: Iterable[str]) -> None:
        """Let Casbin load the model and the lines."""
        model = Enforcer.new_model(text=compilation.model.source.text)
        self._enforcer: Any = _Enforcer(model, _Lines(texts))
        for relation in compilation.patterned:
            self._enforcer.add_named_matching_func(relation, key_match_func)
        self._readers = [_READERS[FIELDS[name]] for name in compilation.model.request]

    @classmethod
    def whole(cls, compilation: Compilation) -> "Oracle":
        """Let Casbin read the policy files themselves."""
        files = sorted(compilation.files, key=lambda file: file.path)
        return cls(compilation, (line for file in files for line in file.text.split("\n")))

    def allows(self, request: Request) -> bool:
        """Ask Casbin."""
        return bool(self._enforcer.enforce(*(read(request) for read in self._readers)))


class Excerpts:
    """Oracles of parts of a policy, which answer faster and for certain requests the same.

    A link speaks of its first name: what no request, no column and no constant mentions by name can
    be left out. Patterns and links between roles always stay.
    """

    def __init__(self, compilation: Compilation) -> None:
        """Sort the links once."""
        self._compilation = compilation
        self._texts = {each.line.rule: each.line for each in compilation.lines}
        self._always: list[str] = []
        self._by_name: dict[str, list[str]] = {}
        has_rules = any(isinstance(leaf, Inlined) for leaf in leaves(compilation.matcher))
        for link in compilation.links:
            name = link.values[0].value
            if has_rules or not is_principal(name):
                self._always.append(link.text)
            else:
                self._by_name.setdefault(name, []).append(link.text)
        self._constants = frozenset(
            value.text
            for leaf in leaves(compilation.matcher)
            if isinstance(leaf, Call)
            for value in leaf.arguments
            if isinstance(value, Constant)
        )

    def oracle(self, rules: Iterable[str], requests: Iterable[Request]) -> Oracle:
        """Let Casbin read the lines `rules`, and the links that decide `requests`."""
        lines = [self._texts[rule] for rule in rules]
        names = {value for request in requests for value in _values(request)} | self._constants
        names.update(text.value for line in lines for text in line.columns.values())
        links = [text for name in names for text in self._by_name.get(name, ())]
        return Oracle(self._compilation, [*self._always, *links, *(line.text for line in lines)])


def _values(request: Request) -> tuple[str, ...]:
    return (request.src, request.dst, request.method, request.path, *request.headers.values())
