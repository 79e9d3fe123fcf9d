//! How long a tree of models takes to load, in virtual time: a node begins as soon as what it needs itself is there.

use std::time::Duration;

use penstock::flow::{Moment, Priority};
use penstock::models::{CacheSettings, Cause, ModelId};
use proptest::prelude::*;

use super::world::{Phase, World};

/// Models, each with the seconds that it takes and what it requires of those before it.
#[derive(Debug, Clone)]
struct Plan {
    seconds: Vec<u64>,
    requires: Vec<Vec<usize>>,
}

impl Plan {
    /// Twelve models: a slow leaf with little behind it, a long chain beside it, four leaves, and one that needs all.
    fn twelve() -> Self {
        let seconds = vec![1, 1, 1, 1, 1, 4, 4, 2, 10, 1, 1, 1];
        let requires = vec![
            vec![],
            vec![],
            vec![],
            vec![],
            vec![],
            vec![4],
            vec![5],
            vec![6],
            vec![],
            vec![8],
            vec![9],
            vec![0, 1, 2, 3, 7, 10],
        ];
        Self { seconds, requires }
    }

    fn work(&self) -> u64 {
        self.seconds.iter().sum()
    }

    /// When each could be ready at the earliest, with a slot for everybody.
    fn earliest(&self) -> Vec<u64> {
        let mut ends: Vec<u64> = Vec::new();
        for (seconds, requires) in self.seconds.iter().zip(&self.requires) {
            let begin = requires.iter().map(|at| ends[*at]).max().unwrap_or_default();
            ends.push(begin + seconds);
        }
        ends
    }

    fn critical_path(&self) -> u64 {
        self.earliest().into_iter().max().unwrap_or_default()
    }

    /// As Triton does it: everything that can begin begins, and nothing else until all of that is done.
    fn in_waves(&self, slots: usize) -> u64 {
        let mut levels: Vec<usize> = Vec::new();
        for requires in &self.requires {
            levels.push(requires.iter().map(|at| levels[*at] + 1).max().unwrap_or_default());
        }
        (0..self.seconds.len())
            .map(|level| {
                let mut wave: Vec<_> = self
                    .seconds
                    .iter()
                    .zip(&levels)
                    .filter(|(_, at)| **at == level)
                    .map(|(seconds, _)| *seconds)
                    .collect();
                wave.sort_unstable_by(|one, other| other.cmp(one));
                let mut free = vec![0; slots];
                for seconds in wave {
                    *free.iter_mut().min().unwrap() += seconds;
                }
                free.into_iter().max().unwrap_or_default()
            })
            .sum()
    }

    fn register(&self, world: &mut World) -> Vec<ModelId> {
        let name = |at: &usize| format!("m{at}");
        let register = |(at, requires): (usize, &Vec<usize>)| {
            let requires: Vec<_> = requires.iter().map(name).collect();
            let requires: Vec<_> = requires.iter().map(String::as_str).collect();
            world.model(&name(&at), &requires, Some(1))
        };
        self.requires.iter().enumerate().map(register).collect()
    }
}

/// Preloads all in `order` and does the loader's work, each load taking its time; how many seconds passed.
fn load_all(world: &mut World, plan: &Plan, ids: &[ModelId], order: &[ModelId]) -> f64 {
    let begin = world.now();
    let at = world.preload(order, Cause::Preload, Priority::Normal);
    let ends = |world: &World| -> Vec<(Moment, _)> {
        let loading = world.in_phase(Phase::Loading).into_iter();
        loading
            .map(|residency| {
                let resident = &world.residents[&residency];
                let model = ids.iter().position(|id| *id == resident.model).unwrap();
                (resident.began + Duration::from_secs(plan.seconds[model]), residency)
            })
            .collect()
    };
    while !world.preloads[at].0.is_done() {
        let (end, residency) = *ends(world).iter().min().expect("nothing loads, and not all is loaded");
        let wait = end.since(world.now());
        world.pass(wait);
        world.loaded(residency, Some(1));
    }
    world.now().since(begin).as_secs_f64()
}

fn unload_all(world: &mut World, ids: &[ModelId]) {
    for id in ids {
        world.unload(*id, true, None);
    }
    while !world.in_phase(Phase::Unloading).is_empty() {
        world.finish_unloads();
    }
}

#[test]
fn twelve_models_with_one_slow_leaf_take_as_long_as_their_longest_chain() {
    let plan = Plan::twelve();
    assert_eq!((plan.critical_path(), plan.in_waves(3)), (13, 21));
    let mut world = World::new(CacheSettings::default());
    let ids = plan.register(&mut world);
    let top = [*ids.last().unwrap()];
    let unknown = load_all(&mut world, &plan, &ids, &top);
    unload_all(&mut world, &ids);
    // What has been loaded once is known: the longest chain begins first.
    let known = load_all(&mut world, &plan, &ids, &top);
    assert!(known <= 13.0 * 1.05, "{known} s");
    assert!(unknown < 21.0, "{unknown} s is no better than in waves");
}

fn plans() -> impl Strategy<Value = Plan> {
    let node = (1..30_u64, prop::collection::vec(any::<prop::sample::Index>(), 0..3));
    prop::collection::vec(node, 2..14).prop_map(|nodes| {
        let seconds = nodes.iter().map(|(seconds, _)| *seconds).collect();
        let requires = |(at, (_, picks)): (usize, &(u64, Vec<prop::sample::Index>))| {
            let mut requires: Vec<_> = picks.iter().filter(|_| at > 0).map(|pick| pick.index(at)).collect();
            requires.sort_unstable();
            requires.dedup();
            requires
        };
        Plan { seconds, requires: nodes.iter().enumerate().map(requires).collect() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Graham's bound, which whoever leaves no slot empty keeps: the longest chain, and the rest of the work shared out.
    #[test]
    fn no_slot_is_empty_while_something_could_load(plan in plans(), max_loads in 1..5_usize) {
        let mut world = World::new(CacheSettings { max_loads, ..CacheSettings::default() });
        let ids = plan.register(&mut world);
        let slots = f64::from(u32::try_from(max_loads).unwrap());
        let seconds = |time: u64| f64::from(u32::try_from(time).unwrap());
        let (work, path) = (seconds(plan.work()), seconds(plan.critical_path()));
        let bound = path + (work - path) / slots;
        for _ in 0..2 {
            let seconds = load_all(&mut world, &plan, &ids, &ids);
            prop_assert!(seconds <= bound + 1e-6, "{} s, the bound is {} s", seconds, bound);
            unload_all(&mut world, &ids);
        }
    }
}
