//! Paths by their segments: what most rules say, without a regular expression at each request.
//!
//! `/books/[^/]+` is three segments, `/books/.*` is two and a rest. From any regular expression a pattern is derived that
//! each path must fit for the expression to match; where it says the same, it stands for the expression. All this
//! holds for canonical paths only, whose bytes are printable ASCII: there `.` is any byte and `[^/]` any but the slash.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Of an expression with more alternatives than these, no pattern is derived.
const MAX_ALTERNATIVES: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    /// What stands between the slashes; the first is what stands before the first slash, so nothing.
    pub segments: Box<[Segment]>,
    /// None: the path ends here. Some: a slash (if there are segments), this text, and then anything.
    pub rest: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Text(Box<str>),
    NotEmpty,
    Any,
}

pub fn is_canonical_byte(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e)
}

/// Without a way out in the middle, so that many bytes are looked at together.
pub fn is_canonical(path: &str) -> bool {
    path.bytes()
        .fold(true, |so_far, byte| so_far & is_canonical_byte(byte))
}

impl PathPattern {
    pub fn anything() -> Self {
        Self {
            segments: Box::default(),
            rest: Some("".into()),
        }
    }

    pub fn exact(path: &str) -> Self {
        let mut pattern = Builder::default();
        pattern.text(path.as_bytes());
        pattern.end()
    }

    pub fn prefix(prefix: &str) -> Self {
        let mut pattern = Builder::default();
        pattern.text(prefix.as_bytes());
        pattern.anything()
    }

    /// The patterns of which a path must fit one for a regular expression to match it whole, and whether that is all
    /// that the expression says.
    pub fn of_regex(regex: &Hir) -> (Box<[Self]>, bool) {
        let alternatives = match regex.kind() {
            HirKind::Alternation(parts) if parts.len() <= MAX_ALTERNATIVES => parts.as_slice(),
            _ => std::slice::from_ref(regex),
        };
        let (patterns, exact): (Vec<_>, Vec<_>) = alternatives.iter().map(of_sequence).unzip();
        (patterns.into(), exact.into_iter().all(|exact| exact))
    }

    pub fn matches(&self, path: &str) -> bool {
        let mut rest = Some(path);
        for segment in &self.segments {
            let Some(text) = rest else { return false };
            let (head, tail) = split(text);
            let fits = match segment {
                Segment::Text(expected) => **expected == *head,
                Segment::NotEmpty => !head.is_empty(),
                Segment::Any => true,
            };
            if !fits {
                return false;
            }
            rest = tail;
        }
        match (&self.rest, rest) {
            (None, rest) => rest.is_none(),
            (Some(prefix), Some(rest)) => rest.starts_with(&**prefix),
            (Some(_), None) => false,
        }
    }

    /// The text, where this pattern is one.
    pub fn as_exact(&self) -> Option<String> {
        if self.rest.is_some() {
            return None;
        }
        let texts = self.segments.iter().map(|segment| match segment {
            Segment::Text(text) => Some(&**text),
            Segment::NotEmpty | Segment::Any => None,
        });
        texts
            .collect::<Option<Vec<_>>>()
            .map(|texts| texts.join("/"))
    }
}

/// The first segment, and what follows its slash.
pub fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((head, tail)) => (head, Some(tail)),
        None => (path, None),
    }
}

fn of_sequence(regex: &Hir) -> (PathPattern, bool) {
    let parts = match regex.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(regex),
    };
    let mut pattern = Builder::default();
    for (index, part) in parts.iter().enumerate() {
        let (first, last) = (index == 0, index + 1 == parts.len());
        match Part::of(part) {
            Part::Text(text) => pattern.text(text),
            Part::Segment { may_be_empty } => pattern.wild(may_be_empty),
            Part::Start if first => {}
            Part::End if last => {}
            Part::Anything if last => {
                let exact = pattern.exact && pattern.wild.is_none();
                return (pattern.anything(), exact);
            }
            Part::WithinSegment => pattern.unclear(),
            Part::Start | Part::End => pattern.exact = false,
            Part::Anything | Part::Unclear => return (pattern.anything(), false),
        }
    }
    let exact = pattern.exact;
    (pattern.end(), exact)
}

/// What a part of a regular expression says of canonical paths.
enum Part<'a> {
    Text(&'a [u8]),
    /// `[^/]*` or `[^/]+`
    Segment {
        may_be_empty: bool,
    },
    /// `.*`
    Anything,
    /// `^`: says nothing at the beginning of what is matched whole ...
    Start,
    /// ... nor `$` at its end.
    End,
    /// Something without a slash in it.
    WithinSegment,
    Unclear,
}

impl<'a> Part<'a> {
    fn of(part: &'a Hir) -> Self {
        match part.kind() {
            HirKind::Literal(literal) if literal.0.iter().copied().all(is_canonical_byte) => {
                Self::Text(&literal.0)
            }
            HirKind::Look(Look::Start) => Self::Start,
            HirKind::Look(Look::End) => Self::End,
            HirKind::Empty => Self::Text(b""),
            HirKind::Repetition(repeated) if repeated.max.is_none() && repeated.min <= 1 => {
                match repeated.sub.kind() {
                    HirKind::Class(class) if is_all_but_slash(class) => Self::Segment {
                        may_be_empty: repeated.min == 0,
                    },
                    HirKind::Class(class) if is_all(class) && repeated.min == 0 => Self::Anything,
                    _ if has_slash(part) => Self::Unclear,
                    _ => Self::WithinSegment,
                }
            }
            _ if has_slash(part) => Self::Unclear,
            _ => Self::WithinSegment,
        }
    }
}

