//! What is in memory, in bytes.

/// Which account a residency's bytes stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// Loads that have been let in, whether they have begun or not.
    Reserved,
    /// Models that can be used.
    Ready,
    /// Models that leave.
    Draining,
    /// What was unloaded and is still looked at.
    Viewed,
}

/// The accounts. Sums are wider than what they are made of: no size that a loader makes up can overflow them.
#[derive(Debug, Default)]
pub(super) struct Memory {
    limit: Option<u64>,
    accounts: [u128; 4],
}

impl Memory {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, accounts: [0; 4] }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    pub(super) fn put(&mut self, account: Account, bytes: u64) {
        if let Some(sum) = self.accounts.get_mut(account as usize) {
            *sum += u128::from(bytes);
        }
    }

    pub(super) fn take(&mut self, account: Account, bytes: u64) {
        if let Some(sum) = self.accounts.get_mut(account as usize) {
            debug_assert!(*sum >= u128::from(bytes), "more was taken from {account:?} than was put there");
            *sum = sum.saturating_sub(u128::from(bytes));
        }
    }

    pub(super) fn on(&self, account: Account) -> u64 {
        narrow(self.accounts.get(account as usize).copied().unwrap_or_default())
    }

    fn sum(&self) -> u128 {
        self.accounts.iter().sum()
    }

    pub(super) fn used(&self) -> u64 {
        narrow(self.sum())
    }

    /// Bytes above the limit.
    pub(super) fn deficit(&self) -> u64 {
        self.limit.map_or(0, |limit| narrow(self.sum().saturating_sub(u128::from(limit))))
    }

    /// Bytes that are missing for `need`, where `leaving` are about to be given back.
    pub(super) fn missing(&self, need: u128, leaving: u128) -> u128 {
        let Some(limit) = self.limit else { return 0 };
        (self.sum() + need).saturating_sub(u128::from(limit) + leaving)
    }
}

/// As wide as bytes are shown.
pub(super) fn narrow(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_account_counts_until_it_is_given_back() {
        let mut memory = Memory::new(Some(10));
        for (account, bytes) in
            [(Account::Reserved, 1), (Account::Ready, 2), (Account::Draining, 3), (Account::Viewed, 4)]
        {
            memory.put(account, bytes);
            assert_eq!(memory.on(account), bytes);
        }
        assert_eq!(
            (memory.used(), memory.deficit(), memory.missing(1, 0), memory.missing(1, 1)),
            (10, 0, 1, 0)
        );
        memory.put(Account::Ready, 5);
        assert_eq!((memory.deficit(), memory.missing(0, 2)), (5, 3));
        memory.take(Account::Viewed, 4);
        assert_eq!(memory.used(), 11);
    }

    #[test]
    fn sizes_that_loaders_make_up_do_not_overflow() {
        let mut memory = Memory::new(Some(1));
        (0..3).for_each(|_| memory.put(Account::Ready, u64::MAX));
        assert_eq!((memory.used(), memory.deficit()), (u64::MAX, u64::MAX));
        (0..3).for_each(|_| memory.take(Account::Ready, u64::MAX));
        assert_eq!((memory.used(), memory.deficit()), (0, 0));
    }

    #[test]
    fn without_a_limit_nothing_is_missing() {
        let mut memory = Memory::new(None);
        memory.put(Account::Ready, u64::MAX);
        assert_eq!((memory.deficit(), memory.missing(u128::MAX / 2, 0)), (0, 0));
    }
}
