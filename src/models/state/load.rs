//! What loaders say of loads that run.

use super::{Stage, State};
use crate::error::{Error, ErrorKind};
use crate::flow::Moment;
use crate::models::{ModelId, Reason, Residency};

impl State {
    pub(in crate::models) fn report(
        &mut self,
        residency: Residency,
        phase: &str,
        fraction: Option<f32>,
    ) -> bool {
        let Some(resident) = self.residents.get_mut(residency).filter(|resident| resident.stage.runs())
        else {
            return false;
        };
        let wanted = resident.unwanted.is_none() && !resident.stuck;
        if resident.said.report(phase, fraction) {
            self.changed = true;
        }
        wanted
    }

    pub(in crate::models) fn warming(&mut self, residency: Residency) {
        let Some(resident) = self.residents.get(residency) else { return };
        if resident.stage == Stage::Loading {
            let bytes = resident.bytes;
            self.put(residency, Stage::Warming, bytes);
        }
    }

    /// A load has ended well. Whoever waits leases it before anything else is decided. True where it serves from here on.
    pub(in crate::models) fn loaded(&mut self, residency: Residency, size: Option<u64>, now: Moment) -> bool {
        let Some(resident) = self.residents.get_mut(residency).filter(|resident| resident.stage.runs())
        else {
            return false;
        };
        let (id, stuck, expected) = (resident.model, std::mem::take(&mut resident.stuck), resident.bytes);
        let took = now.since(resident.started);
        let bytes = size.unwrap_or(expected);
        resident.ready = now;
        if !stuck {
            self.loading = self.loading.saturating_sub(1);
        }
        self.no_longer_stuck(id, residency);
        self.count_load(id, size, took, bytes);
        self.put(residency, Stage::Ready, bytes);
        self.install(residency, id, bytes > expected, now);
        let serves = self.current(id) == Some(residency);
        self.pump(now);
        serves
    }

    fn count_load(&mut self, id: ModelId, size: Option<u64>, took: std::time::Duration, bytes: u64) {
        self.counts.loaded(took);
        self.counts.paid_seconds += took.as_secs_f64();
        if let Some(size) = size {
            let (sum, count) = &mut self.counts.measured;
            (*sum, *count) = (sum.saturating_add(u128::from(size)), count.saturating_add(1));
        }
        if let Some(model) = self.known(id) {
            model.tally.loads += 1;
            model.facts.loaded(bytes, took);
            model.measured = size.or(model.measured);
        }
    }

    /// What was loaded serves from here on, or is let go of.
    fn install(&mut self, residency: Residency, id: ModelId, grew: bool, now: Moment) {
        // A load that outlasts its cache serves nobody.
        let closing = self.closing.as_ref().map(|_| Reason::Close);
        let Some(resident) = self.residents.get_mut(residency) else { return };
        let (unwanted, bytes) = (resident.unwanted.or(closing), resident.bytes);
        resident.grew = grew;
        // One that was stuck may come when its model is there no more.
        let gone = self.model(id).is_none().then_some(Reason::Replaced);
        if let Some(reason) = unwanted.or(gone) {
            return self.retire(residency, reason, now);
        }
        if self.memory.limit().is_some_and(|limit| bytes > limit) {
            return self.too_large(residency, id, bytes, now);
        }
        let took_its_place = self.coming(id).is_some_and(|coming| coming != residency);
        if took_its_place {
            return self.retire(residency, Reason::Replaced, now);
        }
        let old = self.current(id);
        if let Some(old) = old {
            self.retire(old, Reason::Reload, now);
        }
        self.serve(residency, id, now);
    }

    fn serve(&mut self, residency: Residency, id: ModelId, now: Moment) {
        self.forgive(id);
        let beneath = self.beneath(residency);
        let Some(model) = self.known(id) else { return };
        model.current = Some(residency);
        (model.expected, model.complaint) = (false, None);
        model.beneath = beneath;
        let (facts, pending) = (model.facts, model.pending.take());
        self.pending.remove(&id);
        self.policy.loaded(id, &facts, now);
        let Some(mut pending) = pending else { return };
        let again = std::mem::take(&mut pending.again);
        for number in pending.waiters {
            self.grant(number, residency, now);
        }
        for (preload, ..) in pending.preloads {
            self.settle(preload, id, Ok(()), now);
        }
        self.load_again(id, again, now);
    }

    /// The models under a residency, what they need first.
    fn beneath(&self, residency: Residency) -> smallvec::SmallVec<[ModelId; 4]> {
        let mut found = smallvec::SmallVec::new();
        let mut open: Vec<_> =
            self.residents.get(residency).map(|top| top.requires.clone()).unwrap_or_default();
        while let Some(next) = open.pop() {
            let Some(resident) = self.residents.get(next) else { continue };
            found.retain(|id| *id != resident.model);
            found.insert(0, resident.model);
            open.extend(&resident.requires);
        }
        found
    }

    /// It takes more than the whole memory: it goes at once.
    fn too_large(&mut self, residency: Residency, id: ModelId, bytes: u64, now: Moment) {
        let limit = self.memory.limit().unwrap_or(u64::MAX);
        let text = format!("it takes {bytes} bytes, and the whole memory is {limit}");
        let error = Error::new(ErrorKind::Capacity, text);
        let label = self.label(id);
        let text = format!("model '{label}' takes {bytes} bytes, and the whole memory is {limit}");
        self.count_failure(id);
        self.remember(id, &error, now);
        self.refuse_dependents(residency, &[label], &error, now);
        // One that was stuck may come beside the next: that is refused by its own size, which is known now.
        if self.coming(id) == Some(residency) {
            self.dissolve(id, &Error::new(ErrorKind::Capacity, text), now);
        }
        self.retire(residency, Reason::TooLarge, now);
    }
}