fn accepts(class: &Class, byte: u8) -> bool {
    match class {
        Class::Unicode(class) => class
            .iter()
            .any(|range| (range.start()..=range.end()).contains(&char::from(byte))),
        Class::Bytes(class) => class
            .iter()
            .any(|range| (range.start()..=range.end()).contains(&byte)),
    }
}

fn is_all(class: &Class) -> bool {
    (0..=u8::MAX)
        .filter(|&byte| is_canonical_byte(byte))
        .all(|byte| accepts(class, byte))
}

fn is_all_but_slash(class: &Class) -> bool {
    let mut bytes = (0..=u8::MAX).filter(|&byte| is_canonical_byte(byte));
    bytes.all(|byte| accepts(class, byte) == (byte != b'/'))
}

/// Can a match of this contain a slash?
fn has_slash(part: &Hir) -> bool {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&b'/'),
        HirKind::Class(class) => accepts(class, b'/'),
        HirKind::Repetition(repeated) => has_slash(&repeated.sub),
        HirKind::Capture(capture) => has_slash(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(has_slash),
    }
}

/// Collects segments; knows of the one that is not finished yet.
struct Builder {
    segments: Vec<Segment>,
    /// The current segment's beginning.
    text: String,
    /// What follows `text` in the current segment, if not just text.
    wild: Option<Segment>,
    exact: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            text: String::new(),
            wild: None,
            exact: true,
        }
    }
}

impl Builder {
    fn text(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'/' {
                self.finish_segment();
            } else if self.wild.is_none() {
                self.text.push(char::from(byte));
            } else {
                self.unclear();
            }
        }
    }

    /// `[^/]*` or `[^/]+`, which is a segment if nothing else is in it.
    fn wild(&mut self, may_be_empty: bool) {
        if self.wild.is_some() || !self.text.is_empty() {
            return self.unclear();
        }
        self.wild = Some(if may_be_empty {
            Segment::Any
        } else {
            Segment::NotEmpty
        });
    }

    /// Something in this segment that a pattern cannot say.
    fn unclear(&mut self) {
        self.wild = Some(Segment::Any);
        self.exact = false;
    }

    fn finish_segment(&mut self) {
        let text = std::mem::take(&mut self.text);
        self.segments.push(
            self.wild
                .take()
                .unwrap_or_else(|| Segment::Text(text.into())),
        );
    }

    fn end(mut self) -> PathPattern {
        self.finish_segment();
        PathPattern {
            segments: self.segments.into(),
            rest: None,
        }
    }

    fn anything(self) -> PathPattern {
        PathPattern {
            segments: self.segments.into(),
            rest: Some(self.text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(regex: &str) -> (Box<[PathPattern]>, bool) {
        let parsed = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .build()
            .parse(regex)
            .unwrap();
        PathPattern::of_regex(&parsed)
    }

    #[test]
    fn what_a_policy_compiler_writes_needs_no_regular_expression() {
        for (regex, fits, not) in [
            ("/books/[^/]+", "/books/7", "/books/"),
            ("/books/[^/]*", "/books/", "/books/7/x"),
            (
                "/books/[^/]+/reviews",
                "/books/7/reviews",
                "/books/7/reviews/",
            ),
            ("/books/.*", "/books/a/b", "/books"),
            ("/bo.*", "/books", "/b"),
            ("^/books$", "/books", "/books/"),
            ("/a|/b/.*", "/b/x", "/a/x"),
            (".*", "/", "\n"),
            ("/[^/]+/x.*", "/a/xy", "/a/y"),
        ] {
            let (patterns, exact) = of(regex);
            assert!(exact, "{regex}");
            assert!(
                patterns.iter().any(|pattern| pattern.matches(fits)),
                "{regex} {fits}"
            );
            let canonical = not.bytes().all(is_canonical_byte);
            assert!(
                !canonical || !patterns.iter().any(|p| p.matches(not)),
                "{regex} {not}"
            );
        }
    }

    #[test]
    fn what_a_pattern_cannot_say_is_left_to_the_regular_expression() {
        for (regex, fits) in [
            ("/a.", "/ab"),
            ("/a.c", "/a/c"),
            ("/v1\\.0|/v.+", "/v2"),
            ("$/a", "/a"),
            ("/a^", "/a"),
            ("/(a|b)", "/b"),
            ("(/a)*", "/a/a"),
            ("(?i)/A", "/a"),
            ("/a[^/]+", "/ab"),
            ("[^/]+a", "ba"),
            ("/.*/x", "/a/b/x"),
            ("/[^/]+.*", "/a/b"),
            ("/é", "/"),
        ] {
            let (patterns, exact) = of(regex);
            assert!(!exact, "{regex}");
            let whole = regex::Regex::new(&format!("^(?:{regex})$")).unwrap();
            let fits = !whole.is_match(fits) || patterns.iter().any(|p| p.matches(fits));
            assert!(fits, "{regex}");
        }
    }

    #[test]
    fn a_prefix_is_a_text_and_not_a_segment() {
        let prefix = PathPattern::prefix("/books");
        assert!(prefix.matches("/books") && prefix.matches("/bookshop/x"));
        assert!(!prefix.matches("/book") && !prefix.matches("/a/books"));
        assert_eq!(
            PathPattern::exact("/a/b").as_exact().as_deref(),
            Some("/a/b")
        );
        assert_eq!(prefix.as_exact(), None);
    }
}
