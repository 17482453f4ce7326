//! Which rules can match a method and a path at all: a tree of path segments with the rules at its nodes.
//!
//! From each rule conditions are derived that a request must meet for the rule to match, and the rule is put where these
//! say. A condition that is too wide costs time; one that is too narrow would lose the rule, so each step below
//! only ever widens.

use http::Method;

use super::expression::{Expression, Text};
use super::hashing::TextMap;
use super::path_pattern::{PathPattern, Segment, split};

/// More conditions than these for one rule, and it is looked at for any path.
const MAX_CONDITIONS: usize = 256;
/// Of longer patterns the rest may be anything; also bounds the walk's depth.
const MAX_DEPTH: usize = 64;

/// So many rules are evaluated sooner than looked up.
const FEW: usize = 4;

/// A set of methods, a bit each; all that have no name here share the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods(u8);

impl Methods {
    const ALL: Self = Self(u8::MAX);

    pub fn of(method: &Method) -> Self {
        let bit = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::PATCH => 4,
            Method::DELETE => 5,
            Method::OPTIONS => 6,
            _ => 7,
        };
        Self(1 << bit)
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What a request must meet.
#[derive(Debug, Clone)]
struct Condition {
    methods: Methods,
    /// None is any path.
    path: Option<PathPattern>,
}

const ANY: Condition = Condition {
    methods: Methods::ALL,
    path: None,
};

/// A request for which `expression` has the value `wanted` meets one of these.
fn conditions(expression: &Expression, wanted: bool) -> Vec<Condition> {
    match (expression, wanted) {
        (Expression::Always, false) => vec![],
        (Expression::Not(part), wanted) => conditions(part, !wanted),
        (Expression::All(parts), true) | (Expression::Some(parts), false) => {
            let met = |met: Vec<Condition>, part| both(met, conditions(part, wanted));
            parts.iter().fold(vec![ANY], met)
        }
        (Expression::Some(parts), true) | (Expression::All(parts), false) => {
            let mut met: Vec<_> = parts
                .iter()
                .flat_map(|part| conditions(part, wanted))
                .collect();
            if met.len() > MAX_CONDITIONS {
                met = vec![ANY];
            }
            met
        }
        (Expression::Method(method), true) => {
            vec![Condition {
                methods: Methods::of(method),
                path: None,
            }]
        }
        (Expression::Path(text), true) => paths(text).into_iter().map(on).collect(),
        (Expression::Segments(patterns), true) => patterns.iter().cloned().map(on).collect(),
        (
            Expression::Always
            | Expression::Authenticated(_)
            | Expression::Header(_)
            | Expression::Method(_)
            | Expression::Path(_)
            | Expression::Segments(_),
            _,
        ) => vec![ANY],
    }
}

fn on(path: PathPattern) -> Condition {
    Condition {
        methods: Methods::ALL,
        path: Some(path),
    }
}

fn paths(text: &Text) -> Vec<PathPattern> {
    match text {
        Text::Exact(path) => vec![PathPattern::exact(path)],
        Text::Prefix(prefix) => vec![PathPattern::prefix(prefix)],
        Text::Regex(regex) => regex.paths.to_vec(),
        Text::Suffix(_) | Text::Contains(_) => vec![PathPattern::anything()],
    }
}

/// What meets one of each list. Of two paths the longer pattern is kept: it selects better, and each is necessary.
fn both(one: Vec<Condition>, other: Vec<Condition>) -> Vec<Condition> {
    if one.len() * other.len() > MAX_CONDITIONS {
        return if one.len() <= other.len() { one } else { other };
    }
    let pairs = one
        .iter()
        .flat_map(|one| other.iter().map(move |other| (one, other)));
    let met = pairs.map(|(one, other)| Condition {
        methods: one.methods.and(other.methods),
        path: match (&one.path, &other.path) {
            (None, path) | (path, None) => path.clone(),
            (Some(one), Some(other)) if one.segments.len() >= other.segments.len() => {
                Some(one.clone())
            }
            (Some(_), other) => other.clone(),
        },
    });
    met.filter(|condition| !condition.methods.is_empty())
        .collect()
}

/// A rule to look at, if the request has one of these methods.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    pub rule: u32,
    methods: Methods,
}

impl Candidate {
    pub fn takes(self, method: Methods) -> bool {
        !self.methods.and(method).is_empty()
    }
}

type Candidates = Vec<Candidate>;

#[derive(Debug, Default)]
pub struct Index {
    /// For paths that are a plain text, by the whole of it.
    exact: TextMap<Candidates>,
    /// For patterns; the first is the root.
    nodes: Vec<Node>,
    len: usize,
}

