//! The rules of one filter, grouped by whom they concern.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::compile::Rule;
use super::expression::{Expression, Request, Text, Values};
use super::index::{Index, Methods};
use super::principal::Principal;

/// A group of so many rules has an index of its own, shared by its principals; smaller ones are merged for each principal.
const LARGE_GROUP: usize = 64;

/// All rules of one filter.
#[derive(Debug)]
pub struct RuleBase {
    rules: Box<[Rule]>,
    groups: Box<[Group]>,
    /// The groups that only these SPIFFE IDs can be in.
    by_id: HashMap<Box<str>, Vec<usize>>,
    /// The groups that must be asked.
    others: Vec<usize>,
}

/// Rules with the same principals.
#[derive(Debug)]
struct Group {
    principals: Arc<Expression>,
    /// Ascending.
    rules: Vec<u32>,
    /// Made by whoever needs it first; workers that need it at the same time each make it, and none waits.
    index: ArcSwapOption<Index>,
}

/// The rules of a filter that concern one principal.
#[derive(Debug)]
pub struct Slice {
    /// Of the small groups.
    own: Index,
    shared: Box<[Arc<Index>]>,
}

impl Slice {
    /// How many rules this slice alone keeps in memory.
    pub fn own_rules(&self) -> usize {
        self.own.len()
    }
}

impl RuleBase {
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        // The compiler gives the same object to rules with the same principals.
        let mut known: HashMap<*const Expression, usize> = HashMap::new();
        for (number, rule) in (0..).zip(&rules) {
            let group = *known
                .entry(Arc::as_ptr(&rule.principals))
                .or_insert_with(|| {
                    let principals = Arc::clone(&rule.principals);
                    groups.push(Group {
                        principals,
                        rules: Vec::new(),
                        index: ArcSwapOption::empty(),
                    });
                    groups.len() - 1
                });
            if let Some(group) = groups.get_mut(group) {
                group.rules.push(number);
            }
        }
        let mut by_id: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut others = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            match only_ids(&group.principals) {
                Some(ids) => ids.into_iter().for_each(|id| {
                    let groups = by_id.entry(id.into()).or_default();
                    if groups.last() != Some(&number) {
                        groups.push(number);
                    }
                }),
                None => others.push(number),
            }
        }
        Self {
            rules: rules.into(),
            groups: groups.into(),
            by_id,
            others,
        }
    }

    pub fn names(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.rules.iter().map(|rule| Arc::clone(&rule.name))
    }

    /// The rules whose principals this one is, or may be where that depends on the request.
    pub fn slice(&self, principal: &Principal) -> Slice {
        let by_id = principal.id().and_then(|id| self.by_id.get(id));
        let numbers = by_id.into_iter().flatten().chain(&self.others);
        let groups = numbers.filter_map(|&number| self.groups.get(number));
        let concerned = groups.filter(|group| group.principals.known(principal) != Some(false));
        let (large, small): (Vec<_>, Vec<_>) =
            concerned.partition(|group| group.rules.len() >= LARGE_GROUP);
        let mut own: Vec<u32> = small
            .iter()
            .flat_map(|group| group.rules.iter().copied())
            .collect();
        own.sort_unstable();
        let shared = large.iter().map(|group| {
            group.index.load_full().unwrap_or_else(|| {
                let made = Arc::new(self.index(&group.rules));
                group.index.store(Some(Arc::clone(&made)));
                made
            })
        });
        Slice {
            own: self.index(&own),
            shared: shared.collect(),
        }
    }

    fn index(&self, numbers: &[u32]) -> Index {
        let rules = numbers
            .iter()
            .filter_map(|&number| self.rule(number).map(|rule| (number, &rule.permissions)));
        Index::new(rules)
    }

    fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(number).ok()?)
    }

    /// The first rule that matches, in the order of the rules.
    pub fn first_match(
        &self,
        slice: &Slice,
        request: &Request<'_>,
        values: Values,
    ) -> Option<&Arc<str>> {
        let method = Methods::of(&request.canonical.method);
        let mut first: Option<u32> = None;
        let shared = slice.shared.iter().map(Arc::as_ref);
        for index in std::iter::once(&slice.own)
            .filter(|own| !own.is_empty())
            .chain(shared)
        {
            index.visit(&request.canonical.path, &mut |candidates| {
                let earlier = candidates
                    .iter()
                    .take_while(|c| first.is_none_or(|first| c.rule < first));
                let matched = earlier
                    .filter(|candidate| candidate.takes(method))
                    .find(|candidate| self.matches(candidate.rule, request, values));
                first = matched.map(|candidate| candidate.rule).or(first);
            });
        }
        self.rule(first?).map(|rule| &rule.name)
    }

    fn matches(&self, number: u32, request: &Request<'_>, values: Values) -> bool {
        self.rule(number).is_some_and(|rule| {
            // Principals that the request has no say in were decided by `slice`.
            (!rule.principals_ask_request || rule.principals.holds(request, values))
                && rule.permissions.holds(request, values)
        })
    }
}

/// The SPIFFE IDs, where an expression names all that it can hold for.
fn only_ids(principals: &Expression) -> Option<Vec<&str>> {
    match principals {
        Expression::Authenticated(Some(Text::Exact(id))) => Some(vec![id]),
        Expression::Some(parts) => {
            let parts: Option<Vec<_>> = parts.iter().map(only_ids).collect();
            parts.map(|parts| parts.concat())
        }
        Expression::All(parts) => parts.iter().find_map(only_ids),
        _ => None,
    }
}
