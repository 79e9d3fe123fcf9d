//! Who leaves where there is no room.

use super::space::Need;
use super::{Effect, Stage, State};
use crate::flow::Moment;
use crate::models::policy::{Facts, Policy};
use crate::models::{Candidate, ModelId, PolicyKind, Ranking, Reason, Residency};

/// What the loader was asked about who should leave.
pub(super) struct Question {
    number: u64,
    candidates: Vec<Residency>,
    /// The lowest last; empty until it is answered.
    answer: Option<Vec<Residency>>,
}

impl State {
    /// Has models leave until there is room, or will be. A guess has none leave where that would not do.
    pub(super) fn make_room(
        &mut self,
        wanted: ModelId,
        old: Option<ModelId>,
        need: &Need,
        guess: bool,
        now: Moment,
    ) {
        // What is to be replaced serves until then.
        let mut stays: Vec<_> = need.there.iter().copied().chain(self.current(wanted)).collect();
        let mut missing = self.memory.missing(need.bytes, self.leaving(old));
        if !guess {
            self.have_leave(&stays, old, need, now);
            // What stands on an older load of what it needs keeps that, too: loaded anew, it would not.
            stays.retain(|residency| !self.is_outdated(*residency));
            stays.extend(self.current(wanted));
            return self.have_leave(&stays, old, need, now);
        }
        let mut victims = Vec::new();
        while missing > 0 {
            let Some(victim) = self.victim(&stays, Some(wanted), now) else { return };
            missing =
                missing.saturating_sub(self.residents.get(victim).map_or(0, |victim| victim.bytes.into()));
            victims.push(victim);
            stays.push(victim);
        }
        for victim in victims {
            self.retire(victim, Reason::Space, now);
        }
    }

    fn have_leave(&mut self, stays: &[Residency], old: Option<ModelId>, need: &Need, now: Moment) {
        while self.memory.missing(need.bytes, self.leaving(old)) > 0 {
            let Some(victim) = self.victim(stays, None, now) else { break };
            self.retire(victim, Reason::Space, now);
        }
    }

    /// True where it stands on other loads than it would be loaded on top of now.
    pub(super) fn is_outdated(&self, residency: Residency) -> bool {
        let Some(resident) = self.residents.get(residency) else { return false };
        let needs = self.graph.requires(resident.model).unwrap_or_default();
        let stands = needs.iter().map(|id| self.usable(*id)).eq(resident.requires.iter().copied().map(Some));
        !stands || resident.requires.iter().any(|needed| self.is_outdated(*needed))
    }

    /// Makes up for models that turned out larger than they were taken to be: others leave, and then loads that have not
    /// begun lose their memory again.
    pub(super) fn repay(&mut self, now: Moment) {
        if self.memory.deficit() == 0 {
            return self.forget_growth();
        }
        let grew: Vec<_> = self
            .residents
            .iter()
            .filter(|(_, resident)| resident.grew)
            .map(|(residency, _)| residency)
            .collect();
        // What grew stays, rather than be loaded again and again; but not where several did, and do not fit together.
        let latest: Vec<_> = grew.iter().max().copied().into_iter().collect();
        for stays in [grew, latest] {
            while self.memory.missing(0, self.leaving(None)) > 0 {
                let Some(victim) = self.victim(&stays, None, now) else { break };
                self.retire(victim, Reason::Space, now);
            }
        }
        if self.memory.missing(0, self.leaving(None)) > 0 {
            self.revoke_last(now);
        }
        self.forget_growth();
    }

    fn forget_growth(&mut self) {
        if self.memory.deficit() == 0 {
            self.residents.iter_mut().for_each(|(_, resident)| resident.grew = false);
        }
    }

    /// Takes memory back from loads that have not begun, the last in the queue first.
    fn revoke_last(&mut self, now: Moment) {
        self.sort_queue(now);
        for residency in self.queue.in_order(now).into_iter().rev() {
            if self.memory.missing(0, self.leaving(None)) == 0 {
                break;
            }
            self.revoke(residency, now);
        }
    }

    /// Bytes of what is about to be gone: nobody uses it, and its loader was told, or will be when what needs it is gone.
    /// And those of what drains of `old`, whoever leases it; what was loaded on top of it may be there for good.
    pub(super) fn leaving(&self, old: Option<ModelId>) -> u128 {
        let drains = |resident: &super::resident::Resident| {
            resident.stage == Stage::Draining
                && Some(resident.model) == old
                && resident.holders.iter().all(|holder| self.leaves(*holder))
        };
        let leaves = |(residency, resident): &(Residency, &super::resident::Resident)| {
            self.leaves(*residency) || drains(resident)
        };
        self.residents.iter().filter(leaves).map(|(_, resident)| u128::from(resident.bytes)).sum()
    }

    fn leaves(&self, residency: Residency) -> bool {
        let Some(resident) = self.residents.get(residency) else { return true };
        match resident.stage {
            Stage::Unloading => true,
            Stage::Draining => {
                resident.leases == 0 && resident.holders.iter().all(|holder| self.leaves(*holder))
            }
            _ => false,
        }
    }

    /// True where nothing keeps a residency.
    pub(super) fn may_go(&self, residency: Residency, stays: &[Residency]) -> bool {
        let Some(resident) = self.residents.get(residency) else { return false };
        resident.stage == Stage::Ready
            && resident.leases == 0
            && !stays.contains(&residency)
            && resident.holders.iter().all(|holder| self.leaves(*holder))
            && self.models.get(resident.model.0 as usize).is_some_and(|model| !model.kept)
    }

