//! Hands out pod IPs.

use std::collections::HashSet;
use std::net::Ipv4Addr;

/// Hosts that are used in each of the networks 10.244.0 to 10.244.249; what is above belongs to the plane itself.
const HOSTS: u32 = 250;

/// How many pods can have an address at once.
const ADDRESSES_MAX: u32 = HOSTS * 250;

/// Pod IPs in use. One that was given back is given out again only after all others, so that a client of a pod that is gone does not
/// find another one there.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    next: u32,
    used: HashSet<Ipv4Addr>,
}

impl Addresses {
    /// An address that nobody has; none if all are taken.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in 0..ADDRESSES_MAX {
            let octet = |number: u32| u8::try_from(number).expect("it is below 251");
            let address = Ipv4Addr::new(10, 244, octet(self.next / HOSTS), octet(self.next % HOSTS + 1));
            self.next = (self.next + 1) % ADDRESSES_MAX;
            if self.used.insert(address) {
                return Some(address);
            }
        }
        None
    }

    /// Gives an address back.
    pub(super) fn give_back(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::{ADDRESSES_MAX, Addresses};

    #[test]
    fn an_address_comes_back_only_after_all_others() {
        let mut addresses = Addresses::default();
        let first = addresses.take().unwrap();
        let second = addresses.take().unwrap();
        addresses.give_back(first);
        let others: Vec<_> = (2..ADDRESSES_MAX).map(|_| addresses.take().unwrap()).collect();
        assert!(!others.contains(&first) && !others.contains(&second));
        assert_eq!(addresses.take(), Some(first));
        assert_eq!(addresses.take(), None);
    }
}
