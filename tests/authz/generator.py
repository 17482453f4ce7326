"""Random models, policies and requests inside of the dialect; one generator for all three judges.

A model's matcher is either a well-known shape or a random expression. Values come from small pools,
so that requests meet lines often, and requests are bent towards the lines of their policy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from garrison.authz import AuthorizationSources, Request, SourceFile

TRUST_DOMAIN = "mesh.test"
PRINCIPALS = ("shop/web", "shop/cart", "shop/web-2", "shop2/web", "ops/admin", "ops/audit")
STRANGERS = ("other.test//shop/web", "other.test//ops/admin", "unauthenticated", "lab/new")
# Who has an identity that policy has no name for; never written in a line.
NAMELESS = ("spiffe://mesh.test/web", "spiffe://shop/ns/web/sa/x", "spiffe://mesh.test/ns/a.b/sa/c")
SERVICES = ("shop/catalog", "shop/orders", "pay/ledger", "pay/orders")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
UNKNOWN_METHODS = ("read", "any", "get", "PROPFIND", "OTHER")
HEADERS = ("x-tenant", "x-tier")

_ROLES = ("staff", "robots", "owners", "guests")
_SEGMENTS = (
    "books",
    "a",
    "b",
    "x1",
    "charges",
    "v2",
    "7",
    ".well-known",
    "a.b",
    "~me",
    "@me",
    "a;b",
    "%C3%A9",
)
_HEADER_VALUES = ("", "gold", "golden", "a/b", "acme", "acme corp", "0")


@dataclass(frozen=True)
class Case:
    """Sources that compile, it is hoped, and a stream of requests that fits them.

    `aims` are, for each line, values of request fields that may satisfy it.
    """

    sources: AuthorizationSources
    aims: tuple[Mapping[str, str], ...]

    def request(self, random: Random) -> Request:
        """Make a request that often meets a line, or misses it in one field."""
        aim = {} if random.random() < 0.1 else dict(random.choice(self.aims))
        if aim and random.random() < 0.4:
            aim.pop(random.choice(sorted(aim)))
        anybody = random.choice(PRINCIPALS if random.random() < 0.8 else (*STRANGERS, *NAMELESS))
        method = random.choice(METHODS if random.random() < 0.8 else UNKNOWN_METHODS)
        return Request(
            src=aim.get("src", anybody),
            dst=aim.get("dst", random.choice(SERVICES)),
            method=aim.get("method", method),
            path=_bent(random, aim["path"]) if "path" in aim else _path(random),
            headers={
                name: random.choice(_HEADER_VALUES) for name in HEADERS if random.random() < 0.6
            },
            ip=random.choice(("127.1.2.3", "127.1.2.4", "127.9.0.1", "::1", "fd00::7")),
        )


# What a column is held by, and how its values are written; `{}` is the column.
_ATOMS = {
    "g(r.src, p.{})": "role",
    "keyMatch(r.src, p.{})": "prefix",
    "r.src == p.{}": "principal",
    "r.src in (p.{}, 'ops/audit')": "principal",
    "(g(r.src, p.{}) || keyMatch(r.src, p.{}))": "who",
    "keyMatch(r.dst, p.{})": "services",
    "r.dst == p.{}": "service",
    "keyMatch2(r.dst, p.{})": "service2",
    "g2(r.method, p.{})": "method",
    "regexMatch(r.method, p.{})": "verbs",
    "keyMatch2(r.path, p.{})": "key2",
    "keyMatch(r.path, p.{})": "key",
    "keyMatch3(r.path, p.{})": "key3",
    "keyMatch5(r.path, p.{})": "key5",
    "regexMatch(r.path, p.{})": "regex",
    "globMatch(r.path, p.{})": "glob",
    "r.path == p.{}": "exact",
    "r.path != p.{}": "exact",
    "r.path in (p.{}, '/a')": "exact",
    "r.headers['x-tenant'] == p.{}": "tenant",
    "r.headers['x-tenant'] != p.{}": "tenant",
    "keyMatch(r.headers['x-tenant'], p.{})": "tenant",
    "regexMatch(r.headers['x-tier'], p.{})": "tier",
    "keyMatch2(r.headers['x-tier'], p.{})": "tier2",
    "ipMatch(r.ip, p.{})": "net",
}
_FIXED = (
    "r.method in ('GET', 'HEAD')",
    "r.method != 'DELETE'",
    "r.method == 'POST'",
    "r.src != 'unauthenticated'",
    "r.src in ('shop/web', 'ops/admin', 'unauthenticated')",
    "keyMatch(r.src, 'ops/*')",
    "g(r.src, 'staff')",
    "keyMatch(r.path, '/books/*')",
    "regexMatch(r.path, '^/a')",
    "r.dst in ('shop/catalog', 'pay/ledger')",
    "r.headers['x-tenant'] == ''",
    "r.headers['x-tier'] in ('gold', '')",
)
_DEFAULT = (
    ("(g(r.src, p.{}) || keyMatch(r.src, p.{}))", "src"),
    ("keyMatch(r.dst, p.{})", "dst"),
    ("g2(r.method, p.{})", "method"),
    ("keyMatch2(r.path, p.{})", "path"),
)
_DOMAINS = (
    "g(r.src, p.a, r.dst)",
    "g(r.src, p.a, p.b)",
    "g(r.src, p.a, r.headers['x-tenant'])",
)
_RULED = ("r.dst == p.b && eval(p.c)", "eval(p.c)", "!(eval(p.c)) && r.dst == p.b")
_ALLOW = "some(where (p.eft == allow))"
_DENY = f"{_ALLOW} && !some(where (p.eft == deny))"


@dataclass(frozen=True)
class _Model:
    """A matcher, the kind of values of each column, and the arity of `g`."""

    matcher: str
    columns: dict[str, str]
    arity: int = 2


def generate(random: Random) -> Case:
    """Write a model and a policy."""
    shape = random.choice((_default, _default, _mixed, _mixed, _mixed, _ruled, _domains))
    return _case(random, shape(random))


def _default(random: Random) -> _Model:
    del random
    matcher = " && ".join(atom.replace("{}", name) for atom, name in _DEFAULT)
    return _Model(matcher, {name: _ATOMS[atom] for atom, name in _DEFAULT})


def _mixed(random: Random) -> _Model:
    chosen = dict(zip("abcde", random.sample(sorted(_ATOMS), random.randint(2, 5)), strict=False))
    atoms = [atom.replace("{}", name) for name, atom in chosen.items()]
    atoms += random.sample(_FIXED, random.choice((0, 1, 1, 2)))
    columns = {name: _ATOMS[atom] for name, atom in chosen.items()}
    return _Model(_tree(random, atoms), columns)


def _ruled(random: Random) -> _Model:
    return _Model(random.choice(_RULED), {"b": "service", "c": "rule"})


def _domains(random: Random) -> _Model:
    atoms = [random.choice(_DOMAINS), "keyMatch2(r.path, p.c)"]
    atoms += random.sample(["r.dst == p.b", "r.method != 'DELETE'"], random.randint(0, 2))
    return _Model(_tree(random, atoms), {"a": "role", "b": "service", "c": "key2"}, arity=3)


def _tree(random: Random, atoms: list[str]) -> str:
    """Join atoms by random operators."""
    if len(atoms) == 1:
        return f"!({atoms[0]})" if random.random() < 0.15 else atoms[0]
    cut = random.randint(1, len(atoms) - 1)
    operator = "&&" if random.random() < 0.7 else "||"
    joined = f"({_tree(random, atoms[:cut])} {operator} {_tree(random, atoms[cut:])})"
    return f"!{joined}" if random.random() < 0.08 else joined


def _case(random: Random, model: _Model) -> Case:
    effect = random.choice((_ALLOW, _DENY, _DENY))
    names = list(model.columns)
    if effect == _DENY or random.random() < 0.5:
        names.insert(random.choice((0, len(names))), "eft")
    paths: list[str] = ["/", "/a"]
    links = _links(random, model.arity)
    roles = sorted({link.split(", ")[2] for link in links})
    lines = []
    aims = []
    for _ in range(random.randint(1, 8)):
        values = {name: _value(random, kind, roles, paths) for name, kind in model.columns.items()}
        aims.append(_aim(random, model, values, links) | {"path": paths[-1]})
        values["eft"] = "deny" if effect == _DENY and random.random() < 0.3 else "allow"
        lines.append("p, " + ", ".join(values[name] for name in names))
    if "g(" in model.matcher or any("g(" in line for line in lines):
        lines += links
    if "g2(" in model.matcher and random.random() < 0.5:
        lines += ["g2, GET, probes", "g2, write, probes"]
    random.shuffle(lines)
    half = len(lines) // 2
    text = _model_text(random, model, names, effect)
    files = (
        SourceFile("authz/b.csv", "\n".join(lines[:half]) + "\n"),
        SourceFile("authz/a.csv", "# a comment, with a comma\n" + "\n".join(lines[half:])),
    )
    return Case(AuthorizationSources(SourceFile("authz/model.conf", text), files), tuple(aims))


def _aim(
    random: Random, model: _Model, values: Mapping[str, str], links: list[str]
) -> dict[str, str]:
    """Guess what satisfies the values of a line."""
    aim: dict[str, str] = {}
    for name, kind in model.columns.items():
        value = values[name]
        if kind in {"role", "prefix", "who", "principal"}:
            member = "shop/web" if _is_role(value, links) else value
            aim["src"] = member.replace("*", random.choice(("x", "web", "admin")))
        elif kind in {"service", "services", "service2"}:
            aim["dst"] = value if value in SERVICES else random.choice(SERVICES)
        elif kind == "method":
            members = {"read": ("GET", "HEAD"), "write": ("PUT", "PATCH"), "any": ("TRACE", "GET")}
            aim["method"] = random.choice((*members.get(value, (value,)), value))
    return aim


def _is_role(value: str, links: list[str]) -> bool:
    return any(link.split(", ")[2] == value for link in links)


def _model_text(random: Random, model: _Model, names: list[str], effect: str) -> str:
    request = ["src", "dst", "method", "path", "headers", "ip"]
    random.shuffle(request)
    return (
        f"[request_definition]\nr = {', '.join(request)}\n"
        f"[policy_definition]\np = {', '.join(names)}\n"
        f"[role_definition]\ng = {', '.join('_' * model.arity)}\ng2 = _, _\n"
        f"[policy_effect]\ne = {effect}\n[matchers]\nm = {model.matcher}\n"
    )


def _links(random: Random, arity: int) -> list[str]:
    members = [*PRINCIPALS, *STRANGERS]
    pairs = [("shop/web", "staff")]
    if arity == 2:
        members += ["shop/*", "shop/web*", "ops/a*", "other.test//shop/*"]
    for _ in range(random.randint(0, 6)):
        pairs += [(random.choice(members), random.choice(_ROLES))]
    held = sorted({role for _, role in pairs})
    for _ in range(random.choice((0, 0, 1, 2, 4))):
        pairs += [(random.choice(held), random.choice(_ROLES))]
    if random.random() < 0.3:
        chain = ["staff", *(f"r{hop}" for hop in range(random.choice((6, 7, 8))))]
        pairs += pairwise(chain)
    domains = (*SERVICES, "gold", "acme") if arity > 2 else ("",)
    links = [
        f"g, {member}, {role}" + (f", {random.choice(domains)}" if arity > 2 else "")
        for member, role in pairs
    ]
    return list(dict.fromkeys(links))


_POOLS = {
    "principal": (*PRINCIPALS, *STRANGERS),
    "service": SERVICES,
    "service2": (*SERVICES, "shop/*", ":n/orders", "*"),
    "services": (*SERVICES, *SERVICES, "shop/*", "pay/o*", "*"),
    "method": (*METHODS, "read", "read", "write", "any"),
    "verbs": ("GET", "P", "(GET)|(POST)", "^(PUT|DELETE)$", "P.*T", "[A-P]+$", "O"),
    "tenant": ("gold", "acme", "gold*", "a/*", "acme corp"),
    "tier": ("gold", "^g", "a", "[a-f]+$", "", ".*d$"),
    "tier2": ("gold", "a/:b", "0", "*", "/*"),
    "net": ("127.1.2.3", "127.1.0.0/16", "127.1.2.9/24", "::/0", "fd00::/8", "0.0.0.0/0"),
}
_PREFIXES = ("shop/*", "ops/a*", "shop/web*", "other.test//shop/*")


def _value(random: Random, kind: str, roles: list[str], paths: list[str]) -> str:
    principals = _POOLS["principal"]
    match kind:
        case "role":
            return random.choice((*principals, *roles, *roles, *roles))
        case "prefix":
            return random.choice((*principals, *_PREFIXES))
        case "who":
            return random.choice((*principals, *_PREFIXES, *roles, *roles))
        case "rule":
            atoms = [*random.sample(_FIXED, 2), f"r.src == '{random.choice(PRINCIPALS)}'"]
            pattern = _key2(random, paths)
            atoms += [f"keyMatch2(r.path, '{pattern}')"] if "\\" not in pattern else []
            return _tree(random, random.sample(atoms, random.randint(1, len(atoms))))
        case _ if kind in _POOLS:
            return random.choice(_POOLS[kind])
        case _:
            return _pattern(random, kind, paths)


def _pattern(random: Random, kind: str, paths: list[str]) -> str:
    path = _path(random)
    paths.append(path)
    writers: dict[str, Callable[[], str]] = {
        "exact": lambda: path,
        "key": lambda: path[: random.randint(1, len(path))] + "*" if _plain(path) else path,
        "key2": lambda: _key2(random, paths),
        "key3": lambda: _templated(random, path, ("{id}", "{a}-{b}", "v{n}")),
        "key5": lambda: _templated(random, path, ("{id}", "v{n}")),
        "glob": lambda: _glob(random, path),
        "regex": lambda: _regex(random, path),
    }
    return writers[kind]()


def _plain(path: str) -> bool:
    return "%" not in path and "." not in path


def _key2(random: Random, paths: list[str]) -> str:
    path = _path(random)
    paths.append(path)
    return "*" if random.random() < 0.03 else _templated(random, path, (":id", "v:n"))


def _templated(random: Random, path: str, parameters: tuple[str, ...]) -> str:
    segments = path.replace(".", "\\.").strip("/").split("/")
    for index in range(len(segments)):
        if random.random() < 0.3:
            segments[index] = random.choice(parameters)
        elif random.random() < 0.1:
            segments[index] = random.choice(("*", "*x"))
    if random.random() < 0.3:
        segments.append("*")
    segments = [*filter(None, segments)]
    return "/" + "/".join(segments)


_GLOBS = ("*", "**", "?", "*1", "x*", "?*", "*?", "*b*", "*.b", "?.?", "*?*")


def _glob(random: Random, path: str) -> str:
    segments = path.replace("~", "").strip("/").split("/")
    for index, segment in enumerate(segments):
        if random.random() < 0.4:
            segments[index] = random.choice((*_GLOBS, f"{segment}*"))
    if random.random() < 0.2:
        segments.append("**")
    segments = [*filter(None, segments)]
    return ("/" + "/".join(segments)).replace("/**/**", "/**").replace("/**/**", "/**")


def _regex(random: Random, path: str) -> str:
    escaped = path.replace(".", "[.]")
    pieces = [
        escaped,
        f"^{escaped}$",
        "^/(a|books)/[0-9]+",
        "/[^/]+/x1$",
        "^/(?:[a-z]+/)*v2",
        "/b?o+k*s{1}.+",
        "(/a){2}",
        "/.*/(7|x1)",
        "^/[^b].*$|/b",
        "/\\w+/\\d$",
        "/[a-z.~-]+?$",
        "/\\D*$",
        "/[^\\W]+",
        "/\\S+7",
        "",
    ]
    return random.choice(pieces)


def _path(random: Random) -> str:
    segments = [random.choice(_SEGMENTS) for _ in range(random.choice((0, 1, 1, 2, 2, 3)))]
    slash = "/" if segments and random.random() < 0.15 else ""
    return "/" + "/".join(segments) + slash


def _bent(random: Random, path: str) -> str:
    """Change a path a little, or not at all."""
    segments = path.split("/")[1:]
    match random.randint(0, 9):
        case 0:
            segments.append(random.choice(_SEGMENTS))
        case 1 if len(segments) > 1:
            segments.pop(random.randrange(len(segments)))
        case 2 | 3:
            segments[random.randrange(len(segments))] = random.choice(_SEGMENTS)
        case 4 if segments[-1]:
            segments[-1] += random.choice("xs1")
        case 5:
            return _path(random)
        case _:
            pass
    return "/" + "/".join([*filter(None, segments[:-1]), segments[-1]])