/// What follows some segments.
#[derive(Debug, Default)]
struct Node {
    /// The next segment is this text. The empty text apart: it begins each path.
    texts: TextMap<usize>,
    empty: Option<usize>,
    /// The next segment is anything.
    wild: Option<usize>,
    /// The path ended.
    ends: Candidates,
    /// What is left begins with a text: by the text's length. The empty text apart.
    begins: Vec<(usize, TextMap<Candidates>)>,
    anything: Candidates,
}

impl Index {
    /// Rules are given in ascending order.
    pub fn new<'a>(rules: impl Iterator<Item = (u32, &'a Expression)>) -> Self {
        let mut index = Self {
            nodes: vec![Node::default()],
            ..Self::default()
        };
        let rules: Vec<_> = rules.collect();
        index.len = rules.len();
        for (rule, expression) in rules {
            for Condition { methods, path } in conditions(expression, true) {
                let path = path
                    .filter(|_| index.len > FEW)
                    .unwrap_or_else(PathPattern::anything);
                index.add(&path, Candidate { rule, methods });
            }
        }
        index
    }

    /// How many rules are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Visit lists of rules, each in ascending order, in which every rule is that can match this path.
    pub fn visit<'a>(&'a self, path: &str, see: &mut impl FnMut(&'a [Candidate])) {
        if let Some(found) = self.exact.get(path) {
            see(found);
        }
        self.visit_node(0, Some(path), see);
    }

    fn visit_node<'a>(
        &'a self,
        at: usize,
        rest: Option<&str>,
        see: &mut impl FnMut(&'a [Candidate]),
    ) {
        let Some(node) = self.nodes.get(at) else {
            return;
        };
        let Some(rest) = rest else {
            return see(&node.ends);
        };
        see(&node.anything);
        for (length, texts) in &node.begins {
            if let Some(found) = rest.get(..*length).and_then(|begin| texts.get(begin)) {
                see(found);
            }
        }
        if node.is_leaf() {
            return;
        }
        let (head, tail) = split(rest);
        let next = if head.is_empty() {
            node.empty
        } else {
            node.texts.get(head).copied()
        };
        for next in [next, node.wild].into_iter().flatten() {
            self.visit_node(next, tail, see);
        }
    }

    fn add(&mut self, path: &PathPattern, candidate: Candidate) {
        if let Some(text) = path.as_exact() {
            return push(self.exact.entry(text.into()).or_default(), candidate);
        }
        let mut at = 0;
        for segment in path.segments.iter().take(MAX_DEPTH) {
            at = self.child(at, segment);
        }
        let Some(node) = self.nodes.get_mut(at) else {
            return;
        };
        match &path.rest {
            _ if path.segments.len() > MAX_DEPTH => push(&mut node.anything, candidate),
            None => push(&mut node.ends, candidate),
            Some(text) if text.is_empty() => push(&mut node.anything, candidate),
            Some(text) => push(node.beginning(text), candidate),
        }
    }

    fn child(&mut self, at: usize, segment: &Segment) -> usize {
        let new = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else {
            return at;
        };
        let child = match segment {
            Segment::Text(text) if text.is_empty() => *node.empty.get_or_insert(new),
            Segment::Text(text) => *node.texts.entry(text.clone()).or_insert(new),
            Segment::NotEmpty | Segment::Any => *node.wild.get_or_insert(new),
        };
        if child == new {
            self.nodes.push(Node::default());
        }
        child
    }
}

impl Node {
    fn is_leaf(&self) -> bool {
        self.texts.is_empty() && self.empty.is_none() && self.wild.is_none()
    }

    fn beginning(&mut self, text: &str) -> &mut Candidates {
        let at = self
            .begins
            .iter()
            .position(|(length, _)| *length == text.len());
        let at = at.unwrap_or_else(|| {
            self.begins.push((text.len(), TextMap::default()));
            self.begins.len() - 1
        });
        // `at` is in range: it was found, or pushed just now.
        #[allow(clippy::indexing_slicing)]
        let (_, texts) = &mut self.begins[at];
        texts.entry(text.into()).or_default()
    }
}

/// A rule with several conditions at the same place is there once, for all their methods.
fn push(candidates: &mut Candidates, candidate: Candidate) {
    match candidates.last_mut() {
        Some(last) if last.rule == candidate.rule => last.methods.0 |= candidate.methods.0,
        _ => candidates.push(candidate),
    }
}
