"""A parser for matchers: a small grammar of our own, and no evaluation.

expression  = conjunction { "||" conjunction }
conjunction = negation { "&&" negation }
negation    = "!" negation | "(" expression ")" | "eval(" column ")" | call | comparison
call        = name "(" value { "," value } ")"
comparison  = value ( "==" | "!=" ) value | value "in" "(" value "," value { "," value } ")"
value       = "r." name | "r.headers[" string "]" | "p." name | string | number
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from garrison.authz.errors import RefusedError
from garrison.authz.schema import FIELDS, Field, Kind, is_header_name
from garrison.authz.sources import Text
from garrison.authz.syntax import (
    And,
    Call,
    Constant,
    Equals,
    Expression,
    Inlined,
    Not,
    Number,
    OneOf,
    Or,
    PolicyValue,
    RequestValue,
    Value,
)
from garrison.authz.tokens import Token, TokenKind, tokenize

MAX_NESTING: Final = 30

_COMPARISONS: Final = frozenset(("==", "!=", "<", ">", "<=", ">=", "in"))
_ORDERINGS: Final = frozenset(("<", ">", "<=", ">="))


@dataclass(frozen=True, slots=True)
class Names:
    """What an expression may name: the request fields and policy columns of its model."""

    request: tuple[str, ...]
    policy: tuple[str, ...]


def parse_matcher(source: Text, names: Names) -> Expression:
    """Parse an expression; raises RefusedError at the first thing that is wrong."""
    return _Parser(tokenize(source), names).whole()


@dataclass(slots=True)
class _Parser:
    tokens: list[Token]
    names: Names
    position: int = 0
    depth: int = 0

    def whole(self) -> Expression:
        expression = self.expression()
        if self.peek().kind is not TokenKind.END:
            raise self.unexpected("&& or ||")
        return expression

    def expression(self) -> Expression:
        return self.chain("||", self.conjunction, Or)

    def conjunction(self) -> Expression:
        return self.chain("&&", self.negation, And)

    def chain(
        self,
        operator: str,
        operand: Callable[[], Expression],
        join: type[And] | type[Or],
    ) -> Expression:
        operands = [operand()]
        while self.accept(operator):
            operands.append(operand())
        return operands[0] if len(operands) == 1 else join(tuple(operands))

    def negation(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise RefusedError(
                "matcher-nesting",
                self.peek().place,
                f"more than {MAX_NESTING} levels of parentheses and negations",
                "simplify the expression",
            )
        result = self.negated() if self.accept("!") else self.operand()
        self.depth -= 1
        return result

    def negated(self) -> Expression:
        start = self.peek()
        operand = self.negation()
        bare = isinstance(operand, Equals | OneOf) or (
            isinstance(operand, Not) and isinstance(operand.operand, Equals)
        )
        if bare and (start.kind is not TokenKind.OPERATOR or start.text not in ("(", "!")):
            raise RefusedError(
                "matcher-negation",
                start.place,
                "engines differ on what ! means before a comparison",
                "write !(a == b), or a != b",
            )
        return Not(operand)

    def operand(self) -> Expression:
        if self.accept("("):
            inner = self.expression()
            self.expect(")")
            self.refuse_comparison_of_truth()
            return inner
        token = self.peek()
        if token.kind is TokenKind.NAME and self.tokens[self.position + 1].text == "(":
            self.position += 1
            result = self.inlined(token) if token.text == "eval" else self.call(token)
            self.refuse_comparison_of_truth()
            return result
        return self.comparison()

    def inlined(self, name: Token) -> Expression:
        self.expect("(")
        argument = self.peek()
        column = self.value()
        closing = self.expect(")")
        if not isinstance(column, PolicyValue) or (
            closing.start - name.end != len(argument.text) + 1
        ):
            raise RefusedError(
                "matcher-eval",
                name.place,
                "eval takes a column of the policy and nothing else",
                "write eval(p.rule), without blanks",
            )
        return Inlined(column, name.place)

    def call(self, name: Token) -> Expression:
        self.expect("(")
        arguments: list[Value] = []
        while not self.accept(")"):
            if arguments:
                self.expect(",")
            arguments.append(self.value())
        return Call(name.text, tuple(arguments), name.place)

    def comparison(self) -> Expression:
        left = self.value()
        operator = self.peek()
        if operator.text not in _COMPARISONS or operator.kind is TokenKind.STRING:
            raise RefusedError(
                "matcher-truth",
                left.place,
                "a value stands where true or false is needed",
                "compare it: r.method == 'GET'",
            )
        self.position += 1
        if operator.text in _ORDERINGS:
            raise RefusedError(
                "matcher-ordering",
                operator.place,
                "strings have no order here, and a request has no field that is a number",
                "use ==, in, or a pattern",
            )
        result: Expression
        if operator.text == "in":
            result = OneOf(left, self.options(), operator.place)
        else:
            result = Equals(left, self.value(), operator.place)
            result = Not(result) if operator.text == "!=" else result
        if self.peek().text in _COMPARISONS and self.peek().kind is not TokenKind.STRING:
            raise RefusedError(
                "matcher-chain",
                self.peek().place,
                "engines differ on a comparison of a comparison",
                "join two comparisons with &&",
            )
        return result

    def options(self) -> tuple[Value, ...]:
        opening = self.peek()
        options: list[Value] = []
        if self.accept("("):
            options.append(self.value())
            while self.accept(","):
                options.append(self.value())
            self.expect(")")
        if len(options) < 2:  # noqa: PLR2004 - ('a') is a string to pycasbin, not a set
            raise RefusedError(
                "matcher-in",
                opening.place,
                "`in` on a single string is a test for a substring",
                "list two values or more, in ('a', 'b'); use == for one",
            )
        return tuple(options)

    def value(self) -> Value:
        token = self.peek()
        self.position += 1
        match token.kind:
            case TokenKind.STRING:
                return Constant(token.text, token.place)
            case TokenKind.NUMBER:
                return Number(token.text, token.place)
            case TokenKind.NAME:
                return self.named(token)
            case TokenKind.OPERATOR | TokenKind.END:
                self.position -= 1
                raise self.unexpected("r.field, p.column or a string")

    def named(self, token: Token) -> Value:
        scope, _, name = token.text.partition(".")
        if scope == "r" and name in self.names.request:
            return self.request(name, token)
        if scope == "p" and name in self.names.policy:
            return PolicyValue(name, token.place)
        known = [f"r.{name}" for name in self.names.request]
        known += [f"p.{name}" for name in self.names.policy]
        raise RefusedError(
            "matcher-name",
            token.place,
            f"{token.text} is defined nowhere",
            f"the model defines {', '.join(known)}",
        )

    def request(self, name: str, token: Token) -> Value:
        kind = FIELDS[name]
        if kind is not Kind.HEADERS:
            return RequestValue(Field(kind), token.place)
        key = self.tokens[min(self.position + 1, len(self.tokens) - 1)]
        if not self.accept("[") or key.kind is not TokenKind.STRING or not is_header_name(key.text):
            raise RefusedError(
                "matcher-header",
                token.place,
                "a header is named by a lower-case string, and none of those that the mesh sets",
                f"write r.{name}['x-tenant']",
            )
        self.position += 1
        self.expect("]")
        return RequestValue(Field(Kind.HEADER, key.text), token.place)

    def refuse_comparison_of_truth(self) -> None:
        token = self.peek()
        if token.kind is not TokenKind.STRING and token.text in _COMPARISONS:
            raise RefusedError(
                "matcher-truth",
                token.place,
                "true and false are not compared",
                "use &&, || and !",
            )

    def peek(self) -> Token:
        return self.tokens[self.position]

    def accept(self, operator: str) -> bool:
        token = self.peek()
        found = token.kind is TokenKind.OPERATOR and token.text == operator
        self.position += found
        return found

    def expect(self, operator: str) -> Token:
        token = self.peek()
        if not self.accept(operator):
            raise self.unexpected(repr(operator))
        return token

    def unexpected(self, wanted: str) -> RefusedError:
        token = self.peek()
        return RefusedError(
            "matcher-syntax", token.place, f"{token.text} stands here", f"expected {wanted}"
        )
