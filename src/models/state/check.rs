//! What must hold between any two calls, for tests.

use super::{Stage, State};
use crate::models::memory::Account;

impl State {
    pub(in crate::models) fn check(&self) {
        self.check_memory();
        self.check_models();
        self.check_residents();
        let running =
            self.residents.iter().filter(|(_, resident)| resident.stage.runs() && !resident.stuck).count();
        assert_eq!(running, self.loading, "loads that run are counted wrongly");
        assert!(running <= self.settings.max_loads, "more loads run than may");
    }

    fn check_memory(&self) {
        for account in [Account::Reserved, Account::Ready, Account::Draining, Account::Viewed] {
            let there =
                self.residents.iter().filter(|(_, resident)| resident.stage.account() == Some(account));
            let sum: u64 = there.map(|(_, resident)| resident.bytes).fold(0, u64::saturating_add);
            assert_eq!(sum, self.memory.on(account), "bytes of {account:?} do not add up");
        }
    }

    fn check_models(&self) {
        for (at, model) in (0..).zip(&self.models) {
            let id = crate::models::ModelId(at);
            if let Some(current) = model.current {
                assert_eq!(self.stage(current), Some(Stage::Ready));
                assert!(model.registered);
            }
            assert_eq!(model.pending.is_some(), self.pending.contains(&id));
            let Some(pending) = &model.pending else { continue };
            let resident = self.residents.get(pending.residency).expect("what is wanted exists");
            assert!(resident.model == id && resident.unwanted.is_none() && !resident.stuck);
            assert!(resident.stage.waits() || resident.stage.runs());
            assert_eq!(pending.urgency.iter().sum::<usize>(), pending.waiters.len());
            let wanted = pending.is_wanted() || !resident.holders.is_empty() || resident.stage.runs();
            assert!(wanted, "a load waits that nobody wants");
        }
    }

    fn check_residents(&self) {
        for (residency, resident) in self.residents.iter() {
            for needed in &resident.requires {
                let needed = self.residents.get(*needed).expect("what is needed outlives what needs it");
                assert!(needed.holders.contains(&residency));
                let there = needed.stage.is_there() || resident.stage.waits() && needed.stage.has_memory();
                assert!(there, "{:?} needs what is {:?}", resident.stage, needed.stage);
            }
            for holder in &resident.holders {
                assert!(self.residents.get(*holder).expect("who holds exists").requires.contains(&residency));
            }
            if resident.stage.waits() {
                assert_eq!(self.coming(resident.model), Some(residency), "a load waits that is nobody's");
            }
            if matches!(resident.stage, Stage::Unloading | Stage::Viewed) {
                assert!(resident.is_free(), "it was unloaded while it was used");
            }
            if resident.stage == Stage::Draining {
                assert!(!resident.is_free(), "nobody uses it and it is not unloaded");
            }
        }
    }
}