    /// The next to leave. For a guess, only what is worth less than it.
    fn victim(&mut self, stays: &[Residency], guess: Option<ModelId>, now: Moment) -> Option<Residency> {
        if self.settings.policy == PolicyKind::Ranked {
            // What the loader thinks of a guess is not known.
            return if guess.is_none() { self.ranked_victim(stays, now) } else { None };
        }
        // The policy is asked while the rest of the state is read.
        let mut policy = std::mem::replace(&mut self.policy, Box::new(Nobody));
        let may_go = |id: ModelId| self.current(id).is_some_and(|residency| self.may_go(residency, stays));
        let victim = if self.wishes.are_minded() {
            self.minded_victim(policy.as_mut(), guess, &may_go, now)
        } else {
            // Nothing is known that a guess would be worth more than.
            Some(now).filter(|_| guess.is_none()).and_then(|now| policy.victim(now, &may_go))
        };
        self.policy = policy;
        self.current(victim?)
    }

    /// The policy's choice among those that will not be asked for as long as they could stay, else among those that need not
    /// be kept, else among all. A guess has only what is worth less than it.
    fn minded_victim(
        &self,
        policy: &mut dyn Policy,
        guess: Option<ModelId>,
        may_go: &dyn Fn(ModelId) -> bool,
        now: Moment,
    ) -> Option<ModelId> {
        let spent = |id: ModelId| may_go(id) && self.wishes.is_spent(id, now);
        let worth_less = |id: ModelId| guess.is_none_or(|wanted| self.worth_less(id, wanted));
        let idle = |id: ModelId| may_go(id) && !self.wishes.keep(id, now) && worth_less(id);
        let all = |id: ModelId| guess.is_none() && may_go(id);
        policy.victim(now, &spent).or_else(|| policy.victim(now, &idle)).or_else(|| policy.victim(now, &all))
    }

    /// The next to leave by the loader's answer; asks it where there is none.
    fn ranked_victim(&mut self, stays: &[Residency], now: Moment) -> Option<Residency> {
        match &mut self.question {
            Some(Question { answer: None, .. }) => return None,
            Some(Question { answer: Some(order), .. }) => {
                // Who may not go for this load may go for another: they keep their places.
                let mut order = std::mem::take(order);
                let lowest = order.iter().rposition(|residency| self.may_go(*residency, stays));
                let victim = lowest.map(|at| order.remove(at));
                if let Some(question) = &mut self.question {
                    question.answer = Some(order);
                }
                if victim.is_some() {
                    return victim;
                }
            }
            None => {}
        }
        self.ask(stays, now);
        None
    }

    fn ask(&mut self, stays: &[Residency], now: Moment) {
        let going: Vec<_> = self.residents.iter().map(|(residency, _)| residency).collect();
        let going: Vec<_> = going.into_iter().filter(|residency| self.may_go(*residency, stays)).collect();
        if going.is_empty() {
            return;
        }
        self.counts.questions += 1;
        let number = self.counts.questions;
        let candidates = going.iter().filter_map(|residency| self.candidate(*residency, now)).collect();
        self.question = Some(Question { number, candidates: going, answer: None });
        self.out.push_back(Effect::Rank(Ranking { question: number, candidates }));
    }

    fn candidate(&self, residency: Residency, now: Moment) -> Option<Candidate> {
        let resident = self.residents.get(residency)?;
        let model = self.models.get(resident.model.0 as usize)?;
        let tally = &model.tally;
        Some(Candidate {
            residency,
            model: resident.model,
            name: model.spec.name.clone(),
            version: model.spec.version.clone(),
            bytes: resident.bytes,
            load_seconds: model.facts.load_seconds,
            uses: tally.hits + tally.misses + tally.joins,
            idle_seconds: now.since(model.facts.last_used.max(resident.ready)).as_secs_f64(),
            age_seconds: now.since(resident.ready).as_secs_f64(),
        })
    }

    /// The loader's answer.
    pub(in crate::models) fn ranked(&mut self, number: u64, scores: &[f64], now: Moment) {
        let Some(question) = self.question.as_mut() else { return };
        if question.number != number || question.answer.is_some() {
            return;
        }
        let score = |at: usize| match scores.get(at) {
            Some(score) if score.is_nan() => f64::NEG_INFINITY,
            Some(score) => *score,
            None => f64::INFINITY,
        };
        let mut order: Vec<_> = (0..).zip(std::mem::take(&mut question.candidates)).collect();
        order.sort_by(|(one, _), (other, _)| score(*other).total_cmp(&score(*one)));
        question.answer = Some(order.into_iter().map(|(_, residency)| residency).collect());
        self.pump(now);
        // What was not needed now would be old the next time.
        if self.question.as_ref().is_some_and(|question| question.answer.is_some()) {
            self.question = None;
        }
    }
}

/// Stands in for the policy while that is asked.
struct Nobody;

impl Policy for Nobody {
    fn used(&mut self, _: ModelId, _: &Facts, _: Moment) {}

    fn loaded(&mut self, _: ModelId, _: &Facts, _: Moment) {}

    fn gone(&mut self, _: ModelId, _: Moment) {}

    fn victim(&mut self, _: Moment, _: &dyn Fn(ModelId) -> bool) -> Option<ModelId> {
        None
    }
}
