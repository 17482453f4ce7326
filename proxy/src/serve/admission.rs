//! Who may hold how much of what is scarce: places, and a share of them for each holder.
//!
//! A holder may have as many places as are free. So one alone gets half, two get a third each, and one that comes after
//! greedy ones gets half of what they left (dynamic thresholds, as switches share their buffers). It takes a dozen greedy
//! holders together to fill 10,000 places. Places on connections are held by identity, those in handshakes, where there
//! is none yet, by address: who cannot prove an identity can keep only those waiting who connect from the same address.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

/// How many each worker takes at a listener.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub connections: usize,
    /// From the mesh: handshakes under way, on top of the connections.
    pub handshakes: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            connections: 10_000,
            handshakes: 4_096,
        }
    }
}

/// The places of one listener of one worker.
#[derive(Debug)]
pub struct Admission {
    pub connections: Rc<Places<Arc<str>>>,
    pub handshakes: Rc<Places<IpAddr>>,
}

impl Admission {
    pub fn new(capacity: Capacity) -> Self {
        Self {
            connections: Places::new(capacity.connections),
            handshakes: Places::new(capacity.handshakes),
        }
    }
}

/// A number of places, and who holds them.
#[derive(Debug)]
pub struct Places<K> {
    free: Cell<usize>,
    held: RefCell<HashMap<K, usize>>,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    of: Rc<Places<K>>,
    holder: K,
}

impl<K: Clone + Eq + Hash> Places<K> {
    pub fn new(count: usize) -> Rc<Self> {
        Rc::new(Self {
            free: Cell::new(count),
            held: RefCell::default(),
        })
    }

    /// A place, unless this holder has its share.
    pub fn take(self: &Rc<Self>, holder: K) -> Option<Place<K>> {
        let mut held = self.held.borrow_mut();
        let has = held.get(&holder).copied().unwrap_or_default();
        if has >= self.free.get() {
            return None;
        }
        held.insert(holder.clone(), has + 1);
        self.free.set(self.free.get() - 1);
        Some(Place {
            of: Rc::clone(self),
            holder,
        })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        self.of.free.set(self.of.free.get() + 1);
        let mut held = self.of.held.borrow_mut();
        if let Some(has) = held.get_mut(&self.holder) {
            *has -= 1;
            if *has == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

/// What one machine can call its own: an IPv4 address, or an IPv6 network of 64 bits (RFC 4291 §2.5.4).
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all<'a>(places: &Rc<Places<&'a str>>, holder: &'a str) -> Vec<Place<&'a str>> {
        std::iter::from_fn(|| places.take(holder)).collect()
    }

    #[test]
    fn one_alone_gets_half_and_each_that_comes_later_gets_a_place() {
        let places = Places::new(100);
        let first = take_all(&places, "a");
        assert_eq!(first.len(), 50);
        let others: Vec<_> = ["b", "c", "d", "e", "f"]
            .map(|holder| take_all(&places, holder))
            .into();
        let counts: Vec<_> = others.iter().map(Vec::len).collect();
        assert_eq!(counts, [25, 13, 6, 3, 2]);
        assert!(places.take("a").is_none());
        assert!(places.take("g").is_some());
    }

    #[test]
    fn places_that_are_given_back_are_free_and_their_holder_forgotten() {
        let places = Places::new(4);
        drop(take_all(&places, "a"));
        assert_eq!(places.free.get(), 4);
        assert!(places.held.borrow().is_empty());
        assert_eq!(take_all(&places, "b").len(), 2);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
